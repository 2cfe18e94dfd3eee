"""Rows and frames to archive."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from pipeline.archive.archiver import Item
from schemas.ids import frame_key, result_id
from schemas.results import ResultRow

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
MASK = {"size": [64, 96], "counts": "a12"}
SCRATCH = {
    "type": "scratch",
    "score": 0.5,
    "bbox": [1, 2, 3, 4],
    "area_px": 12,
    "area_mm2": None,
    "area_fraction": 0.25,
    "centroid": [2.5, 4.0],
    "mask": MASK,
}


def image_of(number: int) -> bytes:
    """Bytes that begin like a PNG: nothing here decodes them."""
    return b"\x89PNG\r\n\x1a\n" + str(number).encode()


def make_row(number: int = 0, evaluation: str = "NotOK", **fields: Any) -> ResultRow:
    key = frame_key("memory://test", str(number))
    usual = {
        "result_id": result_id(key, "configuration"),
        "frame_key": key,
        "frame_id": str(number),
        "line_id": "l1",
        "camera_id": "cam-1",
        "captured_at": NOON,
        "started_at": NOON,
        "finished_at": NOON,
        "result_state": "Completed",
        "evaluation": evaluation,
        "anomaly_score": {"OK": 0.1, "NotDecidable": 0.5, "NotOK": 0.9}.get(evaluation),
        "threshold_ok": 0.4,
        "threshold_notok": 0.6,
        "defects": (SCRATCH,) if evaluation == "NotOK" else (),
        "image_sha256": hashlib.sha256(image_of(number)).hexdigest(),
    }
    return ResultRow(**{**usual, **fields})


def make_item(number: int = 0, evaluation: str = "NotOK", **fields: Any) -> Item:
    return Item(make_row(number, evaluation, **fields), image_of(number), partition=0, offset=number)
