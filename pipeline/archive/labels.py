"""The labels table: all that people ever said of results, Parquet files beside the manifest. Nothing is ever removed from it.

    labels/labels-00003-00000000000000000000-00000000000000001999.parquet

A row is the whole label and where it was read; how rows come into files says `pipeline.archive.table`. What holds by now
says `schemas.labels.in_force`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.table import Table, read
from pipeline.ports import ObjectStore
from pipeline.store.errors import StoreError
from schemas.codec import record_batch, rows_of, schema
from schemas.labels import LabelRow

LABELS = "labels"
TABLE = Table("labels", "label_id")
_KEY = re.compile(rf"{LABELS}/[^/]+\.parquet")
_LARGE = ("mask", "comment")  # most of a label's bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One row to be.

    Attributes:
        partition, offset: of the label on its topic.
    """

    row: LabelRow
    partition: int
    offset: int


def file_key(partition: int, offset: int) -> str:
    """Key of the file that holds the label at this offset."""
    return f"{LABELS}/{TABLE.file_name(partition, offset)}"


def write(store: ObjectStore, entries: Sequence[Entry]) -> list[str]:
    """Add labels to the table; see `Table.write`."""
    return TABLE.write(store, entries, lambda entry: file_key(entry.partition, entry.offset), table_of)


def table_of(entries: Sequence[Entry]) -> pa.Table:
    """Entries as rows, one per label: the last wins."""
    last = list({entry.row.label_id: entry for entry in entries}.values())
    table = pa.Table.from_batches([record_batch([entry.row for entry in last])])
    return TABLE.placed(table, [entry.partition for entry in last], [entry.offset for entry in last])


def rows(
    store: ObjectStore, *, about: Collection[str] | None = None, masks: bool = True
) -> Iterator[LabelRow]:
    """All labels ever given, file by file; one that was sent again may come again.

    Args:
        about: only labels of these results, and those that replace another one, whatever they are about.
        masks: read masks and comments too; without them they are None.

    Raises:
        StoreUnavailable, StoreError: see `pipeline.ports.ObjectStore`; or a file is no table of labels.
    """
    columns = None if masks else [name for name in schema(LabelRow).names if name not in _LARGE]
    wanted = None if about is None else pa.array(list(about), pa.utf8())
    for file in store.list(f"{LABELS}/"):
        if not _KEY.fullmatch(file.key):
            continue
        table = read(store, file.key, columns)
        try:
            if wanted is not None:
                among = pc.is_in(table["result_id"], value_set=wanted)
                table = table.filter(pc.or_(among, pc.is_valid(table["supersedes"])))
            yield from rows_of(table.to_batches(), LabelRow)
        except (KeyError, ValueError, pa.ArrowException) as error:  # SchemaError is a ValueError
            raise StoreError(f"{file.key}: no labels ({error}). Move it elsewhere.") from error
