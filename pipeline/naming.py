"""File names made from frame ids: short, safe on every file system, and different for different frames."""

from __future__ import annotations

import hashlib
import re

_STEM = 60  # characters kept for people; with hash and suffix far below the 255 bytes of a file name
_HASH = 12  # hex digits: 10 million frames share a name with probability 0.2


def artifact_name(frame_id: str) -> str:
    """Name, without suffix, of a frame's mask, overlay and dead letter: its readable end and a hash of the whole.

    >>> artifact_name("left/part 1.png")
    'part_1-84d1174c5b0c'

    Frames of equal name in different folders differ by the hash; the same frame gets the same name in every run.
    """
    digest = hashlib.sha256(frame_id.encode("utf-8", "backslashreplace")).hexdigest()[:_HASH]
    name = re.split(r"[/\\]", frame_id)[-1]
    stem, dot, after = name.rpartition(".")
    if dot and "#" in after:  # a video's frame: "clip.mp4#000123"
        stem = f"{stem}_{after.partition('#')[2]}"
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", stem or name).strip("_")[:_STEM]
    return f"{readable or 'frame'}-{digest}"


def printable(name: str) -> str:
    """A file name as valid Unicode: bytes that are none show as \\xNN, so that every row and page can hold it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
