"""The manifest: rows whole and once, whatever the batches, and open to columns of later versions."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.archive import manifest
from pipeline.archive.manifest import TABLE, Entry, Part, file_key
from pipeline.archive.policy import Reason
from pipeline.archive.table import RANGE, read
from pipeline.ports import Stored
from pipeline.store.errors import StoreError, StoreUnavailable
from pipeline.testing import MemoryStore
from schemas.results import SCHEMA
from tests.unit.pipeline.archive.rows import NOON, SCRATCH, make_row

KEY = "manifest/day=2026-01-31/line=l1/results-00000-00000000000000000000-00000000000000001999.parquet"


def entry(number: int, offset: int | None = None, **fields: object) -> Entry:
    return Entry(
        make_row(number, **fields),
        Reason.NOT_OK,
        f"frames/{number}.png",
        0,
        number if offset is None else offset,
    )


def table(store: MemoryStore, key: str = KEY) -> pa.Table:
    return read(store, key)


def test_a_row_is_the_whole_result_and_why_and_where() -> None:
    store = MemoryStore()
    assert manifest.write(store, [entry(7)]) == [KEY]
    found = table(store)
    assert found.column_names == [
        *SCHEMA.names,
        "kept_because",
        "object_key",
        "results_partition",
        "results_offset",
    ]
    (row,) = found.to_pylist()
    expected = make_row(7)
    for name in SCHEMA.names:
        value = getattr(expected, name)
        if name == "defects":
            value = [{**SCRATCH}]
        assert row[name] == (pytest.approx(value) if isinstance(value, float) else value), name
    assert (row["kept_because"], row["object_key"], row["results_offset"]) == ("not-ok", "frames/7.png", 7)
    assert found.schema.field("captured_at").type == pa.timestamp("us", tz="UTC")


def test_names_follow_from_day_line_and_offset() -> None:
    part = Part(date(2026, 1, 31), "l1")
    assert file_key(part, 0, 0) == file_key(part, 0, RANGE - 1) == KEY
    assert len({file_key(part, 0, RANGE), file_key(part, 1, 0), KEY}) == 3
    store = MemoryStore()
    night = datetime(2026, 2, 1, tzinfo=UTC)
    keys = manifest.write(
        store, [entry(1), entry(2, captured_at=night), entry(3, line_id="../l2"), entry(4, line_id=None)]
    )
    folders = [key.rsplit("/", 1)[0] for key in keys]
    assert folders[1].startswith("manifest/day=2026-01-31/line=l1")
    assert sorted(folders) == [
        "manifest/day=2026-01-31/line=_",
        "manifest/day=2026-01-31/line=l1",
        "manifest/day=2026-01-31/line=l2__" + folders[2].rsplit("__", 1)[1],
        "manifest/day=2026-02-01/line=l1",
    ]


def test_a_file_is_a_function_of_its_rows() -> None:
    at_once, one_by_one, again = MemoryStore(), MemoryStore(), MemoryStore()
    entries = [entry(number) for number in range(6)]
    manifest.write(at_once, entries)
    for one in entries:
        manifest.write(one_by_one, [one])
    manifest.write(again, entries[3:])
    manifest.write(again, entries)
    assert at_once.get(KEY) == one_by_one.get(KEY) == again.get(KEY)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 5), max_size=6), st.integers(0, 12))
def test_a_crash_and_other_batches_double_nothing(cuts: list[int], crashed: int) -> None:
    """`crashed` rows were written before the crash, all are written again after it, in whatever batches."""
    store, entries = MemoryStore(), [entry(number) for number in range(12)]
    manifest.write(store, entries[:crashed])
    rest = list(entries)
    for cut in [*cuts, len(rest)]:
        manifest.write(store, rest[:cut])
        rest = rest[cut:]
    assert table(store)["results_offset"].to_pylist() == list(range(12))


def test_what_is_there_already_is_not_written_again() -> None:
    store = MemoryStore()
    manifest.write(store, [entry(1), entry(2)])
    written = len([verb for verb, _ in store.calls if verb == "put"])
    manifest.write(store, [entry(2)])
    assert len([verb for verb, _ in store.calls if verb == "put"]) == written


def test_a_result_that_is_read_again_replaces_its_row() -> None:
    store = MemoryStore()
    manifest.write(store, [entry(1), entry(2)])
    manifest.write(store, [entry(1, offset=9, reason="judged again")])
    assert table(store).select(["frame_id", "reason", "results_offset"]).to_pylist() == [
        {"frame_id": "2", "reason": None, "results_offset": 2},
        {"frame_id": "1", "reason": "judged again", "results_offset": 9},
    ]
    manifest.write(store, [entry(1, offset=10), entry(1, offset=11)])
    assert table(store)["results_offset"].to_pylist() == [2, 11]


def test_columns_of_a_later_version_stay() -> None:
    """An older archiver merges into a newer one's file during an upgrade."""
    store = MemoryStore()
    later = manifest.table_of([entry(1)])
    struct = later.schema.field("defects").type.value_type
    newer = pa.list_(pa.struct([*struct, pa.field("depth_mm", pa.float64())]))
    deep = pa.array([[{**SCRATCH, "depth_mm": 0.5}]], newer)
    later = later.set_column(later.column_names.index("defects"), pa.field("defects", newer), deep)
    later = later.append_column(pa.field("operator", pa.utf8()), pa.array(["ann"]))
    store.put_if_absent(KEY, TABLE.encode(later))
    manifest.write(store, [entry(2)])
    found = table(store)
    assert found["operator"].to_pylist() == ["ann", None]
    assert [one[0]["depth_mm"] for one in found["defects"].to_pylist()] == [0.5, None]


class _SlowStore(MemoryStore):
    """Another archiver writes between this one's look at a file and its write, as long as `others` lasts."""

    def __init__(self, others: list[Entry]) -> None:
        super().__init__()
        self.others = others
        self._other_writes = False

    def stat(self, key: str) -> Stored:
        try:
            return super().stat(key)
        finally:
            if self.others and not self._other_writes:
                self._other_writes = True
                manifest.write(self, [self.others.pop()])
                self._other_writes = False


def test_two_archivers_lose_nothing_of_each_other() -> None:
    store = _SlowStore([entry(3), entry(2)])
    manifest.write(store, [entry(1)])
    manifest.write(store, [entry(4)])
    assert table(store)["results_offset"].to_pylist() == [1, 2, 3, 4]


def test_a_file_that_changes_without_end_is_told() -> None:
    busy = _SlowStore([entry(100 + number) for number in range(50)])
    with pytest.raises(StoreUnavailable, match="started twice"):
        manifest.write(busy, [entry(1)])


def test_a_file_that_is_no_parquet_is_named() -> None:
    store = MemoryStore()
    store.put_if_absent(KEY, b"PAR1 no")
    with pytest.raises(StoreError, match=r"1999\.parquet"):
        manifest.write(store, [entry(1)])


def test_partitions_are_listed_with_their_files_and_nothing_else() -> None:
    store = MemoryStore()
    days = [datetime(2026, 1, 30, tzinfo=UTC), NOON]
    entries = [entry(n, offset=n * RANGE, captured_at=days[n % 2], line_id=f"l{n % 3}") for n in range(12)]
    manifest.write(store, entries)
    store.put("manifest/readme.txt", b"1")
    store.put("manifest/day=2026-01-31/line=l1/notes.txt", b"1")
    found = list(manifest.parts(store))
    assert [part for part, _ in found] == sorted({Part.of(one.row) for one in entries})
    assert [len(files) for _, files in found] == [2] * 6


def test_parquet_is_what_every_reader_knows() -> None:
    store = MemoryStore()
    manifest.write(store, [entry(1)])
    file = pq.ParquetFile(pa.BufferReader(store.get(KEY)))
    assert file.metadata.num_rows == 1
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
