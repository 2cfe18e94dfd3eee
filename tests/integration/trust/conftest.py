"""The servers of the plant, with certificates made here; started once for all tests of this folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import (
    UserScramCredentialUpsertion,
)

from deploy.native import KafkaServer, MinioServer, TritonServer
from pipeline.decode import Limits as FrameLimits
from pipeline.inspect import Inspector, Preparer
from pipeline.kafka.beats import Beats
from pipeline.kafka.log import KafkaLog
from pipeline.kafka.outlet import KafkaOutlet
from pipeline.kafka.read import TopicReader
from pipeline.stream.frames import write_frame
from pipeline.stream.inspection import Inspection
from pipeline.stream.ledger import Ledger
from pipeline.stream.metrics import Metrics
from pipeline.stream.verdicts import Teller
from pipeline.stream.worker import Limits, Worker
from pipeline.testing import FakeInfer, encoded, frame, surface
from schemas.codec import decode_results
from tests.integration.certificates import Authority
from tests.integration.trust.plant import (
    BROKER,
    OPERATOR,
    PACK,
    ROLES,
    SECRET,
    TOPICS,
    Plant,
    acls,
    password,
    records,
    until,
)


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trust")


@pytest.fixture(scope="package")
def authority(folder: Path) -> Authority:
    return Authority(folder / "authority")


@pytest.fixture(scope="package")
def stranger(folder: Path) -> Authority:
    return Authority(folder / "stranger")


@pytest.fixture(scope="package")
def plant(folder: Path, authority: Authority, stranger: Authority) -> Iterator[Plant]:
    own = authority.issue("broker", "IP:127.0.0.1")
    settings = {**BROKER, "listener.name.client.ssl.keystore.location": str(own.both)}
    with KafkaServer(folder / "kafka", settings=settings) as broker:
        admin = KafkaAdminClient(bootstrap_servers=broker.internal)
        try:
            users = [
                UserScramCredentialUpsertion(user, "SCRAM-SHA-512", password(user))
                for user in (*ROLES, OPERATOR)
            ]
            assert not any(admin.alter_user_scram_credentials(users).values())
            shape = {"num_partitions": 2, "replication_factor": 1}
            admin.create_topics(dict.fromkeys(TOPICS.all(PACK), shape), wait_for_metadata=True)
            done = admin.create_acls([acl for role in ROLES for acl in acls(role)])
            assert not done["failed"], done
        finally:
            admin.close()
        yield Plant(broker, authority, stranger)


@pytest.fixture(scope="package")
def fed(plant: Plant) -> int:
    """Frames that the feeder wrote, under its own rights."""
    one = KafkaOutlet(plant.settings("feeder"), "dapo-feed-line-1", TOPICS.frames, threading.Event())
    try:
        assert one.position() == 0
        for number in range(6):
            given = frame(f"f{number}", encoded(surface(number, defect=number % 2 == 0)), camera_id="c")
            one.write([write_frame(given, TOPICS.frames)], number + 1)
        assert one.position() == 6
    finally:
        one.close()
    return 6


@pytest.fixture(scope="package")
def inspected(plant: Plant, fed: int) -> int:
    """Rows that the worker wrote, under its own rights, with its beats."""
    settings, stop = plant.settings("worker"), threading.Event()
    log = KafkaLog(settings, TOPICS.frames, "inspect", "a")
    beats = Beats(settings, TOPICS.status, "inspect-a")
    stages = Inspection(
        Preparer(FakeInfer(PACK), FrameLimits()),
        Inspector(FakeInfer(PACK), batch=4),
        fetch=lambda given: pytest.fail(f"{given.frame_id} has its image with it"),
        ahead=8,
        stop=stop,
    )
    ledger = Ledger(
        Metrics(),
        worker_id="inspect-a",
        configuration_hash=PACK.configuration_hash,
        realtime=lambda line: False,
        waiting_for=lambda: "",
        beat=beats.send,
    )
    teller = Teller(TOPICS)
    one = Worker(
        log, stages, teller.tell, ledger, limits=Limits(transaction_ms=20.0, shutdown_s=5.0),
        realtime=lambda line: False, stop=stop,
    )  # fmt: skip
    thread = threading.Thread(target=one.run, daemon=True)
    thread.start()
    try:
        with TopicReader(plant.settings("mes"), "mes") as reader:
            for topic, count in ((TOPICS.results, fed), (TOPICS.status, 1)):
                until(lambda topic=topic, count=count: records(reader, topic) >= count)  # type: ignore[misc]
            rows = [
                row for one in reader.read(reader.span(TOPICS.results)) for row in decode_results(one.value)
            ]
            assert sorted(row.frame_id for row in rows) == [f"f{number}" for number in range(fed)]
            assert records(reader, TOPICS.defects("scratch")) == fed / 2
    finally:
        stop.set()
        thread.join(15)
        log.close()
        beats.close()
    assert not thread.is_alive()
    return len(rows)


@pytest.fixture(scope="package")
def store(folder: Path, authority: Authority) -> Iterator[MinioServer]:
    own, certs = authority.issue("store", "IP:127.0.0.1"), folder / "certs"
    certs.mkdir()
    for source, name in ((own.file, "public.crt"), (own.key, "private.key"), (authority.file, "ca.crt")):
        (certs / name).write_bytes(source.read_bytes())
    with MinioServer(folder / "minio", secret_key=f"{SECRET}minio", certs=certs) as server:
        server.make_bucket("inspection")
        yield server


@pytest.fixture(scope="package")
def model_server(folder: Path, authority: Authority) -> Iterator[TritonServer]:
    own = authority.issue("triton", "IP:127.0.0.1")
    arguments = ["--grpc-use-ssl=true", f"--grpc-server-cert={own.file}", f"--grpc-server-key={own.key}"]
    with TritonServer(folder / "triton", arguments=arguments) as server:
        yield server
