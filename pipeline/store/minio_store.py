"""Any S3 server behind the port `ObjectStore`, through minio-py.

Two things minio-py can't do are done beside it: a conditional PUT goes to a presigned URL, since the library drops
`If-Match` from what it is given and overwrites without a word; and an upload carries S3's SHA-256 checksum, which the
server computes again and repeats in its answer. A server that repeats none is asked for the object, which is compared.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.error import S3Error
from urllib3.response import BaseHTTPResponse

from dapo.errors import SettingsError
from pipeline.ports import Stored
from pipeline.store.errors import Conflict, NotFound, ObjectDamaged, StoreError, TooLarge, UploadDamaged
from pipeline.store.faults import explained, refused
from pipeline.store.names import SHA256, checked_key, checked_metadata, checked_prefix

OCTETS = "application/octet-stream"
MAX_BYTES = 512 * 2**20  # above it minio-py uploads in parts, whose checksum is not that of the whole
_CONNECT_S = (
    5.0  # a server on the plant's network answers in milliseconds; a longer wait only hides that it is gone
)
_CHECKSUM = "x-amz-checksum-sha256"
_METADATA = "x-amz-meta-"
_SIGNED_FOR = timedelta(seconds=60)  # one request, and clocks that differ a little
_MAYBE_THERE = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists", "AccessDenied")
_CONNECTIONS = 10  # kept alive; minio-py's own number


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an S3 server is and how to speak to it.

    Attributes:
        address: host:port.
        bucket: must exist.
        region: as the server names it; a wrong one is refused.
        tls: speak TLS.
        ca_file: PEM file of the authority that signed the server's certificate; None: the system's authorities.
        timeout_s: longest silence of the server within a request.
    """

    address: str
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"
    tls: bool = False
    ca_file: Path | None = None
    timeout_s: float = 10.0

    @property
    def url(self) -> str:
        """For messages."""
        return f"{'https' if self.tls else 'http'}://{self.address}/{self.bucket}"


class MinioStore:
    """See `pipeline.ports.ObjectStore`. Thread-safe.

    Nothing is retried here: a caller that can wait backs off longer than any client would, one that can't wants to know.

    Args:
        endpoint: where; nothing is sent before the first call.
        http: connections; for tests. None: bounded timeouts, verified certificates.

    Raises:
        SettingsError: the endpoint can't be one, or the file of authorities can't be read.
    """

    def __init__(self, endpoint: Endpoint, http: urllib3.PoolManager | None = None) -> None:
        self.bucket = endpoint.bucket
        self._url = endpoint.url
        self._http = http or _connections(endpoint)
        try:
            self._client = Minio(
                endpoint.address,
                endpoint.access_key,
                endpoint.secret_key,
                secure=endpoint.tls,
                region=endpoint.region,  # else each first request asks for it, which a narrow policy forbids
                http_client=self._http,
            )
            self._client.get_presigned_url(
                "GET", endpoint.bucket, "x"
            )  # checks the bucket's name; sends nothing
        except ValueError as error:
            raise SettingsError(
                f"store.endpoint '{endpoint.address}', store.bucket '{endpoint.bucket}': {error}. "
                "Expected host:port without scheme or path, and a bucket of 3 to 63 of a-z 0-9 -."
            ) from error

    def put(
        self, key: str, data: bytes, *, content_type: str = OCTETS, metadata: Mapping[str, str] | None = None
    ) -> str:
        """See the port."""
        checked_key(key)
        digest = hashlib.sha256(data)
        described = checked_metadata({**(metadata or {}), SHA256: digest.hexdigest()})
        checksum = base64.b64encode(digest.digest()).decode()
        self._check_size(key, data)
        with self._explained("put", key):
            result = self._client.put_object(
                self.bucket,
                key,
                io.BytesIO(data),
                len(data),
                content_type,
                metadata={**described, _CHECKSUM: checksum},
            )
        answered = result.http_headers.get(_CHECKSUM)
        if answered is None:
            self._compare(key, digest.hexdigest())
        elif not hmac.compare_digest(answered, checksum):
            raise UploadDamaged(
                f"{self._url}: put {key}: sent SHA-256 {checksum}, the server stored {answered}."
            )
        return cast(str, result.etag)

    def put_if_absent(self, key: str, data: bytes, *, content_type: str = OCTETS) -> str:
        """See the port."""
        return self._conditional_put(key, data, content_type, {"If-None-Match": "*"})

    def replace(self, key: str, data: bytes, etag: str, *, content_type: str = OCTETS) -> str:
        """See the port."""
        try:
            return self._conditional_put(key, data, content_type, {"If-Match": f'"{etag}"'})
        except NotFound as error:
            raise Conflict(str(error)) from error

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """See the port."""
        checked_key(key)
        with self._explained("get", key):
            response = self._client.get_object(self.bucket, key)
            try:
                size = int(response.headers.get("content-length", 0))
                if max_bytes is not None and size > max_bytes:
                    raise TooLarge(
                        f"{self._url}: get {key}: {size:,} bytes, more than the limit of {max_bytes:,}."
                    )
                data: bytes = response.read()
                expected = response.headers.get(_METADATA + SHA256)
            finally:
                response.close()
                response.release_conn()
        if expected is not None and hashlib.sha256(data).hexdigest() != expected:
            raise ObjectDamaged(
                f"{self._url}: get {key}: the bytes do not have SHA-256 {expected}, as they had when stored."
            )
        return data

    def stat(self, key: str) -> Stored:
        """See the port."""
        checked_key(key)
        with self._explained("stat", key):
            found = self._client.stat_object(self.bucket, key)
        headers = {name.lower(): value for name, value in (found.metadata or {}).items()}
        return Stored(
            key=key,
            size=found.size or 0,
            etag=found.etag or "",
            modified=found.last_modified or datetime.fromtimestamp(0, UTC),
            content_type=found.content_type or "",
            metadata={n.removeprefix(_METADATA): v for n, v in headers.items() if n.startswith(_METADATA)},
        )

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """See the port."""
        return self._listed(checked_prefix(prefix))

    def _listed(self, prefix: str) -> Iterator[Stored]:
        with self._explained("list", prefix):
            for found in self._client.list_objects(self.bucket, prefix=prefix, recursive=True):
                if not found.is_dir:
                    yield Stored(
                        key=cast(str, found.object_name),
                        size=found.size or 0,
                        etag=(found.etag or "").strip('"'),
                        modified=found.last_modified or datetime.fromtimestamp(0, UTC),
                    )

    def delete(self, key: str) -> None:
        """See the port."""
        checked_key(key)
        try:
            with self._explained("delete", key):
                self._client.remove_object(self.bucket, key)
        except NotFound:
            return  # some servers say so; S3 does not

    def make_bucket(self) -> bool:
        """Make the bucket; False where it is there already and this user may list it.

        Raises:
            StoreUnavailable: the server is away.
            StoreError: it refuses.
        """
        try:
            with explained(f"{self._url}: make the bucket"):
                self._client.make_bucket(self.bucket)
        except StoreError as error:
            # Asking first is not enough: versitygw says no to a bucket that it then refuses to make. Nor is the answer: a
            # user with narrow rights may make none, and a name that exists may be somebody else's.
            cause = error.__cause__
            if not isinstance(cause, S3Error) or cause.code not in _MAYBE_THERE:
                raise
            try:
                next(self.list(), None)
            except StoreError:
                raise error from None
            return False
        return True

    def close(self) -> None:
        """Close idle connections."""
        self._http.clear()

    def _conditional_put(self, key: str, data: bytes, content_type: str, condition: dict[str, str]) -> str:
        checked_key(key)
        self._check_size(key, data)
        # Not S3's checksum header: servers want every x-amz header signed, and a presigned URL of minio-py signs none.
        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        headers = {"Content-Type": content_type, "Content-MD5": md5, **condition}
        with self._explained("put", key):
            url = self._client.get_presigned_url("PUT", self.bucket, key, expires=_SIGNED_FOR)
            response = self._http.request("PUT", url, body=data, headers=headers)
        if response.status != 200:
            raise refused(f"{self._url}: put {key}", response.status, *_code(response))
        return response.headers.get("etag", "").strip('"')

    def _compare(self, key: str, sha256: str) -> None:
        """Read an upload back, from a server that does not say what it stored."""
        try:
            self.get(key)
        except ObjectDamaged as error:
            raise UploadDamaged(
                f"{self._url}: put {key}: read back, it does not have SHA-256 {sha256}."
            ) from error

    def _check_size(self, key: str, data: bytes) -> None:
        if len(data) > MAX_BYTES:
            raise TooLarge(f"{self._url}: put {key}: {len(data):,} bytes, more than {MAX_BYTES:,}.")

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        with explained(f"{self._url}: {verb} {key}"):
            yield


def _connections(endpoint: Endpoint) -> urllib3.PoolManager:
    timeout = urllib3.Timeout(connect=min(_CONNECT_S, endpoint.timeout_s), read=endpoint.timeout_s)
    if not endpoint.tls:
        return urllib3.PoolManager(timeout=timeout, retries=False, maxsize=_CONNECTIONS)
    try:
        context = ssl.create_default_context(cafile=endpoint.ca_file)
    except OSError as error:
        raise SettingsError(
            f"store.ssl_cafile: {endpoint.ca_file}: no PEM file of certificates: {error}."
        ) from error
    return urllib3.PoolManager(timeout=timeout, retries=False, maxsize=_CONNECTIONS, ssl_context=context)


def _code(response: BaseHTTPResponse) -> tuple[str, str]:
    """S3's code and message of an answer, empty where it has none."""
    try:
        error = S3Error.fromxml(response)
    except (ParseError, UnicodeDecodeError, ValueError):
        return "", ""
    return error.code or "", error.message or ""
