"""Files of labels: CSV or JSON lines, checked as a whole before the first label is written."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dapo.errors import VocabularyError
from dapo.vocabulary import nearest
from pipeline.stream.labels import Checker, LabelError
from schemas.labels import LabelRow

_MAX_BYTES = 256 * 2**20  # of a file
_MAX_LABELS = 100_000  # of a file: all are held until the last is checked
_FIELDS = ("result_id", "label", "mask", "author", "comment", "labelled_at", "frame_key", "supersedes")


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a file.

    Attributes:
        rows: in the order of the file.
        digest: the same for the same file with the same masks, hexadecimal.
    """

    rows: tuple[LabelRow, ...]
    digest: str


def read_labels(path: Path, checker: Checker, imported_at: datetime) -> Labels:
    """All labels of a CSV or JSON-lines file, each checked before the first is given.

    Columns: result_id and label; where wanted mask (a PNG beside the file, or in JSON its run lengths), author, comment,
    labelled_at (RFC 3339), frame_key, supersedes. Labels without a time get `imported_at` and a microsecond a line.

    Raises:
        LabelError: one of them can't be taken: file, line and what to do; none is taken then.
    """
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise LabelError(f"{path}: is neither .csv nor .jsonl.")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise LabelError(f"{path}: has more than {_MAX_BYTES} bytes. Split it.")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabelError(f"{path}: can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: is not UTF-8: {error}. Save it as UTF-8.") from error
    entries = _csv(path, text) if path.suffix.lower() == ".csv" else _jsonl(path, text)
    rows: list[LabelRow] = []
    digest = hashlib.sha256(text.encode())
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
        digest.update(json.dumps(row.mask).encode())  # the picture may change where the file does not
        if len(rows) > _MAX_LABELS:
            raise LabelError(f"{path}:{line}: more than {_MAX_LABELS} labels. Split the file.")
    if not rows:
        raise LabelError(f"{path}: holds no label.")
    return Labels(tuple(rows), digest.hexdigest())


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
        raise LabelError(f"{path}:{reader.reader.line_num}: {error}.") from error


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


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            raise ValueError("no time zone")
        return found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise LabelError(f"labelled_at: '{text[:80]}' is not like 2026-01-31T08:00:00Z ({error}).") from error
