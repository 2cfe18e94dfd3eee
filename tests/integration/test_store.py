"""The ObjectStore port on real servers: its conformance suite, and what only a real one can do to us."""

from __future__ import annotations

import io
import json
import socket
import socketserver
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from minio import Minio, MinioAdmin
from minio.credentials import StaticProvider

from dapo.errors import DapoError
from deploy.native import MinioServer, VersityServer
from deploy.native.ports import free_ports
from deploy.native.s3 import S3Server
from pipeline.ports import Stored
from pipeline.store.errors import NotFound, StoreError, StoreUnavailable, UploadDamaged
from pipeline.store.minio_store import Endpoint, MinioStore
from tests.contract.store_suite import AtomicReplaceSuite, StoreSuite

POLICIES = Path(__file__).parents[2] / "deploy" / "policies"


def open_bucket(server: S3Server, bucket: str | None = None, **fields: object) -> MinioStore:
    """A store on `server`; without a name, in a new bucket."""
    if bucket is None:
        bucket = f"store-{uuid.uuid4().hex[:12]}"
        server.client().make_bucket(bucket)
    usual = {"timeout_s": 30.0, "tls": server.certs is not None}
    return MinioStore(
        Endpoint(server.endpoint, bucket, server.access_key, server.secret_key, **(usual | fields))
    )  # type: ignore[arg-type]


class OnServer(StoreSuite):
    server: S3Server

    def empty(self) -> MinioStore:
        return open_bucket(self.server)

    def away(self) -> MinioStore:
        return MinioStore(Endpoint(f"127.0.0.1:{free_ports(1)[0]}", "bucket", "access", "secret"))


class TestMinio(OnServer, AtomicReplaceSuite):
    @pytest.fixture(autouse=True)
    def _server(self, minio: MinioServer) -> None:
        self.server = minio


class TestVersitygw(OnServer):
    @pytest.fixture(autouse=True)
    def _server(self, versitygw: VersityServer) -> None:
        self.server = versitygw


@pytest.mark.parametrize("kind", ["minio", "versitygw"])
def test_a_bucket_is_made_where_it_is_missing_and_left_alone_where_it_is_there(kind, request):
    server = request.getfixturevalue(kind)
    store = open_bucket(server, f"made-{uuid.uuid4().hex[:12]}")
    assert store.make_bucket()
    store.put("a", b"1")
    assert not store.make_bucket()
    assert store.get("a") == b"1"
    refused = MinioStore(Endpoint(server.endpoint, store.bucket, server.access_key, "wrong"))
    with pytest.raises(StoreError, match=r"store\.secret_key"):
        refused.make_bucket()


# --- A server that comes and goes ------------------------------------------------------------------------------------


@pytest.fixture
def own_minio(tmp_path: Path) -> Iterator[MinioServer]:
    """One that a test may kill."""
    with MinioServer(tmp_path / "own") as server:
        yield server


def test_what_was_stored_is_there_after_a_kill(own_minio: MinioServer) -> None:
    store = open_bucket(own_minio)
    store.put("a", b"1")
    own_minio.kill()
    with pytest.raises(StoreUnavailable):
        store.get("a")
    with pytest.raises(StoreUnavailable):
        store.put("b", b"1")
    own_minio.restart()
    assert store.get("a") == b"1"
    store.put("b", b"1")
    assert [one.key for one in store.list()] == ["a", "b"]


def test_a_server_that_hangs_costs_a_bounded_time(own_minio: MinioServer) -> None:
    store = open_bucket(own_minio, timeout_s=1.0)
    store.put("a", b"1")
    own_minio.pause()
    try:
        before = time.monotonic()
        for verb in (lambda: store.get("a"), lambda: store.put("b", b"1"), lambda: list(store.list())):
            with pytest.raises(StoreUnavailable, match="timed out"):
                verb()
        assert time.monotonic() - before < 10
    finally:
        own_minio.resume()
    assert store.get("a") == b"1"


# --- A line that flips a bit -----------------------------------------------------------------------------------------


class FlippingProxy:
    """Between client and server: changes one byte of every body that holds `marker`, as a bad switch would."""

    def __init__(self, address: str, marker: bytes) -> None:
        self.flipping = True
        outer = self
        host, port = address.split(":")

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection((host, int(port))) as server:
                    back = threading.Thread(target=self.pump, args=(server, self.request, False))
                    back.start()
                    self.pump(self.request, server, True)
                    back.join()

            def pump(self, source: socket.socket, sink: socket.socket, forth: bool) -> None:
                try:
                    while data := source.recv(65536):
                        if forth and outer.flipping:
                            data = data.replace(marker, marker[:-1] + bytes([marker[-1] ^ 1]))
                        sink.sendall(data)
                    sink.shutdown(socket.SHUT_WR)
                except OSError:
                    return  # one side has gone, as at the end of every test

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.mark.parametrize("name", ["minio", "versitygw"])
def test_a_damaged_upload_is_noticed_and_leaves_nothing(name: str, request: pytest.FixtureRequest) -> None:
    server: S3Server = request.getfixturevalue(name)
    direct = open_bucket(server)
    picture = b"\x89PNG " + b"pixels" * 1000 + b"THE-END"
    proxy = FlippingProxy(server.endpoint, b"THE-END")
    try:
        store = MinioStore(Endpoint(proxy.address, direct.bucket, server.access_key, server.secret_key))
        writes: dict[str, Callable[[], str]] = {
            "put": lambda: store.put("put", picture),
            "absent": lambda: store.put_if_absent("absent", picture),
        }
        for key, write in writes.items():
            with pytest.raises(UploadDamaged):
                write()
            with pytest.raises(NotFound):
                direct.stat(key)
        proxy.flipping = False
        for key, write in writes.items():
            write()
            assert direct.get(key) == picture
        store.close()
    finally:
        proxy.close()


# --- Trust -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority and a certificate of 127.0.0.1 that it signed, as servers want them."""
    folder = tmp_path_factory.mktemp("certs")
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=plant",
         "-addext", "keyUsage=critical,keyCertSign"],
        ["req", *key, "-keyout", "private.key", "-out", "request", "-subj", "/CN=store"],
        ["x509", "-req", "-in", "request", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
         "-extfile", "extensions", "-out", "public.crt"],
    ):  # fmt: skip
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module", params=[MinioServer, VersityServer], ids=["minio", "versitygw"])
def tls_server(
    request: pytest.FixtureRequest, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    with request.param(tmp_path_factory.mktemp("tls"), certs=certificates) as server:
        yield server


def test_a_server_is_trusted_by_its_authority(tls_server: S3Server, certificates: Path) -> None:
    store = open_bucket(tls_server, ca_file=certificates / "ca.crt")
    etag = store.put_if_absent("a", b"1")
    store.replace("a", b"2", etag)
    store.put("b", b"3")
    assert [store.get(one.key) for one in store.list()] == [b"2", b"3"]
    store.close()


def test_a_server_of_another_authority_is_not_trusted(tls_server: S3Server) -> None:
    store = open_bucket(tls_server, "bucket")
    with pytest.raises(StoreError, match=r"not trusted.*store\.ssl_cafile"):
        store.get("a")
    store.close()


def test_tls_on_one_side_only_is_a_mistake_in_the_settings(
    tls_server: S3Server, minio: MinioServer, certificates: Path
) -> None:
    store = open_bucket(minio, "bucket", tls=True, ca_file=certificates / "ca.crt")
    with pytest.raises(StoreError, match=r"store\.tls"):
        store.get("a")
    store.close()
    store = open_bucket(tls_server, "bucket", tls=False)
    with pytest.raises(DapoError, match=r"store\.tls"):
        store.get("a")
    store.close()


@pytest.mark.parametrize("name", ["minio", "versitygw"])
def test_wrong_credentials_and_buckets_are_mistakes_in_the_settings(
    name: str, request: pytest.FixtureRequest
) -> None:
    server: S3Server = request.getfixturevalue(name)
    secret = "wrong-secret-do-not-print"
    wrong = MinioStore(Endpoint(server.endpoint, "bucket", server.access_key, secret))
    verbs: tuple[Callable[[MinioStore], object], ...] = (
        lambda store: store.put("a", b"1"),
        lambda store: store.put_if_absent("a", b"1"),
        lambda store: list(store.list()),
    )
    for verb in verbs:
        with pytest.raises(StoreError, match=r"store\.secret_key|deploy/policies") as caught:
            verb(wrong)
        assert secret not in str(caught.value)
        with pytest.raises(StoreError, match=r"store\.bucket"):
            verb(open_bucket(server, "no-such-bucket"))


# --- Least privilege -------------------------------------------------------------------------------------------------


class Roles:
    """A MinIO with the buckets and policies of a plant, and one user per role."""

    def __init__(self, server: MinioServer) -> None:
        self._server = server
        self.root: dict[str, MinioStore] = {}
        for bucket in ("inspection", "models"):
            server.client().make_bucket(bucket)
            self.root[bucket] = open_bucket(server, bucket)
        admin = MinioAdmin(
            endpoint=server.endpoint,
            credentials=StaticProvider(server.access_key, server.secret_key),
            secure=False,
        )
        for path in sorted(POLICIES.glob("*.json")):
            admin.user_add(path.stem, "secret-of-" + path.stem)
            admin.policy_add(path.stem, policy_file=str(path))
            admin.policy_set(path.stem, user=path.stem)

    def store(self, role: str, bucket: str = "inspection") -> MinioStore:
        return MinioStore(Endpoint(self._server.endpoint, bucket, role, "secret-of-" + role, timeout_s=30))


MAY: dict[str, set[str]] = {
    "feeder": {"put claims"},
    "worker": {"get claims", "get prompts", "list inspection", "list models"},
    "promoter": {"get claims", "get prompts", "put prompts", "list inspection", "list models"},
    "archiver": {"get claims", "get frames", "put frames", "get manifest", "put manifest", "list inspection"},
    "labels": {"get labels", "put labels", "list inspection"},
    "pruner": {
        "delete claims",
        "delete frames",
        "get labels",
        "get manifest",
        "put manifest",
        "delete manifest",
        "list inspection",
    },
    "trainer": {
        "get frames",
        "get labels",
        "get manifest",
        "list inspection",
        "get prompts",
        "put prompts",
        "list models",
    },
}
BUCKETS = {
    "claims": "inspection",
    "frames": "inspection",
    "labels": "inspection",
    "manifest": "inspection",
    "prompts": "models",
}


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roles]:
    with MinioServer(tmp_path_factory.mktemp("roles")) as server:
        yield Roles(server)


def test_every_policy_is_tested_and_none_allows_everything() -> None:
    assert set(MAY) == {path.stem for path in POLICIES.glob("*.json")}
    for path in POLICIES.glob("*.json"):
        for statement in json.loads(path.read_text())["Statement"]:
            assert not any("*" in action for action in statement["Action"])


@pytest.mark.parametrize("role", MAY)
def test_a_role_may_do_what_it_must_and_no_more(role: str, roles: Roles) -> None:
    may = set()
    for prefix, bucket in BUCKETS.items():
        store, key = roles.store(role, bucket), f"{prefix}/{role}"
        roles.root[bucket].put(key, b"1")
        calls: dict[str, tuple[Callable[[], object], ...]] = {
            "get": (partial(store.get, key), partial(store.stat, key)),
            "put": (
                partial(store.put, f"{key}-new", b"2"),
                partial(store.put_if_absent, f"{key}-absent", b"2"),
            ),
            "delete": (partial(store.delete, key),),
        }
        for verb, those in calls.items():
            allowed = {is_allowed(call) for call in those}
            assert len(allowed) == 1, f"{verb} {prefix}: one way is allowed, another is not"
            may |= {f"{verb} {prefix}"} if True in allowed else set()
    may |= {
        f"list {bucket}" for bucket in roles.root if is_allowed(partial(listed, roles.store(role, bucket)))
    }
    assert may == MAY[role]


def test_a_narrow_user_still_learns_that_something_is_not_there(roles: Roles) -> None:
    """Without the right to list, S3 says 403 of what does not exist; a merge into a new file needs the 404."""
    with pytest.raises(NotFound):
        roles.store("archiver").stat("manifest/day=2026-01-31/line=l1/none.parquet")


def listed(store: MinioStore) -> list[Stored]:
    return list(store.list())


def is_allowed(call: Callable[[], object]) -> bool:
    try:
        call()
    except StoreError as error:
        if "deploy/policies" not in str(error):
            raise
        return False
    return True


def test_minio_py_still_drops_conditions(minio: MinioServer) -> None:
    """Why conditional puts go beside the library. Should this fail one day, they can go through it."""
    store = open_bucket(minio)
    store.put_if_absent("a", b"1")
    client: Minio = minio.client()
    client.put_object(store.bucket, "a", io.BytesIO(b"2"), 1, metadata={"If-None-Match": "*"})
    assert store.get("a") == b"2"


@pytest.mark.parametrize("role", ["archiver", "worker"])
def test_a_bucket_that_is_there_will_do_for_a_user_who_may_make_none(role: str, roles: Roles) -> None:
    assert not roles.store(role).make_bucket()
    with pytest.raises(StoreError, match="deploy/policies"):
        roles.store(role, "no-such-bucket").make_bucket()
