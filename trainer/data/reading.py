"""Files and fields that others wrote: whatever is in them, what is wrong is a `SourceError` with its place."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from dapo.errors import SourceError

MAX_BYTES = 2 * 2**30  # of a JSON file
MAX_SIDE = 20_000  # px of a frame that masks are drawn for
_MAX_PATH = 1000  # characters that a file may name


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What goes wrong with files in here is told with the path."""
    try:
        yield
    except OSError as error:
        where = path if error.filename is None else error.filename
        raise SourceError(
            f"{where}: can't be read: {error.strerror}. Check the path and its permissions."
        ) from error


def file_version(path: Path) -> str:
    """Path, size and time of change.

    Raises:
        SourceError: the file can't be looked at.
    """
    with readable(path):
        stat = path.stat()
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def is_folder(path: Path) -> bool:
    """Whether it is one.

    Raises:
        SourceError: that can't be told.
    """
    with readable(path):
        return path.is_dir()


def is_file(path: Path) -> bool:
    """Whether it is one.

    Raises:
        SourceError: that can't be told.
    """
    with readable(path):
        return path.is_file()


def below(root: Path, name: object, where: str) -> Path:
    """The file that a list names, in its tree and nowhere else.

    Raises:
        SourceError: it names none, or one outside.
    """
    path = inside(root, name, where)
    if not is_file(path):
        raise SourceError(f"{where}: {path}: no such file.")
    return path


def inside(root: Path, name: object, where: str) -> Path:
    """A path that a list names, whether anything is there or not; see `below`."""
    wrong = not isinstance(name, str) or not name or len(name) > _MAX_PATH or "\0" in name
    if wrong or Path(str(name)).is_absolute() or ".." in Path(str(name)).parts:
        raise SourceError(f"{where}: file name {name!r:.80}: expected a path below {root}.")
    return root / str(name)


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        SourceError: it can't be read, or is not UTF-8.
    """
    with readable(path):
        data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: is not UTF-8 ({error}). Save it as UTF-8.") from error


def read_json(path: Path) -> Any:
    """A JSON document.

    Raises:
        SourceError: it can't be read, is larger than `MAX_BYTES`, or is no JSON.
    """
    with readable(path):
        if path.stat().st_size > MAX_BYTES:
            raise SourceError(f"{path}: has more than {MAX_BYTES} bytes. Split it.")
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: is no JSON: {error}.") from error


def read_rows(
    path: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> list[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with their line numbers, these columns of them.

    Raises:
        SourceError: it can't be read, lacks a column, or is no CSV; names the line.
    """
    reader = csv.DictReader(read_text(path).splitlines(), strict=True)
    rows = []
    try:
        found = reader.fieldnames or []
        if missing := [name for name in columns if name not in found]:
            raise SourceError(
                f"{path}: has no column '{missing[0]}'. Expected {', '.join((*columns, *optional))}."
            )
        for row in reader:
            rows.append((reader.line_num, {name: row.get(name) or "" for name in (*columns, *optional)}))
    except csv.Error as error:
        raise SourceError(f"{path}:{reader.line_num + 1}: {error}.") from error
    return rows


class Fields:
    """An object of a JSON document, whose fields are asked for by kind.

    Args:
        value: what stands there.
        where: its place, for messages.

    Raises:
        SourceError: it is no object.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, Mapping):
            raise SourceError(f"{where}: expected an object, found {value!r:.60}.")
        self._fields, self.where = value, where

    def __contains__(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def raw(self, name: str) -> Any:
        """Whatever stands there; None where nothing does."""
        return self._fields.get(name)

    def text(self, name: str) -> str:
        """A text, or a number as one.

        Raises:
            SourceError: it is missing, empty, or neither.
        """
        value = self._fields.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise self._wrong(name, "a text")
        return str(value)

    def text_or_none(self, name: str) -> str | None:
        """The same where it may be missing."""
        return None if self._fields.get(name) in (None, "") else self.text(name)

    def identity(self, name: str) -> str | int:
        """What entries name each other by.

        Raises:
            SourceError: it is missing, or neither a text nor a whole number.
        """
        value = self._fields.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self._wrong(name, "a text or a whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number.

        Raises:
            SourceError: it is missing and has no default, or is none.
        """
        value = self._fields.get(name, default)
        if not is_number(value):
            raise self._wrong(name, "a number")
        return float(value)

    def side(self, name: str) -> int:
        """A width or height in px.

        Raises:
            SourceError: it is not one of 1 to `MAX_SIDE`.
        """
        value = self.number(name)
        if not 1 <= value <= MAX_SIDE or value != int(value):
            raise self._wrong(name, f"a whole number of 1 to {MAX_SIDE} px")
        return int(value)

    def items(self, name: str, *, missing: bool = False) -> list[Any]:
        """A list.

        Args:
            missing: whether it may be; then it is empty.

        Raises:
            SourceError: it is no list.
        """
        value = self._fields.get(name)
        if value is None and missing:
            return []
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def inner(self, name: str) -> Fields:
        """An object within.

        Raises:
            SourceError: it is none.
        """
        return Fields(self._fields.get(name), f"{self.where}: {name}")

    def product(self, name: str) -> str | None:
        """The name of a product; None where it is missing.

        Raises:
            SourceError: it can't be the name of a file.
        """
        value = self.text_or_none(name)
        return None if value is None else checked_product(value, self.where)

    def day(self, name: str = "day") -> date | None:
        """A date; None where it is missing.

        Raises:
            SourceError: it is none.
        """
        return a_day(self.text_or_none(name), self.where)

    def _wrong(self, name: str, expected: str) -> SourceError:
        return SourceError(
            f"{self.where}: {name}: expected {expected}, found {self._fields.get(name)!r:.60}."
        )


def a_day(text: str | None, where: str) -> date | None:
    """A date as text.

    Raises:
        SourceError: it is none.
    """
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise SourceError(f"{where}: day '{text:.40}' is not like 2026-01-31.") from error


def checked_product(name: str, where: str) -> str:
    """A product's name: it becomes part of file names.

    Raises:
        SourceError: it can't.
    """
    if "/" in name or "\0" in name or name in (".", "..") or len(name.encode()) > 200:
        raise SourceError(f"{where}: product '{name[:80]}' can't be part of a file name. Call it otherwise.")
    return name


def is_number(value: object) -> bool:
    """Whether it is a finite number of a size that pixels have."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < 1e9
        and math.isfinite(value)
    )
