"""Where a frame's image lies: the same for whoever computes it, worker, archiver or trainer.

    frames/<line>/<camera>/<yyyy>/<mm>/<dd>/<hh>/<frame_key>.<suffix>

The time is that of the picture, UTC; of a frame that does not say, the end of its inspection. Line and camera are outside
text, so they are made safe; the suffix is found by content, never by what a header claims.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from schemas.results import ResultRow

FRAMES = "frames"
CLAIMS = "claims"  # frames too large for a message, put there by whoever sends them: claims/<frame_key>
NAMELESS = "_"  # of a frame that names no line or camera; no safe segment is this, since all begin with a letter or digit
_PLAIN = re.compile(r"(?!.*__)[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_READABLE = 40  # characters kept for people
_HASH = (
    16  # hex digits; a collision would put two cameras into one folder, their frames still apart by frame_key
)


@dataclass(frozen=True, slots=True)
class Media:
    """Kind of an encoded image: suffix of its key, without dot, and content type."""

    suffix: str
    content_type: str


UNKNOWN = Media("bin", "application/octet-stream")
_MAGIC = (
    (re.compile(rb"\xff\xd8\xff"), Media("jpg", "image/jpeg")),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), Media("png", "image/png")),
    (re.compile(rb"BM"), Media("bmp", "image/bmp")),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), Media("tiff", "image/tiff")),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), Media("webp", "image/webp")),
    (re.compile(rb"GIF8[79]a"), Media("gif", "image/gif")),
    (re.compile(rb"P[1-6]\s"), Media("pnm", "image/x-portable-anymap")),
)


def media_of(data: bytes) -> Media:
    """The kind of an image by its first bytes; UNKNOWN where they are none we decode.

    >>> media_of(bytes.fromhex("ffd8ffe0")).suffix
    'jpg'
    """
    return next((media for magic, media in _MAGIC if magic.match(data)), UNKNOWN)


def safe_segment(name: str | None) -> str:
    """An outside name as one segment of a key: itself where it is safe, else readable remains and a hash of the whole.

    Different names give different segments: only hashed ones contain two underscores in a row.

    >>> safe_segment("cam-1"), safe_segment("../Kamera 1"), safe_segment(None)
    ('cam-1', 'Kamera_1__cc6e87d9ed4fb7a1', '_')
    """
    if not name:
        return NAMELESS
    if _PLAIN.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]
    readable = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:_READABLE].rstrip("_")
    return f"{readable or 'x'}__{digest}"


def taken_at(captured_at: datetime | None, finished_at: datetime) -> datetime:
    """The time that an image is filed under, UTC. A time without zone is UTC already."""
    time = captured_at or finished_at
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def image_key(
    *, line_id: str | None, camera_id: str | None, taken: datetime, frame_key: str, suffix: str
) -> str:
    """Key of a frame's image.

    Args:
        taken: of `taken_at`.
        suffix: of `media_of`.
    """
    folder = f"{FRAMES}/{safe_segment(line_id)}/{safe_segment(camera_id)}"
    hour = f"{taken.year:04d}/{taken.month:02d}/{taken.day:02d}/{taken.hour:02d}"
    return f"{folder}/{hour}/{safe_segment(frame_key)}.{suffix}"


def image_key_of(row: ResultRow, suffix: str) -> str:
    """Key of the image of a result."""
    return image_key(
        line_id=row.line_id,
        camera_id=row.camera_id,
        taken=taken_at(row.captured_at, row.finished_at),
        frame_key=row.frame_key,
        suffix=suffix,
    )
