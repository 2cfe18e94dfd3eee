"""Frames of a video file, decoded by OpenCV. A video that ends too early gives one frame that says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.decode import DecodeError, Limits, check_pixels
from pipeline.naming import printable
from pipeline.ports import Frame
from pipeline.sources.read import explain, read_frame

# Containers whose header counts the frames exactly; for the others OpenCV multiplies duration by rate.
_COUNTED = frozenset((".mp4", ".m4v", ".mov", ".avi"))
_TOLERANCE = 2  # frames that an estimated count may be off by

cv2.utils.logging.setLogLevel(
    cv2.utils.logging.LOG_LEVEL_SILENT
)  # a damaged video is told by its dead letter
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's AV_LOG_QUIET


def count(path: Path) -> int:
    """Number of frames that a video's header promises; 0 where it can't be opened."""
    with suppress(OSError, ValueError), _opened(path) as capture:
        return _get(capture, cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
    return 0


def frames(path: Path, name: str, source: str, limits: Limits) -> Iterator[Frame]:
    """Frames "name#000000", "name#000001", ... of one video, uint8 [H, W, 3] RGB in `pixels`.

    A video that can't be opened gives one frame "name" with `error`; one that ends before its header says, or in the
    middle of a frame, gives what could be read and one more frame with `error` video-ends-early.
    """
    try:
        captured = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, ValueError) as problem:
        yield _failed(name, source, path, *explain(path, problem))
        return
    if not path.is_file():
        yield read_frame(path, name, source, limits)  # says what it is instead
        return
    try:
        with _opened(path) as capture:
            yield from _checked(capture, path, name, source, captured, limits)
    except OSError as problem:
        yield _failed(name, source, path, *explain(path, problem))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An OpenCV capture of a file."""
    # OpenCV crashes on a name that is no valid Unicode, and says nothing of a file that may not be read.
    with open(path, "rb") as file:
        capture = cv2.VideoCapture(str(path) if _is_unicode(path) else f"/dev/fd/{file.fileno()}")
        try:
            yield capture
        finally:
            capture.release()


def _is_unicode(path: Path) -> bool:
    return printable(str(path)) == str(path)


def _checked(
    capture: Any, path: Path, name: str, source: str, captured: datetime, limits: Limits
) -> Iterator[Frame]:
    if not capture.isOpened():
        text = f"{path} can't be opened as a video: damaged, cut off, or of an unknown codec. Convert it to H.264 MP4."
        yield _failed(name, source, path, "video-unreadable", text)
        return
    try:
        check_pixels(
            _get(capture, cv2.CAP_PROP_FRAME_WIDTH), _get(capture, cv2.CAP_PROP_FRAME_HEIGHT), limits
        )
    except DecodeError as problem:
        yield _failed(name, source, path, problem.code, f"{path}: {problem}")
        return
    yield from _read(capture, path, name, source, captured)


def _read(capture: Any, path: Path, name: str, source: str, captured: datetime) -> Iterator[Frame]:
    promised = _get(capture, cv2.CAP_PROP_FRAME_COUNT)
    number = 0
    while True:
        at = timedelta(milliseconds=max(0.0, float(capture.get(cv2.CAP_PROP_POS_MSEC))))
        there, bgr = capture.read()
        if not there or bgr is None:
            break
        yield Frame(
            frame_id=f"{name}#{number:06d}",
            source=source,
            captured_at=captured + at,
            pixels=np.ascontiguousarray(bgr[..., ::-1]),
            content_type="image/x-raw-rgb",
            camera_id=name,
            sequence=number,
        )
        number += 1
    missing = promised - number
    if missing > (0 if path.suffix.lower() in _COUNTED else _TOLERANCE) or number == 0:
        text = f"{path} ends after {number} of {max(promised, number)} frames: cut off or damaged. Copy or record it again."
        yield _failed(f"{name}#{number:06d}", source, path, "video-ends-early", text)


def _failed(name: str, source: str, path: Path, code: str, text: str) -> Frame:
    """A frame that says why there is none; `headers["path"]` names the file to keep with the dead letter."""
    headers = {"path": os.path.abspath(path)}
    return Frame(name, source, datetime.now(UTC), headers=headers, error=(code, printable(text)))


def _get(capture: Any, property_id: int) -> int:
    return max(0, int(capture.get(property_id)))
