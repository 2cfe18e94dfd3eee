"""Labels that people give: checked here, one by one or as a whole file, before the first is written."""

from __future__ import annotations

import csv
import io
import json
import re
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from dapo.errors import SourceError, VocabularyError
from dapo.pack import Pack
from dapo.vocabulary import UNKNOWN_SLUG, nearest
from pipeline.ports import Message
from schemas.codec import CONTENT_TYPE, dataschema, encode
from schemas.labels import GOOD, LabelRow, label_row
from schemas.rle import MaskError, decode_mask, encode_mask

_MAX_FILE = 256 * 2**20  # bytes of an import
_MAX_LABELS = 100_000  # of an import: all are held until the last is checked
_MAX_MASK_BYTES = 64 * 2**20  # of a PNG, or of all its run lengths
_MAX_TEXT = 256  # characters of an author, as of all names in the stream
_MAX_COMMENT = 4000
_FIELDS = ("result_id", "label", "mask", "author", "comment", "labelled_at", "frame_key", "supersedes")
_GREY = ("1", "L", "P", "I;16", "I;16B", "I", "RGB")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class LabelError(SourceError):
    """A label, or a file of them, can't be taken; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Checker:
    """What a label is checked against.

    Args:
        types: slugs that the pack knows.
        max_pixels: of a mask.
    """

    types: Collection[str]
    max_pixels: int = 100_000_000

    @classmethod
    def of(cls, pack: Pack, max_pixels: int) -> Checker:
        """The types of a pack, whatever product they belong to."""
        return cls(tuple(word.slug for word in pack.types), max_pixels)

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
            return read_mask(mask, self.max_pixels)
        size = mask.get("size")
        if isinstance(size, list) and all(isinstance(side, int) for side in size) and len(size) == 2:
            _check_pixels("mask", size[1], size[0], self.max_pixels)
        try:
            if not decode_mask(mask).any():
                raise LabelError("mask: no pixel is set.")
        except MaskError as error:
            raise LabelError(f"mask: {error}") from error
        return {"size": mask["size"], "counts": mask["counts"]}


def read_mask(path: Path, max_pixels: int) -> dict[str, Any]:
    """A PNG as run lengths: every pixel that is not 0 is defect.

    Raises:
        LabelError: it is no such PNG, too large, or empty.
    """
    try:
        if path.stat().st_size > _MAX_MASK_BYTES:
            raise LabelError(f"{path}: has more than {_MAX_MASK_BYTES} bytes. Save it as a grey PNG.")
        with Image.open(io.BytesIO(path.read_bytes()), formats=("PNG",)) as picture:
            _check_pixels(str(path), *picture.size, max_pixels)
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
    set_ = pixels.reshape(*pixels.shape[:2], -1).any(axis=2)
    if not set_.any():
        raise LabelError(f"{path}: no pixel is set: all are 0. Is it the mask?")
    return encode_mask(set_)


def read_labels(path: Path, checker: Checker, imported_at: datetime) -> list[LabelRow]:
    """All labels of a CSV or JSON-lines file, each checked.

    Columns: result_id and label; where wanted mask (a PNG beside the file, or in JSON its run lengths), author, comment,
    labelled_at (RFC 3339), frame_key, supersedes. Labels without a time get `imported_at` and a microsecond a line.

    Raises:
        LabelError: one of them can't be taken: file, line and what to do; none is taken then.
    """
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise LabelError(f"{path}: is neither .csv nor .jsonl.")
    try:
        if path.stat().st_size > _MAX_FILE:
            raise LabelError(f"{path}: has more than {_MAX_FILE} bytes. Split it.")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabelError(f"{path}: can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: is not UTF-8: {error}. Save it as UTF-8.") from error
    entries = _csv(path, text) if path.suffix.lower() == ".csv" else _jsonl(path, text)
    rows: list[LabelRow] = []
    lines: dict[str, int] = {}
    for line, entry in entries:
        try:
            row = _row(entry, path.parent, checker, imported_at + timedelta(microseconds=line))
        except (LabelError, VocabularyError, ValueError) as error:
            raise LabelError(f"{path}:{line}: {error}") from error
        if row.label_id in lines:
            raise LabelError(
                f"{path}:{line}: says the same as line {lines[row.label_id]}: result, label, author and time. "
                "Two defects of one type need times of their own."
            )
        lines[row.label_id] = line
        rows.append(row)
        if len(rows) > _MAX_LABELS:
            raise LabelError(f"{path}:{line}: more than {_MAX_LABELS} labels. Split the file.")
    if not rows:
        raise LabelError(f"{path}: holds no label.")
    return rows


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


def in_force(rows: Iterable[LabelRow]) -> dict[str, LabelRow]:
    """Labels by their id, each once, without those that another one replaces."""
    found = {row.label_id: row for row in rows}
    for row in list(found.values()):
        if row.supersedes is not None:
            found.pop(row.supersedes, None)
    return found


def _row(entry: Mapping[str, Any], folder: Path, checker: Checker, otherwise: datetime) -> LabelRow:
    if unknown := sorted(set(entry) - set(_FIELDS)):
        near = nearest(unknown[0], _FIELDS)
        hint = f" Did you mean '{near}'?" if near else ""
        raise LabelError(f"'{unknown[0]}' is no column of labels.{hint}")
    given = {name: value for name, value in entry.items() if value not in (None, "")}
    for name in ("result_id", "label"):
        if name not in given:
            raise LabelError(f"{name} is missing.")
    for name, value in given.items():
        if not isinstance(value, str) and not (name == "mask" and isinstance(value, dict)):
            raise LabelError(f"{name}: expected text, found {value!r}.")
    mask = given.pop("mask", None)
    when = _time(given.pop("labelled_at")) if "labelled_at" in given else otherwise
    return checker.label(
        given.pop("result_id"),
        given.pop("label"),
        when,
        "import",
        mask=folder / mask if isinstance(mask, str) else mask,
        **given,
    )


def _csv(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for entry in reader:
            if None in entry:
                raise LabelError(f"{path}:{reader.line_num}: has more fields than the first line names.")
            yield reader.line_num, dict(entry)
    except csv.Error as error:
        raise LabelError(f"{path}:{reader.line_num}: {error}.") from error


def _jsonl(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise LabelError(f"{path}:{number}: is no JSON: {error}") from error
        if not isinstance(entry, dict):
            raise LabelError(
                f'{path}:{number}: expected an object, such as {{"result_id": ..., "label": ...}}.'
            )
        yield number, entry


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


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            raise ValueError("no time zone")
        return found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise LabelError(f"labelled_at: '{text[:80]}' is not like 2026-01-31T08:00:00Z ({error}).") from error


def _check_pixels(where: str, width: int, height: int, most: int) -> None:
    if width * height > most:
        raise LabelError(
            f"{where}: {width} x {height} pixels, more than the limit of {most} (run.max_pixels)."
        )
