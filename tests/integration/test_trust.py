"""TLS, passwords, permissions and secrets on the real servers, with certificates made here."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
    UserScramCredentialUpsertion,
)

from dapo.errors import LogRefused, ServiceUnavailable, SettingsError
from deploy.native import KafkaServer, MinioServer, TritonServer
from pipeline.decode import Limits as FrameLimits
from pipeline.inspect import Inspector, Preparer
from pipeline.kafka.beats import Beats
from pipeline.kafka.connect import connection
from pipeline.kafka.frames import FrameReader
from pipeline.kafka.log import KafkaLog
from pipeline.kafka.outlet import KafkaOutlet
from pipeline.kafka.read import TopicReader
from pipeline.kafka.topics import TopicAdmin
from pipeline.kafka.transactions import Transactions
from pipeline.kafka.whole import WholeKafkaLog
from pipeline.ports import Message
from pipeline.rows import Configuration
from pipeline.settings import KafkaSettings, StoreSettings, TritonSettings
from pipeline.store.errors import StoreError, StoreUnavailable
from pipeline.store.open import open_store
from pipeline.stream.frames import write_frame
from pipeline.stream.inspection import Inspection
from pipeline.stream.ledger import Ledger
from pipeline.stream.metrics import Metrics
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import Teller
from pipeline.stream.worker import Limits, Worker
from pipeline.testing import FakeInfer, encoded, frame, small_pack, surface
from pipeline.triton.client import NotReady, TritonInfer
from pipeline.triton.open import address_of
from schemas.codec import decode_results
from tests.integration.certificates import Authority
from triton_models.server import ModelServer

ROOT = Path(__file__).parents[2]
ACLS = ROOT / "deploy" / "acl"
ROLES = sorted(path.stem for path in ACLS.glob("*.sh"))
OPERATOR = "operator"
TOPICS = Topics()
PACK = small_pack()
DAPO = str(Path(sys.executable).with_name("dapo"))
SECRET = "s3cret-"  # every secret here begins so, and nothing else does
BROKER = {
    "listener.security.protocol.map": "CLIENT:SASL_SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "listener.name.client.sasl.enabled.mechanisms": "SCRAM-SHA-512",
    "listener.name.client.scram-sha-512.sasl.jaas.config": (
        "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    ),
    "listener.name.client.ssl.keystore.type": "PEM",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": f"User:ANONYMOUS;User:{OPERATOR}",  # ANONYMOUS: of INTERNAL, where this test sets up
}


def password(user: str) -> str:
    return f"{SECRET}{user}"


@dataclass(frozen=True)
class Plant:
    """A broker that trusts nobody, and those that signed its certificate or did not."""

    broker: KafkaServer
    authority: Authority
    stranger: Authority

    def settings(self, user: str, **other: Any) -> KafkaSettings:
        usual = {
            "bootstrap": self.broker.bootstrap,
            "security_protocol": "SASL_SSL",
            "ssl_cafile": self.authority.file,
            "username": user,
            "password": password(user),
        }
        return KafkaSettings(**{**usual, **other})

    def environment(self, user: str, **other: str) -> dict[str, str]:
        given = self.settings(user).model_dump(
            include={"bootstrap", "security_protocol", "ssl_cafile", "username"}
        )
        named = {f"DAPO_KAFKA__{name.upper()}": str(value) for name, value in given.items()}
        return os.environ | named | {"DAPO_KAFKA__PASSWORD": password(user)} | other


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trust")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder / "authority")


@pytest.fixture(scope="module")
def stranger(folder: Path) -> Authority:
    return Authority(folder / "stranger")


@pytest.fixture(scope="module")
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


# --- The files of deploy/acl, read as kafka-acls reads them ----------------------------------------------------------

_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional_id": ResourceType.TRANSACTIONAL_ID,
}


def acls(role: str) -> list[ACL]:
    """What the file of a role grants."""
    told = subprocess.run(
        ["sh", str(ACLS / f"{role}.sh")],
        env=os.environ | {"ACLS": "echo"},
        capture_output=True,
        text=True,
        check=True,
    )
    parser = argparse.ArgumentParser(exit_on_error=True, allow_abbrev=False)
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--allow-principal", required=True)
    parser.add_argument("--operation", action="append", required=True)
    parser.add_argument("--resource-pattern-type", default="literal", choices=["literal", "prefixed"])
    for kind in _RESOURCES:
        parser.add_argument(f"--{kind.replace('_', '-')}", action="append", default=[])
    found = []
    for line in told.stdout.splitlines():
        given = parser.parse_args(line.split())
        pattern = ACLResourcePatternType[given.resource_pattern_type.upper()]
        found += [
            ACL(
                given.allow_principal,
                "*",
                ACLOperation[{"DescribeConfigs": "DESCRIBE_CONFIGS"}.get(operation, operation.upper())],
                ACLPermissionType.ALLOW,
                ResourcePattern(resource, name, pattern),
            )
            for kind, resource in _RESOURCES.items()
            for name in getattr(given, kind)
            for operation in given.operation
        ]
    return found


@pytest.mark.parametrize("role", ROLES)
def test_a_file_grants_its_own_role_and_nothing_to_everybody(role: str) -> None:
    granted = acls(role)
    assert granted
    for one in granted:
        assert one.principal == f"User:{role}"
        assert one.operation not in (ACLOperation.ALL, ACLOperation.ALTER, ACLOperation.DELETE)
        assert "*" not in one.resource_pattern.resource_name


# --- Kafka: who is it, and who am I ----------------------------------------------------------------------------------


def outlet(settings: KafkaSettings) -> None:
    one = KafkaOutlet(settings, "dapo-feed-probe", TOPICS.frames, threading.Event())
    try:
        one.position()
    finally:
        one.close()


CLIENTS: dict[str, Callable[[KafkaSettings], Any]] = {
    "log": lambda settings: KafkaLog(settings, TOPICS.frames, "probe", "a").close(),
    "outlet": outlet,
    "topics": lambda settings: TopicAdmin(settings).close(),
    "reader": lambda settings: TopicReader(settings).close(),
    "frames": lambda settings: FrameReader(settings, TOPICS.frames).read(0, 0),
    "beats": lambda settings: Beats(settings, TOPICS.status, "probe").close(),
}
WRONG: dict[str, tuple[type[Exception], str, Callable[[Plant], dict[str, Any]]]] = {
    "password": (LogRefused, "does not take user 'operator'", lambda plant: {"password": f"{SECRET}wrong"}),
    "user": (LogRefused, "does not take user 'ghost'", lambda plant: {"username": "ghost"}),
    "mechanism": (SettingsError, "sasl_mechanism", lambda plant: {"sasl_mechanism": "SCRAM-SHA-256"}),
    "authority": (SettingsError, "not trusted", lambda plant: {"ssl_cafile": plant.stranger.file}),
    "no authority": (SettingsError, "ssl_cafile.*not trusted", lambda plant: {"ssl_cafile": None}),
    "name": (
        SettingsError,
        "ostname mismatch",
        lambda plant: {"bootstrap": f"localhost:{plant.broker.ports['client']}"},
    ),
    "file": (SettingsError, "no PEM file", lambda plant: {"ssl_cafile": plant.broker.properties}),
    "key": (SettingsError, "ssl_certfile", lambda plant: {"ssl_keyfile": plant.authority.file}),
}


@pytest.mark.parametrize("client", sorted(CLIENTS.keys() - {"frames"}))  # which has nothing to read yet
def test_who_trusts_and_is_trusted_gets_in(plant: Plant, client: str) -> None:
    CLIENTS[client](plant.settings(OPERATOR))


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_wrong_is_said_at_once_and_without_the_password(
    plant: Plant, client: str, wrong: str
) -> None:
    kind, words, other = WRONG[wrong]
    before = time.monotonic()
    with pytest.raises(kind, match=words) as told:
        CLIENTS[client](plant.settings(OPERATOR, **other(plant)))
    assert time.monotonic() - before < 5
    assert SECRET not in str(told.value)


def test_a_broker_that_is_away_is_waited_for_and_not_blamed(plant: Plant) -> None:
    assert connection(plant.settings(OPERATOR, bootstrap="127.0.0.1:1"), "probe")
    some = f"127.0.0.1:1,{plant.broker.bootstrap}"
    assert connection(plant.settings(OPERATOR, bootstrap=some), "probe")  # one that takes us is enough
    with pytest.raises(LogRefused, match="does not take user"):
        connection(plant.settings(OPERATOR, bootstrap=some, password=f"{SECRET}wrong"), "probe")


# --- Kafka: what may I -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def inspected(plant: Plant, fed: int) -> int:
    """Rows that the worker wrote, under its own rights, with its beats."""
    settings, stop = plant.settings("worker"), threading.Event()
    log = KafkaLog(settings, TOPICS.frames, "inspect", "a")
    beats = Beats(settings, TOPICS.status, "inspect-a")
    stages = Inspection(
        Preparer(PACK, 64, FrameLimits()),
        Inspector(FakeInfer(PACK), PACK, batch=4),
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
    teller = Teller(TOPICS, Configuration.of(PACK, "small"))
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


def records(reader: TopicReader, topic: str) -> int:
    return sum(1 for _ in reader.read(reader.span(topic)))


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def test_feeder_and_worker_do_their_work_and_the_mes_reads_it(inspected: int, fed: int) -> None:
    assert inspected == fed


def test_the_worker_finds_all_topics_as_it_does_at_its_start(plant: Plant) -> None:
    admin = TopicAdmin(plant.settings("worker"))
    try:
        assert set(admin.find(TOPICS.all(PACK))) == set(TOPICS.all(PACK))
    finally:
        admin.close()


def test_the_archiver_reads_results_with_their_frames_and_keeps_its_place(
    plant: Plant, inspected: int
) -> None:
    settings = plant.settings("archiver")
    log, frames = KafkaLog(settings, TOPICS.results, "archive", "a"), FrameReader(settings, TOPICS.frames)
    try:
        found: list[Any] = []
        until(lambda: bool(found.extend(log.poll(0.2, 100)) or len(found) >= inspected))
        [row] = decode_results(found[0].value)
        assert frames.read(row.frames_partition, row.frames_offset).value  # type: ignore[union-attr]
        assert log.commit([], {(one.topic, one.partition): one.offset + 1 for one in found})
    finally:
        log.close()
        frames.close()


def test_parts_are_read_back_and_written(plant: Plant, inspected: int) -> None:
    settings = plant.settings("parts")
    log = WholeKafkaLog(settings, TOPICS.results, "parts", "whole")
    try:
        found: list[Any] = []
        until(lambda: bool(found.extend(log.poll(0.2, 100)) or found))
        at = {(found[0].topic, found[0].partition): found[0].offset + 1}
        assert log.commit([Message(TOPICS.parts, b"p", b"a part")], at)
    finally:
        log.close()
    with TopicReader(settings, "parts-read-back") as reader:
        assert records(reader, TOPICS.parts) == 1


def test_the_mes_keeps_its_place_in_a_group_of_its_own(plant: Plant, inspected: int) -> None:
    consumer = KafkaConsumer(
        **connection(plant.settings("mes"), "mes"),
        group_id="mes-line-1",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    try:
        # kafka-python may join before it knows the topic, and is then given nothing for minutes: so it looks first.
        assert TOPICS.results in consumer.topics()
        consumer.subscribe([TOPICS.results])
        found: list[Any] = []
        until(lambda: bool(found.extend(consumer.poll(200).values()) or found))
        consumer.commit()
        places = [TopicPartition(TOPICS.results, number) for number in (0, 1)]
        assert any(consumer.committed(at) for at in places)
    finally:
        consumer.close()


def test_labels_are_written_under_a_position(plant: Plant) -> None:
    one = KafkaOutlet(plant.settings("labels"), "dapo-label-1", TOPICS.labels, threading.Event())
    try:
        one.write([Message(TOPICS.labels, b"r", b"good")], 1)
        assert one.position() == 1
    finally:
        one.close()


# role: (transactional id, group, topic that it reads, topics that it may not write to)
WRITERS = {
    "worker": ("inspect-z", "inspect", TOPICS.frames, (TOPICS.labels, TOPICS.frames, TOPICS.parts)),
    "archiver": ("archive-z", "archive", TOPICS.results, (TOPICS.results, TOPICS.frames)),
    "feeder": ("dapo-feed-z", "dapo-feed-z", TOPICS.frames, (TOPICS.results, TOPICS.labels)),
    "parts": ("parts-z", "parts", TOPICS.results, (TOPICS.results, TOPICS.frames)),
    "labels": ("dapo-label-z", "dapo-label-z", TOPICS.labels, (TOPICS.results, TOPICS.frames)),
}


@pytest.mark.parametrize(("role", "topic"), [(role, topic) for role in WRITERS for topic in WRITERS[role][3]])
def test_nobody_writes_where_another_does(plant: Plant, role: str, topic: str) -> None:
    name, group, read, _ = WRITERS[role]
    writing = Transactions(plant.settings(role), name)
    try:
        writing.open()
        with pytest.raises(LogRefused, match="TopicAuthorizationFailed"):
            writing.commit([Message(topic, b"k", b"x")], {(read, 0): 0}, group)
    finally:
        writing.drop()


@pytest.mark.parametrize("role", ROLES)
def test_nobody_takes_the_transactional_id_of_another(plant: Plant, role: str) -> None:
    for other, (name, *_) in WRITERS.items():
        if other != role:
            with pytest.raises(LogRefused, match="TransactionalIdAuthorizationFailed"):
                Transactions(plant.settings(role), name).open()


def test_the_mes_writes_nowhere(plant: Plant) -> None:
    producer = KafkaProducer(**connection(plant.settings("mes"), "mes"), max_block_ms=5000)
    try:
        for topic in (TOPICS.results, TOPICS.parts):
            with pytest.raises(kafka_errors.KafkaError, match="AuthorizationFailed"):
                producer.send(topic, b"x").get(timeout=10)
    finally:
        producer.close(timeout=1)


@pytest.mark.parametrize(
    ("role", "topic"),
    [
        ("mes", TOPICS.frames),
        ("mes", TOPICS.labels),
        ("feeder", TOPICS.results),
        ("worker", TOPICS.results),
        ("archiver", TOPICS.labels),
        ("parts", TOPICS.frames),
        ("labels", TOPICS.results),
    ],
)
def test_nobody_reads_what_is_not_its_own(plant: Plant, fed: int, role: str, topic: str) -> None:
    with TopicReader(plant.settings(role)) as reader, pytest.raises(LogRefused, match="ACL"):
        list(reader.read(reader.span(topic)))


@pytest.mark.parametrize("role", [role for role in ROLES if role != "worker"])
def test_nobody_sees_the_place_of_the_workers(plant: Plant, role: str) -> None:
    with TopicReader(plant.settings(role)) as reader, pytest.raises(LogRefused, match="ACL"):
        reader.committed("inspect", TOPICS.frames)


# --- The object store over TLS ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(folder: Path, authority: Authority) -> Iterator[MinioServer]:
    own, certs = authority.issue("store", "IP:127.0.0.1"), folder / "certs"
    certs.mkdir()
    for source, name in ((own.file, "public.crt"), (own.key, "private.key"), (authority.file, "ca.crt")):
        (certs / name).write_bytes(source.read_bytes())
    with MinioServer(folder / "minio", secret_key=f"{SECRET}minio", certs=certs) as server:
        server.make_bucket("inspection")
        yield server


def store_settings(server: MinioServer, **other: Any) -> StoreSettings:
    usual = {
        "endpoint": server.endpoint,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
        "tls": True,
    }
    return StoreSettings(**{**usual, **other})


def test_the_store_is_spoken_to_over_tls(store: MinioServer, authority: Authority) -> None:
    opened = open_store(store_settings(store, ssl_cafile=authority.file))
    etag = opened.put_if_absent("a", b"1")  # by a presigned address, which is another path than that of `put`
    opened.put("b", b"2")
    assert (opened.get("a"), opened.get("b")) == (b"1", b"2")
    assert opened.replace("a", b"3", etag)
    opened.close()


STORES: dict[str, tuple[str, Callable[[MinioServer, Authority, Authority], dict[str, Any]]]] = {
    "authority": ("not trusted.*ssl_cafile", lambda server, own, stranger: {"ssl_cafile": stranger.file}),
    "no authority": ("not trusted.*ssl_cafile", lambda server, own, stranger: {}),
    "name": (
        "not trusted.*ostname mismatch",
        lambda server, own, stranger: {
            "ssl_cafile": own.file,
            "endpoint": f"localhost:{server.ports['s3']}",
        },
    ),
    "no tls": ("store.tls", lambda server, own, stranger: {"tls": False}),
    "secret": (
        "store.secret_key",
        lambda server, own, stranger: {"ssl_cafile": own.file, "secret_key": f"{SECRET}wrong"},
    ),
}


@pytest.mark.parametrize("wrong", STORES)
def test_a_store_that_is_not_trusted_or_does_not_trust_is_named(
    store: MinioServer, authority: Authority, stranger: Authority, wrong: str
) -> None:
    words, other = STORES[wrong]
    opened = open_store(store_settings(store, **other(store, authority, stranger)))
    for verb in (lambda: opened.put("x", b"1"), lambda: opened.put_if_absent("y", b"1")):
        # Without TLS the server says so, or just hangs up: whichever comes first.
        with pytest.raises((StoreError, StoreUnavailable), match=words) as told:
            verb()
        assert SECRET not in str(told.value)
    opened.close()


# --- Triton over TLS -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_server(folder: Path, authority: Authority) -> Iterator[TritonServer]:
    own = authority.issue("triton", "IP:127.0.0.1")
    arguments = ["--grpc-use-ssl=true", f"--grpc-server-cert={own.file}", f"--grpc-server-key={own.key}"]
    with TritonServer(folder / "triton", arguments=arguments) as server:
        yield server


def test_the_model_server_is_spoken_to_over_tls(model_server: TritonServer, authority: Authority) -> None:
    address = address_of(TritonSettings(url=model_server.url, tls=True, ssl_cafile=authority.file))
    with ModelServer(address) as server:
        assert server.client.is_server_ready(client_timeout=10)
        assert server.ensembles() == {}
    infer = TritonInfer(PACK, address)
    try:
        with pytest.raises(NotReady, match="serves no"):
            infer.check()
    finally:
        infer.close()


WORDS = {
    "authority": "CERTIFICATE_VERIFY_FAILED",
    "no authority": "CERTIFICATE_VERIFY_FAILED",
    "name": "Hostname Verification Check failed",
    "no tls": "Socket closed",
}


@pytest.mark.parametrize("wrong", WORDS)
def test_a_model_server_that_is_not_trusted_is_not_asked(
    model_server: TritonServer, authority: Authority, stranger: Authority, wrong: str
) -> None:
    settings = {
        "authority": TritonSettings(url=model_server.url, tls=True, ssl_cafile=stranger.file),
        "no authority": TritonSettings(url=model_server.url, tls=True),
        "name": TritonSettings(
            url=f"localhost:{model_server.ports['grpc']}", tls=True, ssl_cafile=authority.file
        ),
        "no tls": TritonSettings(url=model_server.url),
    }[wrong]
    infer = TritonInfer(PACK, address_of(settings))
    try:
        with pytest.raises(ServiceUnavailable, match=f"model server {settings.url}") as told:
            infer.check()
        assert WORDS[wrong] in str(told.value)
    finally:
        infer.close()


# --- Secrets ---------------------------------------------------------------------------------------------------------


def dapo(*arguments: str, environment: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with stdout and stderr together."""
    command = [DAPO, *arguments]
    return subprocess.run(
        command, env=environment, cwd=folder, text=True, timeout=60, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_the_command_line_works_with_credentials_and_shows_none(plant: Plant, tmp_path: Path) -> None:
    right = plant.environment(OPERATOR)
    made = dapo("topics", "create", "--single-broker", environment=right, folder=tmp_path)
    checked = dapo(
        "topics", "check", "--single-broker", environment=plant.environment("worker"), folder=tmp_path
    )
    assert "topics made" in made.stdout
    assert checked.returncode in (0, 1), checked.stdout  # 1: this test made some topics for itself, too small
    assert TOPICS.defects("scratch") in checked.stdout
    assert SECRET not in made.stdout + checked.stdout


def test_secrets_of_environment_and_file_are_masked(tmp_path: Path) -> None:
    file = tmp_path / "dapo.toml"
    file.write_text(f'[kafka]\npassword = "{SECRET}file"\n[store]\nsecret_key = "{SECRET}file"\n')
    given = os.environ | {"DAPO_STORE__ACCESS_KEY": f"{SECRET}environment"}
    told = dapo("config", environment=given, folder=tmp_path)
    assert told.returncode == 0, told.stdout
    assert told.stdout.count("********") == 3
    assert SECRET not in told.stdout


@pytest.mark.parametrize(
    "command",
    [["topics", "check"], ["worker"], ["archive"], ["parts"], ["feed", "picture.png"], ["ledger"]],
    ids=lambda command: command[0],
)
def test_a_wrong_password_ends_every_command_with_one_line(
    plant: Plant, store: MinioServer, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "picture.png").write_bytes(encoded(surface()))
    secrets = {"DAPO_KAFKA__PASSWORD": f"{SECRET}wrong", **store.client_environment()}
    told = dapo(*command, environment=plant.environment(OPERATOR, **secrets), folder=tmp_path)
    assert told.returncode == 2, told.stdout
    assert told.stdout.count("does not take user 'operator'") == 1
    assert SECRET not in told.stdout


def test_a_worker_says_what_it_waits_for_and_no_secret(
    plant: Plant, store: MinioServer, tmp_path: Path
) -> None:
    environment = plant.environment("worker", **store.client_environment())
    dapo("topics", "create", "--single-broker", environment=plant.environment(OPERATOR), folder=tmp_path)
    log = tmp_path / "worker.log"
    command = [DAPO, "worker", "--triton", "127.0.0.1:1"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=file, stderr=file)
    try:
        until(lambda: b"waiting: model server" in log.read_bytes() or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert SECRET not in log.read_text()


def test_no_server_has_logged_a_secret(
    plant: Plant, store: MinioServer, model_server: TritonServer, inspected: int
) -> None:
    for server in (plant.broker, store, model_server):
        assert server.log.stat().st_size
        assert SECRET not in server.log.read_text(encoding="utf-8", errors="replace")
        arguments = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert SECRET.encode() not in arguments
