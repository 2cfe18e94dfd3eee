"""The S3 adapter against servers that lie, break off, refuse and keep silent."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dapo.errors import DapoError, ServiceUnavailable, SettingsError
from pipeline.store.errors import (
    Conflict,
    NotFound,
    ObjectDamaged,
    StoreError,
    StoreUnavailable,
    UploadDamaged,
)
from pipeline.store.minio_store import MAX_BYTES, Endpoint, MinioStore
from tests.unit.pipeline.store.bad_server import Answer, Asked, BadServer

SECRET = "do-not-print-me-0123456789"
DATA = b"\x89PNG picture"


def checksum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def fault(status: int, code: str = "") -> Answer:
    if not code:
        return Answer(status)
    body = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
    return Answer(status, {"Content-Type": "application/xml"}, body)


@pytest.fixture
def store(bad_server: BadServer) -> Iterator[MinioStore]:
    made = MinioStore(Endpoint(bad_server.address, "bucket", "access", SECRET, timeout_s=5))
    yield made
    made.close()


def test_an_upload_carries_its_checksum_twice(bad_server: BadServer, store: MinioStore) -> None:
    bad_server.answer = lambda asked: Answer(
        headers={"x-amz-checksum-sha256": checksum(asked.body), "ETag": '"e"'}
    )
    assert store.put("a.png", DATA, content_type="image/png") == "e"
    (asked,) = bad_server.asked
    assert asked.headers["x-amz-checksum-sha256"] == checksum(DATA)
    assert asked.headers["x-amz-meta-sha256"] == hashlib.sha256(DATA).hexdigest()
    assert asked.headers["content-type"] == "image/png"


def test_a_server_that_stored_other_bytes_is_noticed(bad_server: BadServer, store: MinioStore) -> None:
    bad_server.answer = lambda asked: Answer(headers={"x-amz-checksum-sha256": checksum(asked.body[:-1])})
    with pytest.raises(UploadDamaged, match=r"put a\.png"):
        store.put("a.png", DATA)


@pytest.mark.parametrize(("kept", "noticed"), [(DATA, False), (DATA[:-1], True), (DATA[::-1], True)])
def test_a_server_that_says_no_checksum_is_read_back(
    bad_server: BadServer, store: MinioStore, kept: bytes, noticed: bool
) -> None:
    def reply(asked: Asked) -> Answer:
        if asked.method == "PUT":
            return Answer(headers={"ETag": '"e"'})
        return Answer(headers={"x-amz-meta-sha256": hashlib.sha256(DATA).hexdigest()}, body=kept)

    bad_server.answer = reply
    if noticed:
        with pytest.raises(UploadDamaged, match="read back"):
            store.put("a.png", DATA)
    else:
        assert store.put("a.png", DATA) == "e"
    assert [asked.method for asked in bad_server.asked] == ["PUT", "GET"]


@pytest.mark.parametrize(
    "code", ["BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody"]
)
def test_a_server_that_got_other_bytes_says_so(bad_server: BadServer, store: MinioStore, code: str) -> None:
    bad_server.answer = lambda _: fault(400, code)
    for write in (
        lambda: store.put("a", DATA),
        lambda: store.put_if_absent("a", DATA),
        lambda: store.replace("a", DATA, "e"),
    ):
        with pytest.raises(UploadDamaged):
            write()


def test_bytes_that_changed_in_the_store_are_not_given(bad_server: BadServer, store: MinioStore) -> None:
    bad_server.answer = lambda _: Answer(
        headers={"x-amz-meta-sha256": hashlib.sha256(DATA).hexdigest()}, body=DATA[:-1]
    )
    with pytest.raises(ObjectDamaged, match="get a"):
        store.get("a")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, "InternalError", StoreUnavailable),
        (503, "SlowDown", StoreUnavailable),
        (503, "XMinioServerNotInitialized", StoreUnavailable),
        (507, "XMinioStorageFull", StoreUnavailable),
        (507, "", StoreUnavailable),
        (502, "", StoreUnavailable),
        (429, "", StoreUnavailable),
        (400, "RequestTimeout", StoreUnavailable),
        (400, "XMinioAdminBucketQuotaExceeded", StoreUnavailable),
        (409, "OperationAborted", StoreUnavailable),
        (404, "NoSuchKey", NotFound),
        (404, "NoSuchBucket", StoreError),
        (403, "AccessDenied", StoreError),
        (403, "SignatureDoesNotMatch", StoreError),
        (403, "RequestTimeTooSkewed", StoreError),
        (400, "InvalidArgument", StoreError),
        (400, "", StoreError),
    ],
)
def test_every_refusal_is_of_one_of_two_kinds(
    bad_server: BadServer,
    store: MinioStore,
    status: int,
    code: str,
    kind: type[DapoError],
) -> None:
    bad_server.answer = lambda _: fault(status, code)
    verbs = (
        lambda: store.put("a", DATA),
        lambda: store.put_if_absent("a", DATA),
        lambda: store.get("a"),
        lambda: list(store.list()),
    )
    for verb in verbs:
        with pytest.raises(kind) as caught:
            verb()
        assert isinstance(caught.value, ServiceUnavailable) == (kind is StoreUnavailable)
        assert isinstance(caught.value, NotFound) == (kind is NotFound)
        assert str(status) in str(caught.value)
        assert SECRET not in str(caught.value)
    assert len(bad_server.asked) == len(verbs)  # nothing was retried


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("NoSuchBucket", "store.bucket"),
        ("SignatureDoesNotMatch", "store.secret_key"),
        ("AccessDenied", "deploy/policies"),
        ("RequestTimeTooSkewed", "clocks"),
        ("XMinioStorageFull", "prune"),
    ],
)
def test_a_refusal_says_what_to_do(bad_server: BadServer, store: MinioStore, code: str, advice: str) -> None:
    status = {"NoSuchBucket": 404, "XMinioStorageFull": 507}.get(code, 403)
    bad_server.answer = lambda _: fault(status, code)
    with pytest.raises(DapoError, match=advice):
        store.put("a", DATA)


@pytest.mark.parametrize(
    ("status", "code"), [(412, "PreconditionFailed"), (412, ""), (409, "ConditionalRequestConflict")]
)
def test_a_second_writer_is_told_so(bad_server: BadServer, store: MinioStore, status: int, code: str) -> None:
    bad_server.answer = lambda _: fault(status, code)
    with pytest.raises(Conflict):
        store.put_if_absent("a", DATA)
    with pytest.raises(Conflict):
        store.replace("a", DATA, "e")
    first, second = bad_server.asked
    assert first.headers["if-none-match"] == "*"
    assert second.headers["if-match"] == '"e"'
    assert first.headers["content-md5"] == base64.b64encode(hashlib.md5(DATA).digest()).decode()
    assert first.body == second.body == DATA


def test_a_replace_without_its_bucket_is_no_conflict(bad_server: BadServer, store: MinioStore) -> None:
    bad_server.answer = lambda _: fault(404, "NoSuchBucket")
    with pytest.raises(StoreError, match=r"store\.bucket") as caught:
        store.replace("a", DATA, "e")
    assert not isinstance(caught.value, Conflict)


def test_an_answer_of_something_else_is_no_s3(bad_server: BadServer, store: MinioStore) -> None:
    bad_server.answer = lambda _: Answer(404, {"Content-Type": "text/html"}, b"<html>a web server</html>")
    with pytest.raises(StoreError, match=r"not an S3 server's answer.*store\.endpoint") as caught:
        store.get("a")
    assert not isinstance(caught.value, NotFound)  # else each frame in turn would be told as gone
    bad_server.answer = lambda _: Answer(400, {"Content-Type": "text/html"}, b"<html>")
    with pytest.raises(StoreError, match=r"store\.endpoint"):
        store.put("a", DATA)


@pytest.mark.parametrize("body", [b"<Error><Co", b"\xff\xfe\x00garbage"])
def test_a_garbled_answer_is_transient(bad_server: BadServer, store: MinioStore, body: bytes) -> None:
    bad_server.answer = lambda _: Answer(200, {"Content-Type": "application/xml"}, body)
    with pytest.raises(StoreUnavailable, match="list"):
        list(store.list())
    bad_server.answer = lambda _: Answer(403, {"Content-Type": "application/xml"}, body)
    with pytest.raises(StoreUnavailable, match="get"):
        store.get("a")
    with pytest.raises(StoreError, match="403"):
        store.put_if_absent("a", DATA)


def test_an_answer_without_a_body_is_told_by_its_status(bad_server: BadServer, store: MinioStore) -> None:
    bad_server.answer = lambda _: Answer(503)
    with pytest.raises(StoreUnavailable, match="503"):
        store.stat("a")
    bad_server.answer = lambda _: Answer(403)
    with pytest.raises(StoreError, match="deploy/policies"):
        store.stat("a")


def test_deleting_what_a_server_does_not_know_is_no_error(bad_server: BadServer, store: MinioStore) -> None:
    bad_server.answer = lambda _: fault(404, "NoSuchKey")
    store.delete("a")
    bad_server.answer = lambda _: fault(404, "NoSuchBucket")
    with pytest.raises(StoreError, match=r"store\.bucket"):
        store.delete("a")


def test_an_object_that_breaks_off_is_transient(bad_server: BadServer, store: MinioStore) -> None:
    bad_server.answer = lambda _: Answer(body=DATA, length=len(DATA) + 10)
    with pytest.raises(StoreUnavailable):
        store.get("a")


def test_a_silent_server_costs_a_bounded_time(bad_server: BadServer) -> None:
    bad_server.answer = lambda _: Answer(hang=True)
    store = MinioStore(Endpoint(bad_server.address, "bucket", "access", SECRET, timeout_s=0.2))
    for verb in (lambda: store.put("a", DATA), lambda: store.replace("a", DATA, "e"), lambda: store.get("a")):
        before = time.monotonic()
        with pytest.raises(StoreUnavailable, match="timed out"):
            verb()
        assert time.monotonic() - before < 3
    store.close()


def test_an_object_that_minio_py_would_cut_into_parts_is_refused(store: MinioStore) -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return MAX_BYTES + 1

    for write in (lambda: store.put("a", Huge()), lambda: store.put_if_absent("a", Huge())):
        with pytest.raises(StoreError, match="more than"):
            write()


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint("http://host:9000", "bucket", "a", "b"),
        Endpoint("host:9000/path", "bucket", "a", "b"),
        Endpoint("host:9000", "B", "a", "b"),
    ],
)
def test_an_endpoint_that_can_t_be_one_is_told_at_once(endpoint: Endpoint) -> None:
    with pytest.raises(SettingsError, match=r"store\.endpoint"):
        MinioStore(endpoint)


def test_a_file_of_authorities_is_read_at_once(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for path in (tmp_path / "ca.pem", tmp_path / "none.pem"):
        with pytest.raises(SettingsError, match=r"store\.ssl_cafile"):
            MinioStore(Endpoint("host:9000", "bucket", "a", "b", tls=True, ca_file=path))


def test_no_secret_is_shown() -> None:
    endpoint = Endpoint("host:9000", "bucket", "access", SECRET)
    assert SECRET not in repr(endpoint)
    assert SECRET not in repr(MinioStore(endpoint))
