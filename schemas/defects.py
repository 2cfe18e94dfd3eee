"""The defect row: one per defect region, on the topic of its type. The same ids as its result row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from schemas.columns import TIME, Contract, column
from schemas.results import DEFECT_FIELDS, VERSION, ResultRow


@dataclass(frozen=True, kw_only=True)
class DefectRow:
    """One defect region of one frame."""

    result_id: str = column(pa.utf8(), "of its result row", null=False)
    frame_key: str = column(pa.utf8(), "of its result row", null=False)
    frame_id: str = column(pa.utf8(), "of its result row", null=False)
    defect_index: int = column(pa.int32(), "position in the result row's `defects`", null=False)
    camera_id: str | None = column(pa.utf8(), "camera")
    station_id: str | None = column(pa.utf8(), "station")
    line_id: str | None = column(pa.utf8(), "line")
    part_id: str | None = column(pa.utf8(), "part")
    product_id: str | None = column(pa.utf8(), "product")
    job_id: str | None = column(pa.utf8(), "job")
    sequence: int | None = column(pa.int64(), "number of the frame at its camera")
    captured_at: Any = column(TIME, "when the picture was taken")
    evaluation: str = column(pa.utf8(), "of the frame: NotOK, NotDecidable or Undefined", null=False)
    anomaly_score: float | None = column(pa.float32(), "of the frame")
    defect: dict[str, Any] = column(
        pa.struct(DEFECT_FIELDS), "the region, as in `defects`", null=False, shown="defect"
    )
    image_uri: str | None = column(pa.utf8(), "archived image")
    image_width: int | None = column(pa.int32(), "width of the frame", unit="px")
    image_height: int | None = column(pa.int32(), "height of the frame", unit="px")
    configuration_hash: str | None = column(pa.utf8(), "SHA-256 of the prompt pack")


CONTRACT = Contract.of(DefectRow, "defect", VERSION)  # evolves with the result row
_SHARED = [f.name for f in fields(DefectRow) if f.name not in ("defect", "defect_index")]


def defect_rows(result: ResultRow) -> Iterator[DefectRow]:
    """One row per defect of a result."""
    shared = {name: getattr(result, name) for name in _SHARED}
    for index, defect in enumerate(result.defects or ()):
        yield DefectRow(defect=defect, defect_index=index, **shared)
