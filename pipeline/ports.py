"""The ports between stages and the world. Each has a fake in `pipeline.testing` and one conformance suite.

    Source   gives frames                  file, folder, video, camera
    Infer    answers with predictions      in process | Triton
    Sink     takes results                 folder
    Log      partitioned, transactional    memory | Kafka
    ObjectStore  named bytes in a bucket   memory | any S3 server

Nobody patches: a test that needs a port takes the fake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dapo.inspection import Prediction, Verdict
from dapo.pack import Pack

Headers = tuple[tuple[str, bytes], ...]
Partition = tuple[str, int]  # topic, number


@dataclass(frozen=True, slots=True)
class Record:
    """One message as it was read from a log, untouched."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Headers
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class Message:
    """One message to be written to a log. Messages of one key keep their order."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Loss:
    """Records that the log deleted before they were read: offsets `first` up to, not including, `end`."""

    topic: str
    partition: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it arrived, undecoded.

    Attributes:
        frame_id: unique and stable inside `source`; a path relative to its root, or "name#000123" of a video.
        source: where it came from, as a URI.
        data: encoded image; empty where `pixels` is given or `error` is set.
        pixels: uint8 [H, W, 3] RGB, from sources that decode themselves (video, camera).
        captured_at: UTC.
        error: (code, message) where the source met the frame but could not read it; it becomes a Failed result.
        record: the message it came as, where it came on a stream.
    """

    frame_id: str
    source: str
    captured_at: datetime
    data: bytes = b""
    pixels: NDArray[np.uint8] | None = None
    content_type: str = ""
    product_id: str = "*"
    camera_id: str = ""
    sequence: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    error: tuple[str, str] | None = None
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a row says of the model that made it.

    Attributes:
        hash: of the prompt pack.
        model: encoder by name and hash.
        prompts: name of the pack.
    """

    hash: str
    model: str
    prompts: str

    @classmethod
    def of(cls, pack: Pack, name: str = "") -> Configuration:
        """The configuration of a pack called `name`; without a name it is called by the start of its hash."""
        digest = pack.configuration_hash
        return cls(digest, f"{pack.encoder.name}@{pack.encoder.sha256[:12]}", name or digest[:12])


DROP = "drop"  # the stage of a declared drop: such a result is Aborted, not Failed


@dataclass(frozen=True, slots=True)
class Result:
    """One frame's outcome: exactly one per frame. `verdict` is None where the frame failed or was dropped (`error`).

    Attributes:
        pixels: for overlays; sinks must not keep it.
        configuration: of the pack that all of it was made with; of a frame that failed, of the pack then in force.
    """

    frame: Frame
    verdict: Verdict | None
    error: tuple[str, str, str] | None  # stage, code, message
    image_width: int
    image_height: int
    image_sha256: str
    pixels: NDArray[np.uint8] | None
    started_at: datetime
    finished_at: datetime
    decode_ms: float
    infer_ms: float
    judge_ms: float
    configuration: Configuration


class Source(Protocol):
    """Gives frames in a stable order.

    Iterating may block (a camera waits for its next frame) and reads one frame at a time: memory does not grow with
    the length of the source. A frame that can't be read is given with `error` set, never skipped. `total` is the number
    of frames where it is known beforehand. `close` may be called at any time, also while another thread iterates.
    """

    total: int | None

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None: ...


class Infer(Protocol):
    """Answers a batch of model inputs, in order.

    `images` is uint8 [B, S, S, 3] RGB at `image_size`; `products` names one product per image. Blocks until all are
    answered. Not thread-safe. The answer of an image does not depend on what else is in the batch beyond float rounding.

    `pack` is what its last answer was made with (before the first: what it was opened with), and may be read from any
    thread. All answers of one call come from one pack. Where a call answers with another pack than the one before, the
    images of the call may be cut for that one: whoever cuts them compares, and asks again.
    """

    image_size: int

    @property
    def pack(self) -> Pack: ...

    def infer(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]: ...

    def close(self) -> None: ...


class Sink(Protocol):
    """Takes results in the order of the source.

    `write` may buffer; after `flush` everything written so far survives a crash. Writing the same frame twice is the
    caller's mistake. `close` flushes and publishes: nothing half-written is ever found under its final name.
    """

    def write(self, result: Result) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class Log(Protocol):
    """A group member's view of a partitioned log: read, transform, write, exactly once.

    All methods are called from one thread. `epoch` grows whenever reading starts over at what is committed (a partition
    came or went, or a transaction was undone): records polled under an earlier epoch are read again, here or elsewhere,
    so the caller forgets them with all that came of them. `losses` holds what was deleted unread since the caller last
    cleared it.
    """

    epoch: int
    losses: list[Loss]

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        """Records after the last ones, in order within a partition; empty after `timeout_s`. Blocks no longer.

        Keeps the membership alive: call it at least every few seconds, also while paused.
        """
        ...

    def commit(self, messages: Sequence[Message], consumed: Mapping[Partition, int]) -> bool:
        """Write all messages and the offsets after the consumed records, as one transaction.

        Returns False where it was undone: then nothing of it will ever be seen by a reader of committed messages, and
        `epoch` has grown. May block while the broker is away. Where it returns True, all of it is committed; `epoch` may
        have grown all the same, since the group may move meanwhile.

        Raises:
            Fenced: another member writes under the same name; this one must end.
            LogRefused: the log will never take it (a topic is missing, a message too large, no permission).
        """
        ...

    def pause(self) -> None:
        """Let `poll` give no records until `resume`."""
        ...

    def resume(self) -> None: ...

    def lag(self) -> int | None:
        """Records that wait to be read in all partitions held; None where it is not known."""
        ...

    def close(self) -> None:
        """Leave the group; an open transaction is undone."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as a store describes it.

    Attributes:
        size: bytes.
        etag: changes whenever the object does; to be compared, never to be read.
        modified: when it was last written, UTC, by the store's clock.
        content_type, metadata: empty in a listing, which does not carry them.
    """

    key: str
    size: int
    etag: str
    modified: datetime
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


class ObjectStore(Protocol):
    """One bucket of named bytes.

    Keys are paths of A-Z a-z 0-9 _ . = - and slashes (`pipeline.store.names`); no key may be a folder of another. An
    object appears whole or not at all, and what was written is seen by every later call. Of one key use either `put` or
    the conditional `put_if_absent` and `replace`: the latter carry no metadata, and some servers then keep the old. Every
    call blocks for a bounded time, retries nothing, and may be made from any thread. All of them raise:

        StoreUnavailable   away, too slow, overloaded or full: keep what you have and call again later
        StoreError         wrong key, bucket, credentials or permission: calling again does not help
    """

    bucket: str

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Write an object, whatever was there; returns its etag. Twice the same is the same as once.

        The store has proven, when this returns, that it holds these very bytes. Their SHA-256 is added to `metadata`
        (lower-case names, printable ASCII values) as `sha256`.

        Raises:
            UploadDamaged: other bytes arrived; nobody may read the object until a put of this key succeeds.
        """
        ...

    def put_if_absent(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> str:
        """Write an object that is not there yet; returns its etag.

        After StoreUnavailable nobody knows whether it was written: read it.

        Raises:
            Conflict: it is there.
        """
        ...

    def replace(
        self, key: str, data: bytes, etag: str, *, content_type: str = "application/octet-stream"
    ) -> str:
        """Write over the object that has this etag; returns the new one.

        To change an object: `stat`, then `get`, then `replace` with the etag of `stat`; on Conflict all of it again.

        Raises:
            Conflict: the object is another by now, or gone.
        """
        ...

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """All bytes of an object, checked against the SHA-256 it was put with.

        Raises:
            NotFound: there is none.
            ObjectDamaged: the bytes have another hash.
            StoreError: it is larger than `max_bytes`; nothing of it was read.
        """
        ...

    def stat(self, key: str) -> Stored:
        """What is known of an object without its bytes.

        Raises:
            NotFound: there is none.
        """
        ...

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """All objects whose key begins with `prefix` (cut anywhere), ordered by key.

        Lazy: memory does not grow with their number, and the iteration itself may raise. Objects that come or go
        meanwhile may or may not be among them; all others are, once. What was given already may be deleted.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object. One that is not there is no error."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...
