"""What everything speaks: the head's `Prediction`, the judge's `Verdict` with its `Defect` regions.

Names of states follow OPC UA 40100-1 (machine vision) so that an MES maps one to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class ResultState(StrEnum):
    """What became of a frame (OPC UA 40100-1 ResultState)."""

    COMPLETED = "Completed"
    ABORTED = "Aborted"
    FAILED = "Failed"


class Evaluation(StrEnum):
    """What is said of the part (OPC UA 40001-101 ResultEvaluation)."""

    OK = "OK"
    NOT_OK = "NotOK"
    NOT_DECIDABLE = "NotDecidable"
    UNDEFINED = "Undefined"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the head says of one model input (or of a frame, once its tiles are merged).

    Attributes:
        score: anomaly score in [0, 1].
        map: float16 [G, G] (merged tiles: [Gh, Gw]), anomaly per patch cell in [0, 1].
        type_map: uint16, same shape, index of the likeliest type in the product's own types.
        type_scores: float32 [K], a distribution over the product's own types; empty where it has none.
    """

    score: float
    map: NDArray[np.float16]
    type_map: NDArray[np.uint16]
    type_scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect region of a frame, in frame pixels.

    Attributes:
        type: slug of its type, or "unknown".
        score: in [0, 1], the highest anomaly in the region.
        bbox: x, y, width, height in px.
        area_px: number of mask pixels.
        area_mm2: the same in square millimetres, None where the product has no `mm_per_px`.
        area_fraction: the same as a fraction of the frame.
        centroid: x, y in px.
        mask: bool [h, w], the region inside its bbox.
    """

    type: str
    score: float
    bbox: tuple[int, int, int, int]
    area_px: int
    area_mm2: float | None
    area_fraction: float
    centroid: tuple[float, float]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge says of one frame.

    Attributes:
        evaluation: OK, NotOK, NotDecidable or Undefined.
        reason_code: kebab-case, empty where the evaluation speaks for itself.
        reason: the same for people.
        anomaly_score: in [0, 1]; NaN where nothing was inferred.
        threshold_ok: below it a frame is OK; None where uncalibrated.
        threshold_notok: at or above it a frame is NotOK; None where uncalibrated.
        defects: regions, worst first.
    """

    evaluation: Evaluation
    reason_code: str
    reason: str
    anomaly_score: float
    threshold_ok: float | None
    threshold_notok: float | None
    defects: tuple[Defect, ...]
