"""The result row: one per frame, names after OPC UA 40100-1 and 40001-101."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from schemas.columns import MASK, TIME, Contract, column

VERSION = 1
EVALUATIONS = ("OK", "NotOK", "NotDecidable", "Undefined")

DEFECT_FIELDS = [
    pa.field("type", pa.utf8(), nullable=False),
    pa.field("score", pa.float32(), nullable=False),
    pa.field("bbox", pa.list_(pa.int32()), nullable=False),
    pa.field("area_px", pa.int64(), nullable=False),
    pa.field("area_mm2", pa.float64()),
    pa.field("area_fraction", pa.float64(), nullable=False),
    pa.field("centroid", pa.list_(pa.float64()), nullable=False),
    pa.field("mask", MASK, nullable=False),
]


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One frame's result. Field order is column order; new columns are nullable and come last."""

    result_id: str = column(
        pa.utf8(), "UUIDv5 of frame_key and configuration_hash", null=False, opc="ResultMetaData.ResultId"
    )
    frame_key: str = column(
        pa.utf8(), "UUIDv5 of CloudEvents source and id; drop duplicates by it", null=False
    )
    frame_id: str = column(pa.utf8(), "CloudEvents id of the frame", null=False)
    camera_id: str | None = column(pa.utf8(), "camera")
    station_id: str | None = column(pa.utf8(), "station")
    line_id: str | None = column(pa.utf8(), "line")
    part_id: str | None = column(pa.utf8(), "part; several views share one", opc="ResultMetaData.PartId")
    product_id: str | None = column(pa.utf8(), "product it was judged as", opc="ResultMetaData.ProductId")
    job_id: str | None = column(pa.utf8(), "job", opc="ResultMetaData.JobId")
    recipe_id: str | None = column(pa.utf8(), "recipe", opc="ResultMetaData.ExternalRecipeId")
    sequence: int | None = column(pa.int64(), "number of the frame at its camera; gaps are lost frames")
    captured_at: datetime | None = column(TIME, "when the picture was taken")
    started_at: datetime = column(
        TIME, "when its inspection began", null=False, opc="ProcessingTimes.StartTime"
    )
    finished_at: datetime = column(
        TIME,
        "when its inspection ended",
        null=False,
        opc="ProcessingTimes.EndTime, ResultMetaData.CreationTime",
    )
    deadline_ms: float | None = column(pa.float64(), "promised time from capture to result", unit="ms")
    is_late: bool | None = column(pa.bool_(), "the promise was broken")
    result_state: str = column(
        pa.utf8(),
        "Completed, Aborted (a declared drop) or Failed",
        null=False,
        opc="ResultMetaData.ResultState",
    )
    evaluation: str = column(
        pa.utf8(), "OK, NotOK, NotDecidable or Undefined", null=False, opc="ResultMetaData.ResultEvaluation"
    )
    reason_code: str | None = column(
        pa.utf8(), "why, for machines", opc="ResultMetaData.ResultEvaluationCode"
    )
    reason: str | None = column(pa.utf8(), "why, for people", opc="ResultMetaData.ResultEvaluationDetails")
    is_simulated: bool | None = column(
        pa.bool_(), "the frame came from a simulated line", opc="ResultMetaData.IsSimulated"
    )
    anomaly_score: float | None = column(
        pa.float32(), "0 normal .. 1 anomalous; null where nothing was inferred"
    )
    threshold_ok: float | None = column(pa.float32(), "below it: OK")
    threshold_notok: float | None = column(pa.float32(), "from it on: NotOK")
    defects: tuple[dict[str, Any], ...] | None = column(
        pa.list_(pa.struct(DEFECT_FIELDS)), "regions, worst first", shown="list<defect>"
    )
    image_uri: str | None = column(pa.utf8(), "archived image, where the worker's own policy keeps it")
    image_sha256: str | None = column(pa.utf8(), "SHA-256 of the encoded image as it arrived")
    image_width: int | None = column(pa.int32(), "width of the frame", unit="px")
    image_height: int | None = column(pa.int32(), "height of the frame", unit="px")
    frames_partition: int | None = column(pa.int32(), "partition of the frame on its topic")
    frames_offset: int | None = column(pa.int64(), "offset of the frame on its topic")
    model_version: str | None = column(pa.utf8(), "encoder, by name and hash")
    prompt_version: str | None = column(pa.utf8(), "name or version of the prompt pack")
    configuration_hash: str | None = column(
        pa.utf8(), "SHA-256 of the prompt pack", opc="ResultMetaData.InternalConfigurationId"
    )
    decode_ms: float | None = column(pa.float64(), "time to decode", unit="ms")
    infer_ms: float | None = column(pa.float64(), "time to infer", unit="ms")
    judge_ms: float | None = column(pa.float64(), "time to judge", unit="ms")


CONTRACT = Contract.of(ResultRow, "result", VERSION)
SCHEMA = CONTRACT.schema
