import pytest
from deploy.native.kafka import KafkaServer
@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server
