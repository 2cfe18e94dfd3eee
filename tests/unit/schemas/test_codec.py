from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import document, golden, headers, topics
from schemas.codec import (
    SchemaError,
    dataschema,
    decode,
    decode_defects,
    decode_results,
    encode,
    record_batch,
    rows_of,
)
from schemas.defects import DefectRow, defect_rows
from schemas.golden import rows
from schemas.labels import LabelRow
from schemas.parts import PartRow
from schemas.registry import CONTRACTS
from schemas.results import ResultRow
from schemas.status import StatusRow

KINDS = pytest.mark.parametrize("kind", CONTRACTS, ids=lambda kind: kind.__name__)
GOLDEN = {type(some[0]): list(some) for some in golden.files().values()}


def values(kind: pa.DataType) -> st.SearchStrategy:
    """Any value of an Arrow type."""
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries(
            {f.name: values(f.type) | st.none() if f.nullable else values(f.type) for f in kind}
        )
    if pa.types.is_list(kind):
        return st.lists(values(kind.value_type), max_size=3)
    bits = 32 if kind in (pa.int32(), pa.float32()) else 64
    return {
        pa.utf8(): st.text(max_size=20),
        pa.bool_(): st.booleans(),
        pa.int32(): st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1),
        pa.int64(): st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1),
        pa.float32(): st.floats(allow_nan=False, width=bits),
        pa.float64(): st.floats(allow_nan=False, width=bits),
        pa.timestamp("us", tz="UTC"): st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(
            lambda d: d.replace(tzinfo=UTC)
        ),
    }[kind]


def any_rows(kind: type) -> st.SearchStrategy:
    """Rows of a kind with any values in any column, None wherever it may be."""
    columns = {}
    for column in CONTRACTS[kind].schema:
        value = values(column.type)
        value = value.map(tuple) if pa.types.is_list(column.type) else value
        columns[column.name] = value | st.none() if column.nullable else value
    return st.builds(kind, **columns)


@KINDS
@given(data=st.data())
def test_rows_survive_the_round_trip(kind, data):
    some = data.draw(st.lists(any_rows(kind), min_size=1, max_size=3))
    assert decode(encode(some), kind) == some


@KINDS
@given(data=st.data())
def test_the_bytes_are_those_of_arrows_own_writer(kind, data):
    some = data.draw(st.lists(any_rows(kind), min_size=1, max_size=3))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, CONTRACTS[kind].schema) as writer:
        writer.write_batch(record_batch(some))
    assert encode(some) == sink.getvalue().to_pybytes()


@given(st.lists(any_rows(ResultRow), min_size=1, max_size=3))
def test_defect_rows_carry_the_ids_of_their_result(some):
    flat = [row for result in some for row in defect_rows(result)]
    if flat:
        assert decode_defects(encode(flat)) == flat
    assert len(flat) == sum(len(result.defects or ()) for result in some)


@KINDS
@given(data=st.binary(max_size=300))
def test_any_bytes_give_rows_or_a_schema_error(kind, data):
    with pytest.raises(SchemaError):
        decode(data, kind)


@given(st.data())
def test_a_damaged_stream_gives_rows_or_a_schema_error(data):
    stream = bytearray(encode(GOLDEN[PartRow]))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(bytes(stream), PartRow)
    except SchemaError:
        return
    assert all(isinstance(row, PartRow) for row in found)


def test_a_column_of_65_bits_gives_a_schema_error():
    """Arrow has an error of its own for types that it lacks."""
    stream = encode(GOLDEN[StatusRow])
    widths = [at for at in range(len(stream)) if stream[at : at + 4] == b"\x40\0\0\0"]
    said = [_refusal(stream[:at] + b"\x41" + stream[at + 1 :]) for at in widths]
    assert any("more than 64 bits" in text for text in said)


def _refusal(data: bytes) -> str:
    try:
        decode(data, StatusRow)
    except SchemaError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ResultRow, "result"),
        (DefectRow, "defect"),
        (PartRow, "part"),
        (StatusRow, "status"),
        (LabelRow, "label"),
    ],
)
def test_a_stream_names_its_contract(kind, name):
    with pa.ipc.open_stream(encode(GOLDEN[kind])) as reader:
        assert reader.schema.metadata == {b"schema": f"dapo.{name}".encode(), b"version": b"1"}
    assert dataschema(kind) == f"urn:dapo-inspection:{name}:1"


def _rewritten(kind: type, change: Callable[[pa.Table], pa.Table]) -> bytes:
    """The golden rows of a kind as another version would write them."""
    with pa.ipc.open_stream(encode(GOLDEN[kind])) as reader:
        table = change(reader.read_all())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _cast(table: pa.Table, change: Callable[[pa.StructType], pa.StructType]) -> pa.Table:
    """The table with each struct in a column, or in a list, changed; what a value lacks is null there."""
    for at, column in enumerate(table.schema):
        kind = column.type
        if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
            kind = pa.list_(change(kind.value_type))
        elif pa.types.is_struct(kind):
            kind = change(kind)
        values = [_only(kind, value) for value in table.column(at).to_pylist()]
        table = table.set_column(
            at, pa.field(column.name, kind, nullable=column.nullable), pa.array(values, kind)
        )
    return table


def _only(kind: pa.DataType, value: object) -> object:
    if isinstance(value, list) and pa.types.is_struct(kind.value_type):
        return [_only(kind.value_type, item) for item in value]
    return {f.name: value.get(f.name) for f in kind} if isinstance(value, dict) else value


@KINDS
def test_an_old_reader_reads_a_new_file(kind):
    def newer(table: pa.Table) -> pa.Table:
        table = _cast(table, lambda struct: pa.struct([*struct, pa.field("of_later", pa.utf8())]))
        return table.append_column("shift", pa.array(["early"] * len(table)))

    assert decode(_rewritten(kind, newer), kind) == GOLDEN[kind]


@KINDS
def test_a_new_reader_reads_an_old_file(kind):
    """Every column that a version may have added reads as None where an older writer had it not."""
    added = [f.name for f in fields(kind) if f.metadata["null"]]
    found = decode(_rewritten(kind, lambda table: table.drop_columns(added)), kind)
    assert found == [replace(row, **dict.fromkeys(added)) for row in GOLDEN[kind]]


def test_an_old_struct_reads_with_none_for_its_missing_field():
    def older(table: pa.Table) -> pa.Table:
        return _cast(table, lambda struct: pa.struct([f for f in struct if not f.nullable]))

    assert [d["area_mm2"] for d in decode(_rewritten(ResultRow, older), ResultRow)[0].defects] == [None, None]
    views = [view for row in decode(_rewritten(PartRow, older), PartRow) for view in row.views]
    assert [view["camera_id"] for view in views] == [None] * 3


@KINDS
def test_a_missing_required_column_is_named(kind):
    name = next(column.name for column in CONTRACTS[kind].schema if not column.nullable)
    with pytest.raises(SchemaError, match=f"column {name}: missing; .*{dataschema(kind)}"):
        decode(_rewritten(kind, lambda table: table.drop_columns([name])), kind)


def test_a_missing_required_field_of_a_struct_is_named():
    def without(table: pa.Table) -> pa.Table:
        return _cast(table, lambda struct: pa.struct([f for f in struct if f.name != "result_id"]))

    with pytest.raises(SchemaError, match="column views: is list"):
        decode(_rewritten(PartRow, without), PartRow)


def test_a_column_of_another_type_is_named():
    def counted(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("part_id")
        return table.set_column(at, "part_id", pa.array(range(len(table))))

    with pytest.raises(SchemaError, match="column part_id: is int64, expected string"):
        decode(_rewritten(PartRow, counted), PartRow)


def test_a_column_that_is_there_twice_is_named():
    with pytest.raises(SchemaError, match="column label: is there twice"):
        decode(_rewritten(LabelRow, lambda t: t.append_column("label", t.column("label"))), LabelRow)


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (replace(rows()[0], frame_key=None), "frame_key"),
        (replace(GOLDEN[StatusRow][0], state=None), "state"),
        (replace(GOLDEN[PartRow][0], views=None), "views"),
        (
            replace(GOLDEN[PartRow][0], views=({**GOLDEN[PartRow][0].views[0], "result_id": None},)),
            "views.result_id",
        ),
        (replace(GOLDEN[DefectRow][0], defect={}), "defect.type"),
        (replace(GOLDEN[LabelRow][0], labelled_at=None), "labelled_at"),
    ],
)
def test_a_row_without_a_required_value_is_refused(row, column):
    with pytest.raises(SchemaError, match=f"column {column}: must have a value"):
        encode([row])


def test_a_null_in_a_foreign_stream_is_refused():
    """A writer in another language need not check what it writes."""

    def hollow(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("result_id")
        return table.set_column(at, "result_id", pa.array([None] * len(table), pa.utf8()))

    with pytest.raises(SchemaError, match="column result_id: must have a value"):
        decode(_rewritten(LabelRow, hollow), LabelRow)


@pytest.mark.parametrize(
    "other", [{"image_width": "wide"}, {"frame_id": "\ud800"}, {"defects": np.array(["none"], object)}]
)
def test_a_value_that_does_not_fit_is_refused(other):
    with pytest.raises(SchemaError, match="does not fit its column"):
        encode([replace(rows()[0], **other)])


def test_rows_may_come_with_numpy_arrays():
    defects = np.array(rows()[0].defects, object)
    assert encode([replace(rows()[0], defects=defects)]) == encode([rows()[0]])


def test_no_rows_are_refused():
    with pytest.raises(SchemaError, match="no rows"):
        encode([])


def test_rows_of_two_kinds_are_refused():
    with pytest.raises(SchemaError, match="rows of ResultRow and LabelRow"):
        encode([rows()[0], GOLDEN[LabelRow][0]])


def test_rows_of_another_kind_are_not_taken_for_these():
    with pytest.raises(SchemaError, match="these are not rows of urn:dapo-inspection:result:1"):
        decode_results(encode(GOLDEN[StatusRow]))


def test_a_message_too_large_is_refused(monkeypatch):
    monkeypatch.setattr("schemas.codec.MAX_BYTES", 10)
    with pytest.raises(SchemaError, match="the limit is 10"):
        decode_results(encode(rows()))


def test_batches_of_a_file_are_read_one_by_one():
    batch = record_batch(rows())
    assert list(rows_of([batch, batch], ResultRow)) == [*rows(), *rows()]


def test_the_page_of_the_contract_is_current():
    with open("schemas/README.md", encoding="utf-8") as file:
        assert file.read() == document.document(), "run: python -m schemas.document > schemas/README.md"


def test_the_page_says_what_each_column_topic_and_header_means():
    told = [f.metadata["meaning"] for kind in CONTRACTS for f in fields(kind)]
    told += [getattr(topic, f.name) for topic in topics.TOPICS for f in fields(topic)]
    tables = (headers.FRAME_HEADERS, headers.RESULT_HEADERS, headers.DEAD_LETTER_HEADERS)
    told += [header.meaning for table in tables for header in table]
    assert all(text.strip() for text in told)
    assert not [text for text in told if "|" in text]  # it would break the table
    for table in tables:
        assert len({header.name for header in table}) == len(table)
