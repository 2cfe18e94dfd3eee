"""The fake of the port `ObjectStore`: a bucket in memory that can go away, fill up and damage what it gets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from threading import RLock

from pipeline.ports import Stored
from pipeline.store.errors import (
    Conflict,
    NotFound,
    ObjectDamaged,
    StoreUnavailable,
    TooLarge,
    UploadDamaged,
)
from pipeline.store.names import SHA256, checked_key, checked_metadata, checked_prefix


class MemoryStore:
    """A bucket in memory.

    Args:
        bucket: its name.
        clock: what `modified` of the next object is.

    Attributes:
        away: the store does not answer.
        full: it takes nothing more; reading and deleting go on.
        calls_left: answers so many more calls, then it is away; None: no such limit.
        damaged_uploads: of the next so many `put`s other bytes arrive.
        calls: (verb, key) of every call that was answered.
    """

    def __init__(
        self, bucket: str = "memory", clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.bucket = bucket
        self.away = False
        self.full = False
        self.calls_left: int | None = None
        self.damaged_uploads = 0
        self.calls: list[tuple[str, str]] = []
        self._clock = clock
        self._objects: dict[str, tuple[Stored, bytes]] = {}
        self._lock = RLock()

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """See `pipeline.ports.ObjectStore`."""
        described = checked_metadata({**(metadata or {}), SHA256: hashlib.sha256(data).hexdigest()})
        with self._answered("put", checked_key(key)):
            if self.damaged_uploads:
                self.damaged_uploads -= 1
                self._keep(key, data[:-1], content_type, described)
                raise UploadDamaged(f"memory: put {key}: other bytes arrived.")
            return self._keep(key, data, content_type, described)

    def put_if_absent(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> str:
        """See `pipeline.ports.ObjectStore`."""
        with self._answered("put", checked_key(key)):
            if key in self._objects:
                raise Conflict(f"memory: put {key}: it is there.")
            return self._keep(key, data, content_type, {})

    def replace(
        self, key: str, data: bytes, etag: str, *, content_type: str = "application/octet-stream"
    ) -> str:
        """See `pipeline.ports.ObjectStore`."""
        with self._answered("put", checked_key(key)):
            if key not in self._objects or self._objects[key][0].etag != etag:
                raise Conflict(f"memory: put {key}: it is another by now, or gone.")
            return self._keep(key, data, content_type, {})

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """See `pipeline.ports.ObjectStore`."""
        with self._answered("get", checked_key(key)):
            stored, data = self._found(key)
        if max_bytes is not None and len(data) > max_bytes:
            raise TooLarge(f"memory: get {key}: {len(data)} bytes, more than the limit of {max_bytes}.")
        if stored.metadata.get(SHA256, "") not in ("", hashlib.sha256(data).hexdigest()):
            raise ObjectDamaged(
                f"memory: get {key}: the bytes have another SHA-256 than when they were stored."
            )
        return data

    def stat(self, key: str) -> Stored:
        """See `pipeline.ports.ObjectStore`."""
        with self._answered("stat", checked_key(key)):
            return self._found(key)[0]

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """See `pipeline.ports.ObjectStore`."""
        return self._listed(checked_prefix(prefix))

    def delete(self, key: str) -> None:
        """See `pipeline.ports.ObjectStore`."""
        with self._answered("delete", checked_key(key)):
            self._objects.pop(key, None)

    def close(self) -> None:
        """Nothing to release."""

    def rot(self, key: str) -> None:
        """Change an object's bytes behind the store's back."""
        stored, data = self._objects[key]
        self._objects[key] = (stored, data[:-1] + bytes([data[-1] ^ 1]))

    def _listed(self, prefix: str) -> Iterator[Stored]:
        with self._answered("list", prefix):
            keys = sorted(key for key in self._objects if key.startswith(prefix))
        for key in keys:
            if key in self._objects:
                yield replace(self._objects[key][0], content_type="", metadata={})

    def _found(self, key: str) -> tuple[Stored, bytes]:
        if key not in self._objects:
            raise NotFound(f"memory: {key}: there is none.")
        return self._objects[key]

    def _keep(self, key: str, data: bytes, content_type: str, metadata: Mapping[str, str]) -> str:
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        self._objects[key] = (Stored(key, len(data), etag, self._clock(), content_type, metadata), data)
        return etag

    @contextmanager
    def _answered(self, verb: str, key: str) -> Iterator[None]:
        with self._lock:
            if self.calls_left is not None:
                self.away = self.away or self.calls_left == 0
                self.calls_left = max(0, self.calls_left - 1)
            if self.away:
                raise StoreUnavailable(f"memory: {verb} {key}: the store is away.")
            if self.full and verb == "put":
                raise StoreUnavailable(f"memory: {verb} {key}: the store is full.")
            self.calls.append((verb, key))
            yield
