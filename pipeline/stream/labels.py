"""Labels that people give: checked before they are written, since what is on the topic stays there."""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from dapo.errors import DapoError, VocabularyError
from dapo.pack import Pack
from dapo.vocabulary import UNKNOWN_SLUG, nearest
from pipeline.decode import Limits
from pipeline.ports import Message
from schemas.codec import CONTENT_TYPE, dataschema, encode
from schemas.labels import GOOD, LabelRow, label_row
from schemas.rle import MaskError, decode_mask, encode_mask

_MAX_TEXT = 256  # characters of an author, as of all names in the stream
_MAX_COMMENT = 4000
_GREY = ("1", "L", "P", "I;16", "I;16B", "I", "RGB")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # lines and tabs may be


class LabelError(DapoError):
    """A label, or a file of them, can't be taken; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Checker:
    """What a label is checked against.

    Args:
        types: slugs that the pack knows.
        limits: of a mask: those of a frame.
    """

    types: Collection[str]
    limits: Limits = Limits()

    @classmethod
    def of(cls, pack: Pack, limits: Limits) -> Checker:
        """The types of a pack, whatever product they belong to."""
        return cls(tuple(word.slug for word in pack.types), limits)

    def label(
        self,
        result_id: str,
        label: str,
        labelled_at: datetime,
        source: str,
        *,
        mask: Path | Mapping[str, Any] | None = None,
        author: str | None = None,
        comment: str | None = None,
        frame_key: str | None = None,
        supersedes: str | None = None,
    ) -> LabelRow:
        """A label that training can use.

        Args:
            mask: a PNG of the frame's size, or run lengths.

        Raises:
            LabelError: an id is no UUID, a text is too long, or the mask can't be used.
            VocabularyError: the pack knows no such type.
        """
        if label not in (GOOD, UNKNOWN_SLUG) and label not in self.types:
            near = nearest(label, (*self.types, GOOD, UNKNOWN_SLUG))
            hint = f" Did you mean '{near}'?" if near else ""
            raise VocabularyError(
                f"'{label}' is no type of the pack, nor '{GOOD}'.{hint} 'dapo types' lists them."
            )
        if label == GOOD and mask is not None:
            raise LabelError(f"'{GOOD}': a frame without a defect has no mask. Leave the mask out.")
        return label_row(
            _uuid("result_id", result_id),
            label,
            labelled_at,
            source,
            author=_text("author", author, _MAX_TEXT),
            comment=_text("comment", comment, _MAX_COMMENT),
            frame_key=_uuid("frame_key", frame_key) if frame_key else None,
            supersedes=_uuid("supersedes", supersedes) if supersedes else None,
            mask=None if mask is None else self._mask(mask),
        )

    def _mask(self, mask: Path | Mapping[str, Any]) -> Mapping[str, Any]:
        if isinstance(mask, Path):
            return read_mask(mask, self.limits)
        size = mask.get("size")
        if isinstance(size, list) and all(isinstance(side, int) for side in size) and len(size) == 2:
            _check_pixels("mask", size[1], size[0], self.limits)
        if not isinstance(mask.get("counts"), str):
            raise LabelError("mask: expected size [height, width] and counts as text.")
        try:
            drawn = decode_mask(mask)
        except MaskError as error:
            raise LabelError(f"mask: {error}") from error
        if not drawn.any():
            raise LabelError("mask: no pixel is set.")
        return {"size": list(drawn.shape), "counts": mask["counts"]}


def read_mask(path: Path, limits: Limits) -> dict[str, Any]:
    """A PNG as run lengths: every pixel that is not 0 is defect.

    Raises:
        LabelError: it is no such PNG, too large, or empty.
    """
    try:
        if path.stat().st_size > limits.max_bytes:
            raise LabelError(f"{path}: has more than {limits.max_bytes} bytes. Save it as a grey PNG.")
        with Image.open(io.BytesIO(path.read_bytes()), formats=("PNG",)) as picture:
            _check_pixels(str(path), *picture.size, limits)
            if picture.mode not in _GREY:
                raise LabelError(
                    f"{path}: has pixels of kind {picture.mode}, and transparency does not say what is defect. "
                    "Save it as a grey PNG, 0 where the frame is good."
                )
            pixels = np.asarray(picture)
    except UnidentifiedImageError as error:
        raise LabelError(f"{path}: is no PNG. Save the mask as one.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise LabelError(f"{path}: can't be read: {error}") from error
    drawn = (pixels if pixels.ndim == 2 else pixels.max(axis=2)) != 0
    if not drawn.any():
        raise LabelError(f"{path}: no pixel is set: all are 0. Is it the mask?")
    return encode_mask(drawn)


def label_message(row: LabelRow, topic: str) -> Message:
    """The message of a label; all labels of one result keep their order."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": row.label_id,
        "ce_source": f"dapo-inspection/{row.source}",
        "ce_type": "com.dapo-inspection.label",
        "ce_time": row.labelled_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "ce_dataschema": dataschema(LabelRow),
        "content-type": CONTENT_TYPE,
    }
    packed = tuple((name, text.encode()) for name, text in headers.items())
    return Message(topic, row.result_id.encode(), encode([row]), packed)


def _uuid(name: str, text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise LabelError(f"{name}: '{text[:80]}' is no UUID. Copy it from the result.") from error


def _text(name: str, text: str | None, most: int) -> str | None:
    if text is None or not text.strip():
        return None
    if len(text) > most or _CONTROL.search(text):
        raise LabelError(f"{name}: has control characters, or more than {most} characters.")
    return text


def _check_pixels(where: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise LabelError(
            f"{where}: {width} x {height} pixels, more than the limit of {limits.max_pixels} (run.max_pixels)."
        )
