"""The native servers, real ones: healthy, killed, back under their address with their data; and the commands."""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from minio import Minio

from deploy.native import KafkaServer, MinioServer, Server, TritonServer, VersityServer
from deploy.native.envfile import read_environment
from deploy.native.line import SERVERS, down, up
from deploy.native.process import wait_until
from deploy.native.progress import Silent

WAIT_S = 30.0
S3_SERVERS = (MinioServer, VersityServer)

# A model of the kind that the line has: DLPack in, DLPack out.
ECHO = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor.from_dlpack("OUT", pb_utils.get_input_tensor_by_name(request, "IN").to_dlpack())]
            )
            for request in requests
        ]
"""
ECHO_CONFIG = """
name: "echo"
backend: "python"
input [{ name: "IN", data_type: TYPE_FP32, dims: [4] }]
output [{ name: "OUT", data_type: TYPE_FP32, dims: [4] }]
"""


# As /proc/net/tcp and tcp6 write addresses: 127.0.0.1, the same mapped into IPv6 (Java listens so), and ::1.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
LISTENING = "0A"


def listeners(pid: int) -> set[str]:
    """Addresses that a process listens on, in the kernel's notation."""
    sockets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            sockets.add(str(link.readlink()))
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table]
    return {row[1].split(":")[0] for row in rows if row[3] == LISTENING and f"socket:[{row[9]}]" in sockets}


def test_shared_servers_answer_on_loopback_only(kafka, triton, minio, versitygw):
    for server in (kafka, triton, minio, versitygw):
        assert server.healthy()
        assert listeners(server.pid), server.NAME
        assert listeners(server.pid) <= LOOPBACK, server.NAME


def test_a_killed_broker_comes_back_with_its_records(tmp_path):
    with KafkaServer(tmp_path / "kafka", settings={"log.segment.bytes": 1_048_576}) as server:
        admin = KafkaAdminClient(bootstrap_servers=server.bootstrap)
        admin.create_topics([NewTopic(name="records", num_partitions=2, replication_factor=1)])
        admin.close()
        producer = KafkaProducer(bootstrap_servers=server.bootstrap, acks="all")
        sent = [b"%d" % number for number in range(200)]
        for number, value in enumerate(sent):
            producer.send("records", value, partition=number % 2)
        producer.flush()
        server.kill()
        assert not server.healthy()
        server.restart()
        producer.send("records", b"after", partition=0).get(WAIT_S)
        producer.close()
        consumer = KafkaConsumer(bootstrap_servers=server.bootstrap, auto_offset_reset="earliest")
        consumer.assign([TopicPartition("records", partition) for partition in (0, 1)])
        read: list[bytes] = []

        def all_read() -> bool:
            read.extend(record.value for batch in consumer.poll(500).values() for record in batch)
            return len(read) > len(sent)

        assert wait_until(all_read, WAIT_S)
        consumer.close()
        assert sorted(read) == sorted([*sent, b"after"])


def test_a_topic_is_not_made_by_naming_it(kafka):
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap)
    assert "never-created" not in consumer.topics()
    consumer.partitions_for_topic("never-created")
    assert "never-created" not in consumer.topics()
    consumer.close()


def test_a_killed_triton_comes_back_with_the_models_it_was_told_to_load(tmp_path):
    models = tmp_path / "models"
    (models / "echo" / "1").mkdir(parents=True)
    (models / "echo" / "1" / "model.py").write_text(ECHO)
    (models / "echo" / "config.pbtxt").write_text(ECHO_CONFIG)
    values = np.array([0.5, -1.0, 3e8, 1e-9], np.float32)
    with TritonServer(tmp_path / "triton", models, load_models=["echo"]) as server:
        assert echo(server, values).tolist() == values.tolist()
        url = server.url
        stubs = stub_pids(server)
        assert stubs
        server.kill()
        assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in stubs), WAIT_S)
        assert not list(Path("/dev/shm").glob(f"{server.region}*"))
        assert server.restart().url == url
        assert echo(server, values).tolist() == values.tolist()
        # Killed alone, as by a full memory: its Python processes are not left behind.
        stubs = stub_pids(server)
        os.kill(server.pid, signal.SIGKILL)
        server.restart()
        assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in stubs), WAIT_S)
        assert echo(server, values).tolist() == values.tolist()


def test_a_triton_loads_nothing_by_itself(triton):
    folder = triton.models / "unasked" / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(ECHO)
    (folder.parent / "config.pbtxt").write_text(ECHO_CONFIG.replace('"echo"', '"unasked"'))
    with grpcclient.InferenceServerClient(triton.url) as client:
        assert not client.is_model_ready("unasked")
        client.load_model("unasked")
        assert client.is_model_ready("unasked")
        client.unload_model("unasked")


@pytest.mark.parametrize("kind", S3_SERVERS)
def test_a_killed_object_store_comes_back_with_its_objects(tmp_path, kind):
    with kind(tmp_path / "store") as server:
        put(server.client())
        server.kill()
        assert not server.healthy()
        server.restart()
        assert get(server.client()) == (b"image", "b1946ac9")


@pytest.mark.parametrize("kind", S3_SERVERS)
def test_an_object_store_speaks_tls_and_knows_its_user(tmp_path, kind):
    certs = tmp_path / "certs"
    certificate(certs)
    with kind(tmp_path / "store", access_key="inspector", secret_key="not-in-any-log", certs=certs) as server:
        assert server.address.startswith("https://")
        assert server.client_environment()["DAPO_STORE__TLS"] == "true"
        put(server.client())
        assert get(server.client()) == (b"image", "b1946ac9")
        arguments = Path(f"/proc/{server.pid}/cmdline").read_text()
        assert "not-in-any-log" not in arguments + server.log.read_text()


def test_up_and_down(tmp_path):
    """The commands as one types them: servers outlive `up`, are found again, keep address and data, and go."""
    state = tmp_path / "state"
    first = dapo("up", "--state", state)
    environment = read_environment(state / "dapo.env")
    assert stat.S_IMODE((state / "dapo.env").stat().st_mode) == 0o600
    assert f"source {shlex.quote(str(state / 'dapo.env'))}" in first
    for name in ("kafka", "triton", "minio"):
        assert re.search(
            rf"^{name} +\S*127\.0\.0\.1:\d+ +{state}/{name}/{name}\.log$", first, re.MULTILINE
        ), name
    put(client(environment))
    pids = {server.NAME: server.pid for server in attached(state)}
    assert pids.keys() == {"kafka", "triton", "minio"}
    try:
        again = dapo("up", "--state", state)
        assert again.startswith("already up\n")
        assert {server.NAME: server.pid for server in attached(state)} == pids
        assert "ok       running              kafka, triton, minio" in dapo("doctor", "--state", state)

        # One was killed: only that one is started, under its address, with its data.
        next(server for server in attached(state) if server.NAME == "minio").kill()
        assert not dapo("up", "--state", state).startswith("already up")
        assert {server.NAME: server.pid for server in attached(state) if server.NAME != "minio"} == {
            name: pid for name, pid in pids.items() if name != "minio"
        }
        assert read_environment(state / "dapo.env") == environment
        assert get(client(environment)) == (b"image", "b1946ac9")
    finally:
        last = dapo("down", "--state", state)
    assert "stopped kafka, triton, minio" in last
    assert attached(state) == []
    assert dapo("down", "--state", state, "--delete").startswith("no server ran")
    assert not state.exists()
    for secret in (environment["DAPO_STORE__ACCESS_KEY"], environment["DAPO_STORE__SECRET_KEY"]):
        assert secret not in first + again + last


def test_up_is_all_or_nothing(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    (state / "models").write_text("a file where Triton's repository should be")
    failed = run("up", "--state", state, "--only", "versitygw,triton")
    assert failed.returncode == 2
    assert "models: can't be written" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert attached(state) == []
    assert not (state / "dapo.env").exists()


def test_a_store_whose_credentials_were_lost_gets_new_ones(tmp_path):
    state = tmp_path / "state"
    up(["versitygw"], state, Silent())
    try:
        before = read_environment(state / "dapo.env")
        (state / "dapo.env").unlink()
        (again,) = up(["versitygw"], state, Silent())
        assert again.fresh
        after = read_environment(state / "dapo.env")
        assert after["DAPO_STORE__ENDPOINT"] == before["DAPO_STORE__ENDPOINT"]
        assert after["DAPO_STORE__SECRET_KEY"] != before["DAPO_STORE__SECRET_KEY"]
        put(client(after))
    finally:
        assert down(state, Silent(), delete=True) == ["versitygw"]


def test_one_that_runs_and_does_not_answer_is_started_anew(tmp_path):
    state = tmp_path / "state"
    (first,) = up(["versitygw"], state, Silent())
    try:
        first.server.pause()
        (again,) = up(["versitygw"], state, Silent())
        assert again.fresh
        assert again.server.healthy()
        assert again.server.address == first.server.address
    finally:
        down(state, Silent(), delete=True)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("dapo"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def dapo(*arguments: object) -> str:
    """What a command that must do well printed, on both streams, stdout first."""
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def attached(state: Path) -> list[Server]:
    servers = [kind(state / name) for name, kind in SERVERS.items()]
    return [server for server in servers if server.attach()]


def client(environment: dict[str, str]) -> Minio:
    keys = {key: environment[f"DAPO_STORE__{key.upper()}"] for key in ("access_key", "secret_key")}
    return Minio(environment["DAPO_STORE__ENDPOINT"], secure=False, **keys)


def put(store: Minio) -> None:
    if not store.bucket_exists("inspection"):  # `dapo up` makes it, a server alone has none
        store.make_bucket("inspection")
    store.put_object(
        "inspection", "frames/line/1.jpg", io.BytesIO(b"image"), 5, metadata={"sha256": "b1946ac9"}
    )


def get(store: Minio) -> tuple[bytes, str | None]:
    answer = store.get_object("inspection", "frames/line/1.jpg")
    try:
        return answer.read(), answer.headers.get("x-amz-meta-sha256")
    finally:
        answer.close()
        answer.release_conn()


def echo(server: TritonServer, values: np.ndarray) -> np.ndarray:
    given = grpcclient.InferInput("IN", values.shape, "FP32")
    given.set_data_from_numpy(values)
    with grpcclient.InferenceServerClient(server.url) as triton_client:
        return triton_client.infer("echo", [given]).as_numpy("OUT")


def stub_pids(server: TritonServer) -> list[int]:
    """Python processes of its models."""
    children = Path(f"/proc/{server.pid}/task").glob("*/children")
    return [int(word) for path in children for word in path.read_text().split()]


def certificate(folder: Path) -> None:
    """A certificate for 127.0.0.1 that is its own authority, under the names that `S3Server` takes."""
    folder.mkdir()
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "private.key"), "-out", str(folder / "public.crt")]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    subprocess.run([*command, "-days", "1", *names, *files], capture_output=True, check=True)
    (folder / "ca.crt").write_bytes((folder / "public.crt").read_bytes())
