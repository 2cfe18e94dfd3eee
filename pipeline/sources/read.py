"""Read one image file into a frame. Whatever is wrong with the file becomes the frame's `error`, never an exception."""

from __future__ import annotations

import errno
import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

from pipeline.decode import DecodeError, Limits, check_size
from pipeline.naming import printable
from pipeline.ports import Frame

_ATTEMPTS = 3  # a file that is still being written settles within a second, or is not ready
_PAUSE = 0.25
_SUFFIX_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
    ".gif": "image/gif",
}


def read_frame(path: Path, frame_id: str, source: str, limits: Limits, *, pause: float = _PAUSE) -> Frame:
    """Read a whole image file, once it holds still.

    Args:
        frame_id: unique in `source`.
        limits: of bytes; a larger file is not read at all.
        pause: seconds before a file that changed while it was read is read again.

    Returns:
        A frame with `data`, or with `error`: not-found, not-a-file, no-permission, symlink-loop, too-many-bytes,
        changed-while-read or unreadable. `headers["path"]` says where the file lies. A folder that a walk could not list
        comes here too.
    """
    data, captured, error = b"", datetime.now(UTC), None
    try:
        for attempt in range(_ATTEMPTS):
            data, captured, steady = _read_once(path, limits)
            if steady:
                break
            if attempt < _ATTEMPTS - 1:
                time.sleep(pause)
        else:
            error = (
                "changed-while-read",
                f"{path} kept changing while it was read. Run again once it is written.",
            )
    except DecodeError as problem:
        error = (problem.code, f"{path}: {problem}")
    except (OSError, ValueError) as problem:
        error = explain(path, problem)
    return Frame(
        frame_id=frame_id,
        source=source,
        captured_at=captured,
        data=data,
        content_type=_SUFFIX_TYPES.get(path.suffix.lower(), ""),
        headers={"path": os.path.abspath(path)},
        error=None if error is None else (error[0], printable(error[1])),
    )


def explain(path: Path, problem: OSError | ValueError) -> tuple[str, str]:
    """(code, message) for a file that can't be opened or read."""
    if not isinstance(problem, OSError):
        return "unreadable", f"{path!s} is no path ({problem}). Correct the list."
    if isinstance(problem, FileNotFoundError | NotADirectoryError):
        return (
            "not-found",
            f"{path} is not there (any more). Check the name; if it was moved, run on its new folder.",
        )
    if isinstance(problem, PermissionError):
        return (
            "no-permission",
            f"{path} may not be read by this user. Give read permission and run with --resume.",
        )
    if problem.errno == errno.ELOOP:
        return "symlink-loop", f"{path} is a symbolic link that leads back to itself. Remove it."
    if problem.errno == errno.EISDIR:
        return (
            "not-a-file",
            f"{path} is no regular file. Give a folder as SOURCE; pipes and devices can't be inspected.",
        )
    said = problem.strerror or str(problem)
    return (
        "unreadable",
        f"{path} can't be read: {said}. Check the disk or network share and run with --resume.",
    )


def _read_once(path: Path, limits: Limits) -> tuple[bytes, datetime, bool]:
    """(content, time of last change, whether it held still)."""
    if path.is_dir():
        os.listdir(
            path
        )  # a walk gives a folder where this fails, and why it does says more than that it is one
    # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise IsADirectoryError(errno.EISDIR, "not a regular file")
        check_size(before.st_size, limits)
        data = file.read(limits.max_bytes + 1)  # never more, however fast the file grows
        after = os.fstat(file.fileno())
    check_size(len(data), limits)
    steady = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns) and len(
        data
    ) == after.st_size
    return data, datetime.fromtimestamp(after.st_mtime, UTC), steady
