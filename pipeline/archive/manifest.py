"""The manifest: a Parquet dataset beside the images, one row per result whose image is kept.

    manifest/day=2026-01-31/line=l1/results-00003-00000000000000004000-00000000000000005999.parquet

A row is the whole result plus why the image is kept, where it lies, and where the result was read. A file holds what was
kept of one aligned range of offsets of one partition. So its name follows from any row in it, whatever the batches were
before and after a crash; and since rows are merged by `result_id` under the file's etag, a row that is written again is
still there once, and two archivers at once (a rebalance) lose nothing of each other.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.archive.keys import safe_segment, taken_at
from pipeline.archive.policy import Reason
from pipeline.ports import ObjectStore, Stored
from pipeline.store.errors import Conflict, NotFound, StoreError, StoreUnavailable
from schemas.codec import record_batch
from schemas.results import ResultRow

MANIFEST = "manifest"
# Offsets of one file. A batch merges into the whole of it: of 2,000 rows with three masks each 3 MB and 60 ms, which is less
# than the images of the batch cost. Still a line of ten frames a second makes only 432 files a day to open for a query.
RANGE = 2_000
CONTENT_TYPE = "application/vnd.apache.parquet"
_ATTEMPTS = 5  # at one file; a second archiver has it for the moments of a rebalance only
_KEY = re.compile(rf"{MANIFEST}/day=(\d{{4}}-\d{{2}}-\d{{2}})/line=([^/]+)/[^/]+\.parquet")
_OWN_COLUMNS = [
    pa.field("kept_because", pa.utf8(), nullable=False),
    pa.field("object_key", pa.utf8(), nullable=False),
    pa.field("results_partition", pa.int32(), nullable=False),
    pa.field("results_offset", pa.int64(), nullable=False),
]


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

    @property
    def prefix(self) -> str:
        """Of the keys of its files."""
        return f"{MANIFEST}/day={self.day.isoformat()}/line={self.line}/"


def file_key(part: Part, partition: int, offset: int) -> str:
    """Key of the file that holds the result at this offset."""
    first = offset - offset % RANGE
    return f"{part.prefix}results-{partition:05d}-{first:020d}-{first + RANGE - 1:020d}.parquet"


def write(store: ObjectStore, entries: Sequence[Entry]) -> list[str]:
    """Add rows to the manifest; rows that are there already are replaced. Returns the keys of the files.

    Raises:
        StoreUnavailable: some files may have been written; write the same entries again.
        StoreError: see `pipeline.ports.ObjectStore`; or a file is no manifest.
    """
    files: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        files[file_key(Part.of(entry.row), entry.partition, entry.offset)].append(entry)
    for key, those in sorted(files.items()):
        _merge_into(store, key, table_of(those))
    return sorted(files)


def table_of(entries: Sequence[Entry]) -> pa.Table:
    """Entries as rows, one per result: the last wins."""
    last = list({entry.row.result_id: entry for entry in entries}.values())
    table = pa.Table.from_batches([record_batch([entry.row for entry in last])])
    own = (
        [entry.reason.value for entry in last],
        [entry.object_key for entry in last],
        [entry.partition for entry in last],
        [entry.offset for entry in last],
    )
    for column, values in zip(_OWN_COLUMNS, own, strict=True):
        table = table.append_column(column, pa.array(values, column.type))
    return table


def parts(store: ObjectStore) -> Iterator[tuple[Part, list[Stored]]]:
    """Every partition of the dataset with its files, oldest day first. Lazy."""
    listed = ((_KEY.fullmatch(stored.key), stored) for stored in store.list(f"{MANIFEST}/"))
    ours = ((Part(date.fromisoformat(found[1]), found[2]), stored) for found, stored in listed if found)
    for part, files in groupby(ours, key=lambda one: one[0]):
        yield part, [stored for _, stored in files]


def read(store: ObjectStore, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of one file, all columns or these.

    Raises:
        NotFound: there is none.
        StoreError: it is no manifest.
    """
    return _decoded(key, store.get(key), columns)


def encode(table: pa.Table) -> bytes:
    """A file's bytes: a function of its rows alone, in whatever pieces they came."""
    ordered = table.sort_by([("results_partition", "ascending"), ("results_offset", "ascending")])
    file = io.BytesIO()
    # Without Arrow's own schema, which would tell a column that was read from one that was made.
    pq.write_table(ordered.combine_chunks(), file, compression="zstd", store_schema=False)
    return file.getvalue()


def _merge_into(store: ObjectStore, key: str, new: pa.Table) -> None:
    for _ in range(_ATTEMPTS):
        try:
            etag = store.stat(key).etag
            old = read(store, key)
        except NotFound:
            etag, old = "", None
        merged = new if old is None else _merged(old, new)
        if old is not None and merged.equals(old):
            return
        try:
            if old is None:
                store.put_if_absent(key, encode(merged), content_type=CONTENT_TYPE)
            else:
                store.replace(key, encode(merged), etag, content_type=CONTENT_TYPE)
        except Conflict:
            continue
        return
    raise StoreUnavailable(
        f"{key}: another archiver wrote it {_ATTEMPTS} times meanwhile. Is one started twice?"
    )


def _merged(old: pa.Table, new: pa.Table) -> pa.Table:
    """Both, a row of `new` in place of its old one. Columns that only a newer version knows are kept."""
    kept = old.filter(pc.invert(pc.is_in(old["result_id"], value_set=new["result_id"].combine_chunks())))
    merged = pa.concat_tables([kept, new], promote_options="permissive")
    return merged.sort_by([("results_partition", "ascending"), ("results_offset", "ascending")])


def _decoded(key: str, data: bytes, columns: Sequence[str] | None) -> pa.Table:
    try:
        return pq.read_table(pa.BufferReader(data), columns=None if columns is None else list(columns))
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise StoreError(f"{key}: no Parquet file of the manifest ({error}). Move it elsewhere.") from error
