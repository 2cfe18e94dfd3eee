"""`dapo feed`: a folder, video or camera onto the frames topic, each frame once, also over restarts.

Ids come from the source (a file's path, a video's frame number), so the same source always gives the same frames. The
position is written in the same transaction as the frames: a feeder that was killed goes on behind the last frame that is
really on the topic. With the position goes a digest of all ids before it: a source that no longer begins with what was
fed of it is refused, for nobody could say which of its frames are new.
"""

from __future__ import annotations

import hashlib
import io
import queue
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

from PIL import Image

from dapo.errors import ServiceUnavailable, SourceError
from pipeline.archive.keys import CLAIMS
from pipeline.naming import artifact_name, printable
from pipeline.ports import Frame, Message, ObjectStore, Source
from pipeline.stream.frames import MAX_ID, REASON, write_frame
from pipeline.stream.patience import patiently
from schemas.ids import frame_key

# Of one transaction: so many bytes get through in time over the slowest link that pipeline.kafka.transactions allows for.
_MAX_FRAMES, _MAX_BYTES = 64, 4 * 2**20
_MAX_WAIT_S = 0.2  # that a frame waits for others to go with it; also how soon `stop` is seen while the source is silent
_JOIN_S = 5.0  # a thread that hangs in a camera's read is left behind; it ends with the process
# Of frames that come decoded (video, camera): the loss is below what an inspection could tell from the original.
_JPEG_QUALITY = 95
OCTETS = "application/octet-stream"


class Outlet(Protocol):
    """Where messages go: with the source's position, together or not at all."""

    def position(self) -> int: ...

    def write(self, messages: list[Message], position: int) -> None: ...


class MarkedOutlet(Protocol):
    """Where frames go: with the source's position and what tells whether it is still the same source."""

    def kept(self) -> tuple[int, str]:
        """Position and mark of the last `write`; (0, "") where there was none."""
        ...

    def write(self, messages: list[Message], position: int, mark: str = "") -> None: ...


@dataclass(slots=True)
class Fed:
    """What was fed.

    Attributes:
        bytes: of encoded images.
        skipped: were on the topic already.
        claims: lie in the store.
        unreadable: the source could not read them; on the topic stands why.
        too_large: for a message, and there is no store; on the topic stands why.
    """

    frames: int = 0
    bytes: int = 0
    skipped: int = 0
    claims: int = 0
    unreadable: int = 0
    too_large: int = 0

    def add(self, other: Fed) -> None:
        """Count what another one counted."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass(frozen=True, slots=True)
class Tags:
    """What every frame of this feeder is said to be."""

    camera_id: str
    product_id: str = "*"
    line_id: str = ""
    station_id: str = ""
    job_id: str = ""
    simulated: bool = False


@dataclass(slots=True)
class _Batch:
    """What goes out in the next transaction."""

    messages: list[Message] = field(default_factory=list)
    size: int = 0
    since: float = 0.0
    position: int = 0
    mark: str = ""
    fed: Fed = field(default_factory=Fed)


class Feeder:
    """Feeds one source.

    Args:
        topic: of frames.
        rate: frames per second; None: as fast as they are taken.
        max_bytes: of a message; a larger frame is put into the store, its message says where.
        claim: puts bytes under a key and returns their URI; None: a larger frame is sent without its image, so that it
            gets its row and its dead letter like every other one that nobody can inspect.
    """

    def __init__(
        self,
        outlet: MarkedOutlet,
        topic: str,
        tags: Tags,
        *,
        rate: float | None = None,
        max_bytes: int = 8 * 2**20,
        claim: Callable[[str, bytes, str], str] | None = None,
    ) -> None:
        self._outlet, self._topic, self._tags = outlet, topic, tags
        self._rate, self._max_bytes, self._claim = rate, max_bytes, claim
        self._batch, self._fed = _Batch(), Fed()

    def run(
        self,
        source: Source,
        stop: threading.Event,
        *,
        live: bool = False,
        on_frame: Callable[[Frame], None] = lambda f: None,
    ) -> Fed:
        """Feed until the source ends or `stop` is set; then the source is closed.

        Args:
            live: a camera: it has no past, so nothing is skipped.

        Returns:
            What is on the topic. A broker or store that is away when `stop` is set is not waited for: the next run feeds
            what is missing.

        Raises:
            SourceError: the source no longer begins with the frames that were fed of it; nothing was fed.
        """
        self._batch, self._fed = _Batch(), Fed()
        try:
            self._run(source, stop, live, on_frame)
        except ServiceUnavailable:
            if not stop.is_set():
                raise
        return self._fed

    def _run(
        self, source: Source, stop: threading.Event, live: bool, on_frame: Callable[[Frame], None]
    ) -> None:
        start, mark = self._outlet.kept()
        index, before = (start, 0) if live else (0, start)
        begun, taken, known = time.monotonic(), 0, hashlib.sha256()
        with _reading(source, stop) as frames:
            for given in frames:
                if given is None:
                    self._flush()
                    continue
                frame = self._tagged(given, index)
                index += 1
                if not live:
                    known.update(frame_key(frame.source, frame.frame_id).encode())
                if index <= before:
                    self._fed.skipped += 1
                    if index == before and known.hexdigest() != mark:
                        raise _another(before)
                    continue
                self._pace(begun, taken, stop)
                if stop.is_set():
                    break
                self._add(frame, index, "" if live else known.hexdigest())
                taken += 1
                on_frame(frame)
        if index < before and not stop.is_set():
            raise _another(before)
        self._flush()

    def _add(self, frame: Frame, position: int, mark: str) -> None:
        fed = Fed(frames=1)
        message = self._message(frame, fed)
        if self._batch.size + len(message.value) > _MAX_BYTES:
            self._flush()
        batch = self._batch
        if not batch.messages:
            batch.since = time.monotonic()
        batch.messages.append(message)
        batch.size += len(message.value)
        batch.position, batch.mark = position, mark
        batch.fed.add(fed)
        if len(batch.messages) >= _MAX_FRAMES or time.monotonic() - batch.since >= _MAX_WAIT_S:
            self._flush()

    def _flush(self) -> None:
        batch = self._batch
        if batch.messages:
            self._outlet.write(batch.messages, batch.position, batch.mark)
            self._fed.add(batch.fed)
            self._batch = _Batch()

    def _pace(self, begun: float, done: int, stop: threading.Event) -> None:
        if self._rate is None:
            return
        pause = begun + done / self._rate - time.monotonic()
        if pause > _MAX_WAIT_S:
            self._flush()
        stop.wait(max(0.0, pause))

    def _tagged(self, frame: Frame, index: int) -> Frame:
        tags = self._tags
        names = {"line_id": tags.line_id, "station_id": tags.station_id, "job_id": tags.job_id}
        headers = {name: text for name, text in names.items() if text}
        if tags.simulated:
            headers["is_simulated"] = "true"
        fits = frame.frame_id.isprintable() and len(frame.frame_id) <= MAX_ID
        return replace(
            frame,
            frame_id=frame.frame_id if fits else artifact_name(frame.frame_id),
            camera_id=tags.camera_id,
            product_id=tags.product_id,
            sequence=frame.sequence if frame.sequence is not None else index,
            headers=headers,
        )

    def _message(self, frame: Frame, fed: Fed) -> Message:
        if frame.pixels is not None:
            frame = replace(frame, data=_encoded(frame), content_type="image/jpeg", pixels=None)
        fed.bytes = len(frame.data)
        # What can't be read here still gets its row: the worker finds no image, and its dead letter says why.
        reason = ": ".join(frame.error) if frame.error else ""
        fed.unreadable = int(bool(reason))
        if len(frame.data) > self._max_bytes:
            if self._claim is not None:
                self._flush()  # a store that is away holds up no other frame
                key = f"{CLAIMS}/{frame_key(frame.source, frame.frame_id)}"
                uri = self._claim(key, frame.data, frame.content_type)
                fed.claims = 1
                return _explained(write_frame(frame, self._topic, reference=uri), reason)
            limit = f"kafka.max_message_bytes is {self._max_bytes}, and no store.endpoint is set"
            reason = reason or f"too-large: {len(frame.data)} bytes; {limit}"
            fed.too_large, fed.bytes = 1, 0
            frame = replace(frame, data=b"")
        return _explained(write_frame(frame, self._topic), reason)


def _explained(message: Message, reason: str) -> Message:
    """The message with the reason why it has no image, where there is one."""
    if not reason:
        return message
    return replace(message, headers=(*message.headers, (REASON, printable(reason)[:_MAX_REASON].encode())))


_MAX_REASON = 500  # characters; a worker reads no frame with more than 16 KB of headers


@contextmanager
def _reading(source: Source, stop: threading.Event) -> Iterator[Iterator[Frame | None]]:
    """Frames of a source, read in a thread, one ahead; None after each `_MAX_WAIT_S` without one.

    They end with the source, or soon after `stop` however silent the source is. It is closed at the end.
    """
    ready: queue.SimpleQueue[Frame | BaseException | None] = queue.SimpleQueue()
    taken, over = threading.Semaphore(0), threading.Event()

    def read() -> None:
        try:
            for frame in source:
                ready.put(frame)
                taken.acquire()
                if over.is_set():
                    return
            ready.put(None)
        except BaseException as error:
            ready.put(error)  # raised where the frames are used

    def frames() -> Iterator[Frame | None]:
        while not stop.is_set():
            try:
                found = ready.get(timeout=_MAX_WAIT_S)
            except queue.Empty:
                yield None
                continue
            taken.release()
            if found is None:
                return
            if isinstance(found, BaseException):
                raise found
            yield found

    thread = threading.Thread(target=read, name="source", daemon=True)
    thread.start()
    try:
        yield frames()
    finally:
        over.set()
        taken.release()
        source.close()
        thread.join(_JOIN_S)


def _another(fed: int) -> SourceError:
    return SourceError(
        f"{fed} frames of this source were fed before, and it no longer begins with them: files among them came, went or "
        "were renamed, so nobody can say which are new. Put them back, or feed it under a new name (--name dapo-feed-NEW):"
        " frames that are on the topic already then come again, and readers drop them by frame_key."
    )


def feeder_name(place: str, tags: Tags, host: str | None = None) -> str:
    """A name that the same source on the same host under the same camera always gets: its position is found by it.

    Args:
        place: of the source on its host, see `pipeline.sources.choose.Opened`.
        host: None is this one.

    >>> feeder_name("/photos", Tags("cam-1")) == feeder_name("/photos", Tags("cam-1"))
    True
    """
    parts = (socket.gethostname() if host is None else host, place, tags.camera_id)
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return f"{_NAMES}{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:24]}"


def passing_name() -> str:
    """A name of its own for a source that can't be read again: nobody looks for its position."""
    return f"{_NAMES}{uuid.uuid4().hex[:24]}"


_NAMES = "dapo-feed-"  # what deploy/acl/feeder.sh lets a feeder be called


def claimed(store: ObjectStore, bucket: str, stop: threading.Event) -> Callable[[str, bytes, str], str]:
    """Puts a frame into the store, however long that is away, and says where it lies."""

    def claim(key: str, data: bytes, content_type: str) -> str:
        patiently(lambda: store.put(key, data, content_type=content_type or OCTETS), stop)
        return f"s3://{bucket}/{key}"

    return claim


def _encoded(frame: Frame) -> bytes:
    assert frame.pixels is not None
    file = io.BytesIO()
    # 4:4:4: thin coloured scratches do not survive halved chroma.
    Image.fromarray(frame.pixels).save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return file.getvalue()
