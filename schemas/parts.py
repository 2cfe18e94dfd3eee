"""The part row on `inspection.parts`: one verdict per part, the worst of its views."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from schemas.columns import TIME, Contract, column
from schemas.results import ResultRow

# Worst first. A defect that one view shows is not undone by another view that shows nothing: NotOK beats all. Where a
# view could not be decided somebody has to look, and may find a defect: NotDecidable beats Undefined, where inspection
# worked and nobody has set thresholds yet. OK takes every view: the absence of a defect is known only of what was seen.
WORST_FIRST = ("NotOK", "NotDecidable", "Undefined", "OK")
VIEW_MISSING = "view-missing"  # reason code of a part that waited for a view in vain

VIEW_FIELDS = [
    pa.field("frame_key", pa.utf8(), nullable=False),
    pa.field("camera_id", pa.utf8()),
    pa.field("result_id", pa.utf8(), nullable=False),
    pa.field("evaluation", pa.utf8(), nullable=False),
    pa.field("anomaly_score", pa.float32()),
]


@dataclass(frozen=True, kw_only=True)
class PartRow:
    """One part's verdict."""

    part_key: str = column(
        pa.utf8(),
        "UUIDv5 of line, product, part and job; drop duplicates by it",
        null=False,
        opc="ResultMetaData.ResultId",
    )
    part_id: str = column(pa.utf8(), "part", null=False, opc="ResultMetaData.PartId")
    line_id: str | None = column(pa.utf8(), "line")
    station_id: str | None = column(pa.utf8(), "station; null where its views come from several")
    product_id: str | None = column(pa.utf8(), "product it was judged as", opc="ResultMetaData.ProductId")
    job_id: str | None = column(pa.utf8(), "job", opc="ResultMetaData.JobId")
    evaluation: str = column(
        pa.utf8(),
        "worst of its views: NotOK, NotDecidable, Undefined, OK; a missing view counts as NotDecidable",
        null=False,
        opc="ResultMetaData.ResultEvaluation",
    )
    reason_code: str | None = column(
        pa.utf8(),
        f"why, for machines: {VIEW_MISSING}, or that of the view that decided",
        opc="ResultMetaData.ResultEvaluationCode",
    )
    reason: str | None = column(pa.utf8(), "why, for people", opc="ResultMetaData.ResultEvaluationDetails")
    views_expected: int | None = column(
        pa.int32(), "views the part should have; null where no frame said it", unit="views"
    )
    views_seen: int = column(pa.int32(), "views it had", unit="views", null=False)
    views: tuple[dict[str, Any], ...] = column(
        pa.list_(pa.struct(VIEW_FIELDS)), "its views, in order of capture", null=False, shown="list<view>"
    )
    defect_types: tuple[str, ...] = column(
        pa.list_(pa.utf8()), "types of all its defects, sorted, each once", null=False, shown="list<string>"
    )
    first_captured_at: datetime | None = column(TIME, "when its first picture was taken")
    last_captured_at: datetime | None = column(TIME, "when its last picture was taken")
    finished_at: datetime = column(
        TIME,
        "when its verdict was made",
        null=False,
        opc="ProcessingTimes.EndTime, ResultMetaData.CreationTime",
    )
    is_late: bool | None = column(pa.bool_(), "the promise was broken")
    deadline_ms: float | None = column(
        pa.float64(), "promised time from the last capture to the verdict", unit="ms"
    )
    configuration_hash: str | None = column(
        pa.utf8(),
        "SHA-256 of the prompt pack; null where its views were judged with several",
        opc="ResultMetaData.InternalConfigurationId",
    )


CONTRACT = Contract.of(PartRow, "part", 1)


def view_of(result: ResultRow) -> dict[str, Any]:
    """A result as a view of its part, with the evaluation it counts as there.

    A Failed or Aborted view counts as NotDecidable: its frame was there, and nobody knows what it shows.
    """
    decided = result.result_state == "Completed"
    return {
        "frame_key": result.frame_key,
        "camera_id": result.camera_id,
        "result_id": result.result_id,
        "evaluation": result.evaluation if decided else "NotDecidable",
        "anomaly_score": result.anomaly_score,
    }


def part_evaluation(evaluations: Iterable[str], expected: int | None = None) -> str:
    """The worst evaluation of a part's views.

    Args:
        evaluations: of the views seen, as they count (`view_of`).
        expected: number of views; fewer of them make it NotDecidable, unless one was NotOK. None expects no more.

    Raises:
        ValueError: an evaluation is none of `WORST_FIRST`.

    >>> part_evaluation(["OK", "NotOK", "NotDecidable"], expected=3)
    'NotOK'
    >>> part_evaluation(["OK"], expected=2)
    'NotDecidable'
    """
    seen = list(evaluations)
    if strange := set(seen) - set(WORST_FIRST):
        raise ValueError(f"evaluation {min(strange)}: expected one of {', '.join(WORST_FIRST)}")
    missing = not seen or (expected is not None and len(seen) < expected)
    return min([*seen, *(["NotDecidable"] if missing else [])], key=WORST_FIRST.index)
