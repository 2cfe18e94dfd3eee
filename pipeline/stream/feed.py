"""`dapo feed`: a folder, video or camera onto the frames topic, each frame once, also over restarts.

Ids come from the source (a file's path, a video's frame number), so the same source always gives the same frames. The
position is written in the same transaction as the frames: a feeder that was killed goes on behind the last frame that is
really on the topic.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from PIL import Image

from pipeline.naming import artifact_name
from pipeline.ports import Frame, Message, ObjectStore, Source
from pipeline.stream.frames import MAX_ID, write_frame
from pipeline.stream.patience import patiently
from schemas.ids import frame_key

_MAX_FRAMES, _MAX_BYTES, _MAX_WAIT_S = 64, 16 * 2**20, 0.2  # of one transaction
_JPEG_QUALITY = (
    95  # of frames that come decoded (video, camera): below what an inspection could tell from the original
)
CLAIMS = "claims"
OCTETS = "application/octet-stream"


class Outlet(Protocol):
    """Where frames go: messages and the source's position, together or not at all."""

    def position(self) -> int: ...

    def write(self, messages: list[Message], position: int) -> None: ...


@dataclass(slots=True)
class Fed:
    """What was fed. `skipped`: were on the topic already; `unreadable`: the source could not read them, with reasons."""

    frames: int = 0
    bytes: int = 0
    skipped: int = 0
    claims: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class Tags:
    """What every frame of this feeder is said to be."""

    camera_id: str
    product_id: str = "*"
    line_id: str = ""
    station_id: str = ""
    job_id: str = ""
    simulated: bool = False


class Feeder:
    """Feeds one source.

    Args:
        topic: of frames.
        rate: frames per second; None: as fast as they are taken.
        max_bytes: of a message; a larger frame is put into the store, its message says where.
        claim: puts bytes under a key and returns their URI; None: larger frames are sent as they are, and refused.
    """

    def __init__(
        self,
        outlet: Outlet,
        topic: str,
        tags: Tags,
        *,
        rate: float | None = None,
        max_bytes: int = 8 * 2**20,
        claim: Callable[[str, bytes, str], str] | None = None,
    ) -> None:
        self._outlet, self._topic, self._tags = outlet, topic, tags
        self._rate, self._max_bytes, self._claim = rate, max_bytes, claim

    def run(
        self,
        source: Source,
        stop: threading.Event,
        *,
        live: bool = False,
        on_frame: Callable[[Frame], None] = lambda f: None,
    ) -> Fed:
        """Feed until the source ends or `stop` is set.

        Args:
            live: a camera: it has no past, so nothing is skipped.
        """
        fed, waiting, size = Fed(), list[Message](), 0
        start = self._outlet.position()
        begun = last = time.monotonic()
        for index, given in enumerate(source, start=start if live else 0):
            if stop.is_set():
                break
            if index < start:
                fed.skipped += 1
                continue
            self._pace(begun, fed.frames, stop)
            frame = self._tagged(given, index)
            message = self._message(frame, fed)
            waiting.append(message)
            size += len(message.value)
            fed.frames += 1
            fed.bytes += len(frame.data)
            now = time.monotonic()
            if len(waiting) >= _MAX_FRAMES or size >= _MAX_BYTES or now - last >= _MAX_WAIT_S:
                self._outlet.write(waiting, index + 1)
                waiting, size, last = [], 0, time.monotonic()
            on_frame(frame)
        if waiting:
            self._outlet.write(waiting, start + fed.frames)
        return fed

    def _pace(self, begun: float, done: int, stop: threading.Event) -> None:
        if self._rate is not None:
            stop.wait(max(0.0, begun + done / self._rate - time.monotonic()))

    def _tagged(self, frame: Frame, index: int) -> Frame:
        tags = self._tags
        names = {"line_id": tags.line_id, "station_id": tags.station_id, "job_id": tags.job_id}
        headers = {name: text for name, text in names.items() if text}
        if tags.simulated:
            headers["is_simulated"] = "true"
        printable = frame.frame_id.isprintable() and len(frame.frame_id) <= MAX_ID
        return replace(
            frame,
            frame_id=frame.frame_id if printable else artifact_name(frame.frame_id),
            camera_id=tags.camera_id,
            product_id=tags.product_id,
            sequence=frame.sequence if frame.sequence is not None else index,
            headers=headers,
        )

    def _message(self, frame: Frame, fed: Fed) -> Message:
        if frame.error is not None:
            # What can't be read here still gets its row: the worker finds no image and says so in the dead letters.
            fed.unreadable += 1
        if frame.pixels is not None:
            frame = replace(frame, data=_encoded(frame), content_type="image/jpeg", pixels=None)
        if len(frame.data) > self._max_bytes and self._claim is not None:
            key = f"{CLAIMS}/{frame_key(frame.source, frame.frame_id)}"
            uri = self._claim(key, frame.data, frame.content_type)
            fed.claims += 1
            return write_frame(frame, self._topic, reference=uri)
        return write_frame(frame, self._topic)


def feeder_name(source: str, tags: Tags) -> str:
    """A name that the same source under the same camera always gets: its position is found by it.

    >>> feeder_name("photos", Tags("cam-1")) == feeder_name("photos", Tags("cam-1"))
    True
    """
    digest = hashlib.sha256(
        f"{len(source)}:{source}{tags.camera_id}".encode("utf-8", "backslashreplace")
    ).hexdigest()
    return f"dapo-feed-{digest[:24]}"


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
