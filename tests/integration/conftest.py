"""Real servers, started on first use and stopped at the end. They are installed first where they are not: minutes, once.

They are shared by all tests of a run: a test makes topics, buckets and models under names of its own, and one that
kills a server starts its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.native import KafkaServer, MinioServer, TritonServer, VersityServer
from tests.integration.stream_line import Line


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A broker without topics."""
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A model server with nothing loaded; its repository, empty at first, is `triton.models`."""
    with TritonServer(tmp_path_factory.mktemp("triton")) as server:
        yield server


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """An S3 server without buckets."""
    with MinioServer(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VersityServer]:
    """Another S3 server without buckets."""
    with VersityServer(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture
def line(kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """A deployment's topics, and its settings in the environment."""
    made = Line(kafka.bootstrap)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.producer.close()
