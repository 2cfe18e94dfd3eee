"""Rows to self-contained Arrow IPC streams and back.

Readers select by name: a newer writer's extra nullable columns (at the end of the row, or of the struct in `defects`) are
ignored, an older writer's missing nullable columns read as None.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.ipc

from schemas import defects, results
from schemas.defects import DefectRow
from schemas.results import ResultRow
from schemas.rle import encode_mask

CONTENT_TYPE = "application/vnd.apache.arrow.stream"
MAX_BYTES = 64 * 2**20  # a row with 32 masks of a 12 MP frame stays under 1 MB
Row = TypeVar("Row", ResultRow, DefectRow)


class SchemaError(ValueError):
    """Bytes that are not rows of this contract; the message says why."""


def dataschema(row: type[ResultRow] | type[DefectRow]) -> str:
    """Value of the CloudEvents header `ce_dataschema`."""
    return f"urn:dapo-inspection:{'result' if row is ResultRow else 'defect'}:{results.VERSION}"


def schema(row: type[ResultRow] | type[DefectRow]) -> pa.Schema:
    """Arrow schema of a row class."""
    return results.SCHEMA if row is ResultRow else defects.SCHEMA


def encode(rows: Sequence[ResultRow] | Sequence[DefectRow]) -> bytes:
    """One or more rows of one kind as an Arrow IPC stream, without IPC compression (every client decodes it).

    Raises:
        SchemaError: no rows, or a value does not fit its column.
    """
    if not rows:
        raise SchemaError("no rows to encode")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema(type(rows[0]))) as writer:
        writer.write_batch(record_batch(rows))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def record_batch(rows: Sequence[ResultRow] | Sequence[DefectRow]) -> pa.RecordBatch:
    """Rows of one kind as one record batch.

    Raises:
        SchemaError: a value does not fit its column.
    """
    wanted = schema(type(rows[0]))
    try:
        # Not from_pylist: it would fill a missing required value with null and say nothing.
        columns = [
            pa.array([getattr(row, name) for row in rows], wanted.field(name).type) for name in wanted.names
        ]
        batch = pa.record_batch(columns, schema=wanted)
        batch.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise SchemaError(f"a value does not fit its column: {error}") from error
    for name in wanted.names:
        if not wanted.field(name).nullable and batch.column(name).null_count:
            raise SchemaError(f"column {name}: must have a value in every row")
    return batch


def decode_results(data: bytes) -> list[ResultRow]:
    """An Arrow IPC stream -> result rows.

    Raises:
        SchemaError: not a stream of result rows.
    """
    return _decode(data, ResultRow)


def decode_defects(data: bytes) -> list[DefectRow]:
    """An Arrow IPC stream -> defect rows.

    Raises:
        SchemaError: not a stream of defect rows.
    """
    return _decode(data, DefectRow)


def _decode(data: bytes, row: type[Row]) -> list[Row]:
    if len(data) > MAX_BYTES:
        raise SchemaError(f"{len(data)} bytes; the limit is {MAX_BYTES}")
    try:
        with pa.ipc.open_stream(data) as reader:
            table = reader.read_all()
            table.validate(full=True)
            return list(rows_of(table.to_batches(), row))
    except (
        pa.ArrowInvalid,
        pa.ArrowTypeError,
        pa.ArrowKeyError,
        OSError,
        OverflowError,
        UnicodeDecodeError,
    ) as error:
        raise SchemaError(f"not an Arrow IPC stream of this contract: {error}") from error


def rows_of(batches: Iterable[pa.RecordBatch], row: type[Row]) -> Iterable[Row]:
    """Rows of record batches, columns selected by name.

    Raises:
        SchemaError: a required column is missing or has another type.
    """
    for batch in batches:
        present = set(batch.schema.names)
        for f in fields(row):
            if f.name not in present and not f.metadata["null"]:
                raise SchemaError(f"column {f.name}: missing; these are not rows of {dataschema(row)}")
        names = [f.name for f in fields(row) if f.name in present]
        for values in batch.select(names).to_pylist():
            yield row(**{name: _value(name, value) for name, value in values.items()})


_DEFECT_NAMES = [f.name for f in results.DEFECT_FIELDS]


def _value(name: str, value: Any) -> Any:
    if name == "defects" and value is not None:
        return tuple(_known(defect) for defect in value)
    return _known(value) if name == "defect" and value is not None else value


def _known(defect: dict[str, Any]) -> dict[str, Any]:
    """A defect with exactly the fields of this version."""
    return {name: defect.get(name) for name in _DEFECT_NAMES}


def defect_struct(defect: Any, width: int, height: int) -> dict[str, Any]:
    """A `dapo.inspection.Defect` as the struct in `defects`, its mask as the frame's run lengths."""
    x, y, w, h = defect.bbox
    return {
        "type": defect.type,
        "score": float(defect.score),
        "bbox": [int(x), int(y), int(w), int(h)],
        "area_px": int(defect.area_px),
        "area_mm2": None if defect.area_mm2 is None else float(defect.area_mm2),
        "area_fraction": float(defect.area_fraction),
        "centroid": [float(v) for v in defect.centroid],
        "mask": encode_mask(defect.mask, (x, y), (height, width)),
    }
