"""Frames that can't be inspected: the original bytes untouched, beside a JSON that says what, where and what to do."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import BinaryIO

from pipeline.atomic import write_whole
from pipeline.naming import artifact_name
from pipeline.ports import Result

_CHUNK = 2**20
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


def write_dead_letter(folder: Path, result: Result) -> Path:
    """Keep a failed frame.

    Writes NAME.SUFFIX with the bytes as they arrived (a file too large to be read, or a video whose end is missing, is
    copied whole), then NAME.json with frame id, source, stage, code, message, where the original lies, its size and
    hash. A frame that has no bytes (the file is gone, or is a pipe) has the JSON alone.

    Returns:
        Path of the JSON.

    Raises:
        OutputError: it can't be written.
    """
    assert result.error is not None
    frame = result.frame
    stage, code, message = result.error
    name = artifact_name(frame.frame_id)
    original = frame.headers.get("path", "")
    suffix = Path(original or frame.frame_id.partition("#")[0]).suffix
    kept = folder / f"{name}{suffix if _SUFFIX.fullmatch(suffix) and suffix != '.json' else '.bin'}"
    size = _keep(kept, result.frame.data, Path(original) if original else None)
    letter = {
        "frame_id": frame.frame_id,
        "source": frame.source,
        "original": original or None,
        "stage": stage,
        "code": code,
        "message": message,
        "bytes": None if size is None else kept.name,
        "size": size,
        "sha256": result.image_sha256 or None,
        "captured_at": frame.captured_at.isoformat(),
        "failed_at": result.finished_at.isoformat(),
    }
    path = folder / f"{name}.json"
    with write_whole(path) as file:
        file.write(
            json.dumps(letter, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        )
    return path


def _keep(path: Path, data: bytes, original: Path | None) -> int | None:
    """Write the bytes of a frame; None where it has none."""
    if not data and original is not None:
        return _copy(path, original)
    if not data:
        return None
    with write_whole(path) as file:
        file.write(data)
    return len(data)


def _copy(path: Path, original: Path) -> int | None:
    """Copy a file that was not read (too large, or a video), piece by piece."""
    try:
        if not original.is_file():
            return None
        source = open(original, "rb")  # noqa: SIM115 - closed below
    except (OSError, ValueError):
        return None  # it can't be read: that is what the JSON says
    with source:
        try:
            with write_whole(path) as file:
                for chunk in iter(partial(_read, source), b""):
                    file.write(chunk)
                return file.tell()
        except _Unreadable:
            return None


class _Unreadable(Exception):
    """The original can't be read to its end: the frame's fault, not that of the disk that is written to."""


def _read(source: BinaryIO) -> bytes:
    try:
        return source.read(_CHUNK)
    except OSError as error:
        raise _Unreadable from error
