"""The manifest: a Parquet dataset beside the images, one row per result whose image is kept.

    manifest/day=2026-01-31/line=l1/results-00003-00000000000000004000-00000000000000005999.parquet

A row is the whole result plus why the image is kept, where it lies, and where the result was read. How rows come into files
says `pipeline.archive.table`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby

import pyarrow as pa

from pipeline.archive.keys import FRAMES, safe_segment, taken_at
from pipeline.archive.policy import Reason
from pipeline.archive.table import Table
from pipeline.ports import ObjectStore, Stored
from schemas.codec import record_batch
from schemas.results import ResultRow

MANIFEST = "manifest"
TABLE = Table("results", "result_id")
_KEY = re.compile(rf"{MANIFEST}/day=(\d{{4}}-\d{{2}}-\d{{2}})/line=([^/]+)/[^/]+\.parquet")
_IMAGE = re.compile(rf"{FRAMES}/([^/]+)/[^/]+/(\d{{4}})/(\d{{2}})/(\d{{2}})/\d{{2}}/[^/]+")


@dataclass(frozen=True, slots=True)
class Entry:
    """One row to be.

    Attributes:
        object_key: of its image.
        partition, offset: of the result on its topic.
    """

    row: ResultRow
    reason: Reason
    object_key: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A partition of the dataset: a day (UTC, of the pictures) and a line (as `safe_segment` writes it)."""

    day: date
    line: str

    @classmethod
    def of(cls, row: ResultRow) -> Part:
        """Where a result belongs. All results of one image share it, and the folder of the image does."""
        return cls(taken_at(row.captured_at, row.finished_at).date(), safe_segment(row.line_id))

    @classmethod
    def of_image(cls, key: str) -> Part | None:
        """Where the results of an image belong, by its key; None where that is no key of ours."""
        found = _IMAGE.fullmatch(key)
        try:
            return cls(date(int(found[2]), int(found[3]), int(found[4])), found[1]) if found else None
        except ValueError:
            return None

    @property
    def prefix(self) -> str:
        """Of the keys of its files."""
        return f"{MANIFEST}/day={self.day.isoformat()}/line={self.line}/"


def file_key(part: Part, partition: int, offset: int) -> str:
    """Key of the file that holds the result at this offset."""
    return f"{part.prefix}{TABLE.file_name(partition, offset)}"


def write(store: ObjectStore, entries: Sequence[Entry]) -> list[str]:
    """Add rows to the manifest; see `Table.write`."""
    return TABLE.write(
        store, entries, lambda entry: file_key(Part.of(entry.row), entry.partition, entry.offset), table_of
    )


def table_of(entries: Sequence[Entry]) -> pa.Table:
    """Entries as rows, one per result: the last wins."""
    last = list({entry.row.result_id: entry for entry in entries}.values())
    table = pa.Table.from_batches([record_batch([entry.row for entry in last])])
    own = {
        "kept_because": [entry.reason.value for entry in last],
        "object_key": [entry.object_key for entry in last],
    }
    for name, values in own.items():
        table = table.append_column(pa.field(name, pa.utf8(), nullable=False), pa.array(values, pa.utf8()))
    return TABLE.placed(table, [entry.partition for entry in last], [entry.offset for entry in last])


def parts(store: ObjectStore, day: date | None = None) -> Iterator[tuple[Part, list[Stored]]]:
    """Every partition of the dataset, or of a day, with its files, oldest day first. Lazy."""
    prefix = f"{MANIFEST}/" if day is None else f"{MANIFEST}/day={day.isoformat()}/"
    listed = ((_KEY.fullmatch(stored.key), stored) for stored in store.list(prefix))
    ours = ((Part(date.fromisoformat(found[1]), found[2]), stored) for found, stored in listed if found)
    for part, files in groupby(ours, key=lambda one: one[0]):
        yield part, [stored for _, stored in files]
