from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import document, results
from schemas.codec import SchemaError, dataschema, decode_defects, decode_results, encode, rows_of
from schemas.defects import DefectRow, defect_rows
from schemas.golden import rows
from schemas.ids import frame_key, result_id
from schemas.results import ResultRow

text = st.text(max_size=20)
whole = st.integers(-(2**31), 2**31 - 1)
real = st.floats(allow_nan=False, width=32)
when = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)).map(
    lambda d: d.replace(tzinfo=UTC)
)
defect = st.fixed_dictionaries(
    {
        "type": text,
        "score": real,
        "bbox": st.lists(whole, min_size=4, max_size=4),
        "area_px": whole,
        "area_mm2": st.none() | real,
        "area_fraction": real,
        "centroid": st.lists(real, min_size=2, max_size=2),
        "mask": st.fixed_dictionaries({"size": st.lists(whole, min_size=2, max_size=2), "counts": text}),
    }
)
result_rows = st.builds(
    ResultRow,
    result_id=text,
    frame_key=text,
    frame_id=text,
    sequence=st.none() | whole,
    camera_id=st.none() | text,
    captured_at=st.none() | when,
    started_at=when,
    finished_at=when,
    is_late=st.none() | st.booleans(),
    result_state=st.sampled_from(results.RESULT_STATES),
    evaluation=st.sampled_from(results.EVALUATIONS),
    anomaly_score=st.none() | real,
    defects=st.none() | st.lists(defect, max_size=3).map(tuple),
)


@given(st.lists(result_rows, min_size=1, max_size=4))
def test_rows_survive_the_round_trip(some):
    assert decode_results(encode(some)) == some


@given(st.lists(result_rows, min_size=1, max_size=3))
def test_defect_rows_carry_the_ids_of_their_result(some):
    flat = [row for result in some for row in defect_rows(result)]
    if flat:
        assert decode_defects(encode(flat)) == flat
    assert len(flat) == sum(len(result.defects or ()) for result in some)


@given(st.binary(max_size=300))
def test_any_bytes_give_rows_or_a_schema_error(data):
    with pytest.raises(SchemaError):
        decode_results(data)


def test_a_stream_names_its_contract():
    with pa.ipc.open_stream(encode(rows())) as reader:
        assert reader.schema.metadata == {b"schema": b"dapo.result", b"version": b"1"}
    assert dataschema(ResultRow) == "urn:dapo-inspection:result:1"
    assert dataschema(DefectRow) == "urn:dapo-inspection:defect:1"


def _rewritten(change):
    """The golden rows as another version would write them."""
    with pa.ipc.open_stream(encode(rows())) as reader:
        table = change(reader.read_all())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_an_old_reader_reads_a_new_file():
    def newer(table):
        at = table.schema.get_field_index("defects")
        kind = table.schema.field("defects").type.value_type
        extended = pa.struct([*kind, pa.field("severity", pa.utf8())])
        values = [
            [{**d, "severity": "high"} for d in row or ()] for row in table.column("defects").to_pylist()
        ]
        table = table.set_column(at, "defects", pa.array(values, pa.list_(extended)))
        return table.append_column("shift", pa.array(["early"] * len(table)))

    assert decode_results(_rewritten(newer)) == rows()


def test_a_new_reader_reads_an_old_file():
    """A column this version has and an older writer had not reads as None."""
    without = _rewritten(lambda table: table.drop_columns(["judge_ms", "model_version"]))
    assert decode_results(without) == [replace(row, judge_ms=None, model_version=None) for row in rows()]


def test_an_old_struct_reads_with_none_for_its_missing_field():
    def older(table):
        at = table.schema.get_field_index("defects")
        kind = [f for f in table.schema.field("defects").type.value_type if f.name != "area_mm2"]
        values = [
            [{f.name: d[f.name] for f in kind} for d in row or ()]
            for row in table.column("defects").to_pylist()
        ]
        return table.set_column(at, "defects", pa.array(values, pa.list_(pa.struct(kind))))

    found = decode_results(_rewritten(older))
    assert [d["area_mm2"] for d in found[0].defects] == [None, None]


def test_a_missing_required_column_is_named():
    with pytest.raises(SchemaError, match="column frame_key: missing"):
        decode_results(_rewritten(lambda table: table.drop_columns(["frame_key"])))


def test_a_row_without_a_required_value_is_refused():
    with pytest.raises(SchemaError, match="column frame_key: must have a value"):
        encode([replace(rows()[0], frame_key=None)])


def test_a_value_of_the_wrong_type_is_refused():
    with pytest.raises(SchemaError, match="does not fit its column"):
        encode([replace(rows()[0], image_width="wide")])


def test_no_rows_are_refused():
    with pytest.raises(SchemaError, match="no rows"):
        encode([])


def test_a_message_too_large_is_refused(monkeypatch):
    monkeypatch.setattr("schemas.codec.MAX_BYTES", 10)
    with pytest.raises(SchemaError, match="the limit is 10"):
        decode_results(encode(rows()))


def test_batches_of_a_file_are_read_one_by_one():
    batch = pa.ipc.open_stream(encode(rows())).read_next_batch()
    assert list(rows_of([batch, batch], ResultRow)) == [*rows(), *rows()]


def test_ids_are_stable_and_keep_source_and_id_apart():
    assert frame_key("camera/1", "frame-0") == "66fb3dcd-b09f-5ac4-8194-a11e404b10f2"
    assert uuid.UUID(frame_key("a", "b")).version == 5
    assert frame_key("a", "bc") != frame_key("ab", "c")
    assert result_id("k", "1") != result_id("k", "2")


def test_the_page_of_the_contract_is_current():
    with open("schemas/README.md", encoding="utf-8") as file:
        assert file.read() == document.document(), "run: python -m schemas.document > schemas/README.md"
