"""Frames of a camera: an address (rtsp, http) or a device number. It is opened again after a stall, for ever.

A thread keeps taking frames and holds only the newest: a slow inspection sees the line as it is now, not as it was a
minute ago. Frames passed over leave gaps in `sequence`, and are counted in `dropped`.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import cv2
import numpy as np

from dapo.errors import SourceError
from pipeline.ports import Frame

STALL_S = 20.0  # as Frigate: shorter and a camera that restarts its encoder is thrown off again and again
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_OPEN_TIMEOUT_MS = 10_000
_SECRETS = "user|usr|login|pwd|pass|token|key|auth|secret"  # in the name of a query's field
_WAKE_S = 0.5  # how long a wait for a frame may delay `close`


def without_password(address: str) -> str:
    """A camera's address as it may be shown: rows and reports travel further than a camera's password should.

    Raises:
        SourceError: it is no address.
    """
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise SourceError(
            f"camera: the address can't be read: {error}. Example: rtsp://host:554/stream"
        ) from error
    query = re.sub(rf"(?i)((?:^|[&;])[^=&;]*(?:{_SECRETS})[^=&;]*=)[^&;]*", r"\1***", parts.query)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


def open_capture(address: str, stall_s: float = STALL_S) -> Any:
    """An OpenCV capture of a camera address or device number."""
    if address.isdigit():
        return cv2.VideoCapture(int(address))
    if address.startswith("/dev/video"):
        return cv2.VideoCapture(address)
    timeouts = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        _OPEN_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        int(stall_s * 1000),
    ]
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, timeouts)


class CameraSource:
    """Frames of one camera until `close`.

    Args:
        address: rtsp://, http(s)://, /dev/videoN or a device number.
        stall_s: without a frame for so long, the camera is opened again.
        capture: makes an object with OpenCV's isOpened, read and release.
        pause_s: before the first new attempt; doubled up to 30 s.

    Attributes:
        dropped: frames that were taken but passed over.
        reconnects: how often the camera was opened again.

    Raises:
        SourceError: the camera can't be opened the first time.
    """

    total: int | None = None

    def __init__(
        self,
        address: str,
        *,
        stall_s: float = STALL_S,
        capture: Callable[[str], Any] | None = None,
        pause_s: float = _FIRST_PAUSE_S,
    ) -> None:
        self.uri = without_password(address) if "://" in address else f"device:{address}"
        self.dropped = 0
        self.reconnects = 0
        self._address = address
        self._stall_s = stall_s
        self._make = capture or (lambda where: open_capture(where, stall_s))
        self._pause_s = pause_s
        self._closed = threading.Event()
        self._new = threading.Condition()
        self._slot: Frame | None = None
        self._sequence = 0
        self._last = time.monotonic()
        self._generation = 0
        self._first = self._make(address)
        if not self._first.isOpened():
            self._first.release()
            raise SourceError(
                f"camera {self.uri}: can't be opened. Check address, user and password, and that it is reachable from here."
            )

    def __iter__(self) -> Iterator[Frame]:
        self._start(self._first)
        while not self._closed.is_set():
            with self._new:
                if self._slot is None:
                    self._new.wait(min(_WAKE_S, self._stall_s))
                frame, self._slot = self._slot, None
            if frame is not None:
                yield frame
            elif time.monotonic() - self._last > self._stall_s:
                # `read` hangs: leave that thread behind (it ends when its read does) and take a fresh connection.
                self._last = time.monotonic()
                self._start(None)

    def close(self) -> None:
        """End the iteration within half a second, whatever the camera does."""
        self._closed.set()
        with self._new:
            self._new.notify_all()

    def _start(self, capture: Any | None) -> None:
        self._generation += 1
        self._last = time.monotonic()
        threading.Thread(
            target=self._grab, args=(capture, self._generation), name="camera", daemon=True
        ).start()

    def _grab(self, capture: Any | None, generation: int) -> None:
        """Take frames until closed or left behind; open again, more and more patiently, whenever a read fails."""
        pause = self._pause_s
        while self._current(generation):
            if capture is None:
                self.reconnects += 1
                capture = self._make(self._address)
            while self._current(generation):
                there, bgr = capture.read()
                if not there or bgr is None:
                    break
                pause = self._pause_s
                self._offer(np.ascontiguousarray(bgr[..., ::-1]), generation)
            capture.release()
            capture = None
            if self._current(generation):
                self._last = time.monotonic() + pause  # a refused connection is no hanging one
                self._closed.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _current(self, generation: int) -> bool:
        return not self._closed.is_set() and generation == self._generation

    def _offer(self, pixels: Any, generation: int) -> None:
        now = datetime.now(UTC)
        with self._new:
            if not self._current(generation):
                return
            self.dropped += self._slot is not None
            self._slot = Frame(
                frame_id=f"{now:%Y%m%dT%H%M%S.%fZ}-{self._sequence:09d}",
                source=self.uri,
                captured_at=now,
                pixels=pixels,
                content_type="image/x-raw-rgb",
                camera_id=self.uri,
                sequence=self._sequence,
            )
            self._sequence += 1
            self._last = time.monotonic()
            self._new.notify_all()
