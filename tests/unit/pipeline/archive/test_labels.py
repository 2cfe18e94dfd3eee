"""The labels table: all that was ever said, whole and once, whatever the batches."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.archive import labels
from pipeline.archive.labels import Entry, file_key
from pipeline.archive.table import RANGE, read
from pipeline.store.errors import StoreError
from pipeline.testing import DAY, MemoryStore
from schemas.codec import schema
from schemas.labels import LabelRow, label_row

KEY = "labels/labels-00000-00000000000000000000-00000000000000001999.parquet"
MASK = {"size": [1, 2], "counts": "11"}


def entry(number: int, offset: int | None = None, **fields: Any) -> Entry:
    fields = {"author": "ann", "mask": MASK, "comment": "a dent", **fields}
    result = fields.pop("result_id", f"r{number}")
    row = label_row(result, "hole", DAY + timedelta(minutes=number), "cli", **fields)
    return Entry(row, 0, number if offset is None else offset)


def test_a_row_is_the_whole_label_and_where_it_was_read() -> None:
    store = MemoryStore()
    assert labels.write(store, [entry(7)]) == [KEY]
    found = read(store, KEY)
    assert found.column_names == [*schema(LabelRow).names, "labels_partition", "labels_offset"]
    assert found.select(["labels_partition", "labels_offset"]).to_pylist() == [
        {"labels_partition": 0, "labels_offset": 7}
    ]
    assert list(labels.rows(store)) == [entry(7).row]


def test_names_follow_from_partition_and_offset() -> None:
    assert file_key(0, 0) == file_key(0, RANGE - 1) == KEY
    assert file_key(3, 4321) == "labels/labels-00003-00000000000000004000-00000000000000005999.parquet"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 5), max_size=6), st.integers(0, 12))
def test_a_crash_and_other_batches_double_nothing(cuts: list[int], crashed: int) -> None:
    """`crashed` labels were written before the crash, all are written again after it, in whatever batches."""
    store, entries = MemoryStore(), [entry(number) for number in range(12)]
    at_once = MemoryStore()
    labels.write(at_once, entries)
    labels.write(store, entries[:crashed])
    rest = list(entries)
    for cut in [*cuts, len(rest)]:
        labels.write(store, rest[:cut])
        rest = rest[cut:]
    assert store.get(KEY) == at_once.get(KEY)


def test_several_labels_of_one_message_are_in_one_order() -> None:
    one, other = MemoryStore(), MemoryStore()
    entries = [entry(number, offset=5) for number in range(4)]
    labels.write(one, entries)
    labels.write(other, entries[::-1])
    assert one.get(KEY) == other.get(KEY)


def test_what_was_replaced_or_taken_back_stays_in_the_table() -> None:
    store = MemoryStore()
    first = entry(1)
    second = entry(2, supersedes=first.row.label_id)
    labels.write(store, [first, second])
    assert list(labels.rows(store)) == [first.row, second.row]


def test_labels_of_some_results_come_with_all_that_replace_another() -> None:
    store = MemoryStore()
    entries = [entry(1), entry(2), entry(3, supersedes=entry(1).row.label_id), entry(4, offset=RANGE)]
    labels.write(store, entries)
    store.put("labels/readme.txt", b"1")
    found = list(labels.rows(store, about={"r1", "r4"}))
    assert [row.result_id for row in found] == ["r1", "r3", "r4"]
    assert list(labels.rows(MemoryStore(), about={"r1"})) == []


def test_masks_and_comments_may_be_left_where_they_are() -> None:
    store = MemoryStore()
    labels.write(store, [entry(1)])
    [row] = labels.rows(store, masks=False)
    assert (row.mask, row.comment) == (None, None)
    assert (row.label, row.author, row.labelled_at) == ("hole", "ann", entry(1).row.labelled_at)


def test_columns_of_a_later_version_stay_and_are_read_over() -> None:
    store = MemoryStore()
    later = labels.table_of([entry(1)]).append_column(pa.field("confidence", pa.float64()), pa.array([0.5]))
    store.put_if_absent(KEY, labels.TABLE.encode(later))
    labels.write(store, [entry(2)])
    assert read(store, KEY)["confidence"].to_pylist() == [0.5, None]
    assert list(labels.rows(store)) == [entry(1).row, entry(2).row]


@pytest.mark.parametrize("data", [b"PAR1 no", None], ids=["no-parquet", "other-columns"])
def test_a_file_that_is_no_table_of_labels_is_named(data: bytes | None) -> None:
    store = MemoryStore()
    other = pa.table({"labels_partition": [0], "labels_offset": [0], "label_id": ["a"]})
    store.put_if_absent(KEY, data or labels.TABLE.encode(other))
    with pytest.raises(StoreError, match=r"1999\.parquet"):
        list(labels.rows(store))
    with pytest.raises(StoreError, match=r"1999\.parquet"):
        list(labels.rows(store, about={"r1"}))
