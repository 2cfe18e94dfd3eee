"""Parquet files of what lies on a topic: one file per aligned range of offsets of one partition.

So a file's name follows from any row in it, whatever the batches were before and after a crash; and since rows are merged by
their key under the file's etag, a row that is written again is still there once, and two writers at once (a rebalance) lose
nothing of each other.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.ports import ObjectStore
from pipeline.store.errors import Conflict, NotFound, StoreError, StoreUnavailable

E = TypeVar("E")
# Offsets of one file. A batch merges into the whole of it: of 2,000 rows with three masks each 3 MB and 60 ms, which is less
# than the images of the batch cost. Still a line of ten frames a second makes only 432 files a day to open for a query.
RANGE = 2_000
CONTENT_TYPE = "application/vnd.apache.parquet"
_ATTEMPTS = 5  # at one file; a second writer has it for the moments of a rebalance only


@dataclass(frozen=True, slots=True)
class Table:
    """What sets the files of one table apart.

    Args:
        topic: its rows come from there: "results". Names of files begin with it, and so do the two columns of a row's place.
        key: the column that says which rows are one.
    """

    topic: str
    key: str

    def file_name(self, partition: int, offset: int) -> str:
        """Name of the file that holds the row at this offset."""
        first = offset - offset % RANGE
        return f"{self.topic}-{partition:05d}-{first:020d}-{first + RANGE - 1:020d}.parquet"

    def placed(self, rows: pa.Table, partitions: Sequence[int], offsets: Sequence[int]) -> pa.Table:
        """Rows with where each lies on the topic: int32 and int64, never null."""
        places = (
            (f"{self.topic}_partition", pa.int32(), partitions),
            (f"{self.topic}_offset", pa.int64(), offsets),
        )
        for name, kind, values in places:
            rows = rows.append_column(pa.field(name, kind, nullable=False), pa.array(values, kind))
        return rows

    def write(
        self,
        store: ObjectStore,
        entries: Iterable[E],
        file_of: Callable[[E], str],
        rows_of: Callable[[Sequence[E]], pa.Table],
    ) -> list[str]:
        """Add rows; those that are there already are replaced. Returns the keys of the files.

        Args:
            file_of: key of an entry's file.
            rows_of: entries of one file as rows, no two with one key.

        Raises:
            StoreUnavailable: some files may have been written; write the same entries again.
            StoreError: see `pipeline.ports.ObjectStore`; or a file is none of ours.
        """
        files: dict[str, list[E]] = defaultdict(list)
        for entry in entries:
            files[file_of(entry)].append(entry)
        for key, those in sorted(files.items()):
            self._merge_into(store, key, rows_of(those))
        return sorted(files)

    def encode(self, rows: pa.Table) -> bytes:
        """A file's bytes: a function of its rows alone, in whatever pieces they came."""
        file = io.BytesIO()
        # Without Arrow's own schema, which would tell a column that was read from one that was made.
        pq.write_table(self._ordered(rows).combine_chunks(), file, compression="zstd", store_schema=False)
        return file.getvalue()

    def _merge_into(self, store: ObjectStore, key: str, new: pa.Table) -> None:
        for _ in range(_ATTEMPTS):
            try:
                etag = store.stat(key).etag
                old = read(store, key)
            except NotFound:
                etag, old = "", None
            try:
                merged = new if old is None else self._merged(old, new)
            except (KeyError, pa.ArrowException) as error:
                raise StoreError(
                    f"{key}: holds other columns than ours ({error}). Move it elsewhere."
                ) from error
            if old is not None and merged.equals(old):
                return
            try:
                if old is None:
                    store.put_if_absent(key, self.encode(merged), content_type=CONTENT_TYPE)
                else:
                    store.replace(key, self.encode(merged), etag, content_type=CONTENT_TYPE)
            except Conflict:
                continue
            return
        raise StoreUnavailable(
            f"{key}: another process wrote it {_ATTEMPTS} times meanwhile. Is one started twice?"
        )

    def _merged(self, old: pa.Table, new: pa.Table) -> pa.Table:
        """Both, a row of `new` in place of its old one. Columns that only a newer version knows are kept."""
        kept = old.filter(pc.invert(pc.is_in(old[self.key], value_set=new[self.key].combine_chunks())))
        return self._ordered(pa.concat_tables([kept, new], promote_options="permissive"))

    def _ordered(self, rows: pa.Table) -> pa.Table:
        """By place; a message may hold several rows."""
        names = (f"{self.topic}_partition", f"{self.topic}_offset", self.key)
        return rows.sort_by([(name, "ascending") for name in names])


def read(store: ObjectStore, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of one file, all columns or these.

    Raises:
        NotFound: there is none.
        StoreError: it is none of ours.
    """
    data = store.get(key)
    try:
        return pq.read_table(pa.BufferReader(data), columns=None if columns is None else list(columns))
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise StoreError(f"{key}: no Parquet file of ours ({error}). Move it elsewhere.") from error
