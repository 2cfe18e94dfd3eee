"""Golden rows of results: they use every column."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from schemas.ids import frame_key, result_id
from schemas.results import ResultRow
from schemas.rle import encode_mask

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
CONFIGURATION = "ab" * 32


def rows() -> list[ResultRow]:
    """Three rows that use every column: NotOK with two masks, OK without defects, Failed with nothing inferred."""
    height, width = 60, 80
    ys, xs = np.mgrid[0:height, 0:width]
    disc = (xs - 30) ** 2 + (ys - 20) ** 2 < 100
    ring = ((xs - 55) ** 2 + (ys - 40) ** 2 < 180) & ((xs - 55) ** 2 + (ys - 40) ** 2 > 90)
    defects = []
    for slug, score, mask in (("hole", 0.75, disc), ("faulty-imprint", 0.5, ring)):
        at_y, at_x = np.nonzero(mask)
        x, y, w, h = int(at_x.min()), int(at_y.min()), int(np.ptp(at_x)) + 1, int(np.ptp(at_y)) + 1
        defects.append(
            {
                "type": slug,
                "score": score,
                "bbox": [x, y, w, h],
                "area_px": int(mask.sum()),
                "area_mm2": float(mask.sum()) * 0.25,
                "area_fraction": float(mask.mean()),
                "centroid": [float(at_x.mean()), float(at_y.mean())],
                "mask": encode_mask(mask[y : y + h, x : x + w], (x, y), (height, width)),
            }
        )
    base: dict[str, Any] = {
        "station_id": "station-7",
        "line_id": "line-1",
        "product_id": "bottle",
        "started_at": WHEN + timedelta(milliseconds=40),
        "finished_at": WHEN + timedelta(milliseconds=95),
        "configuration_hash": CONFIGURATION,
    }
    found = []
    for number, (state, evaluation) in enumerate(
        (("Completed", "NotOK"), ("Completed", "OK"), ("Failed", "Undefined"))
    ):
        key = frame_key("camera/1", f"frame-{number}")
        found.append(
            ResultRow(
                **base,
                result_id=result_id(key, CONFIGURATION),
                frame_key=key,
                frame_id=f"frame-{number}",
                camera_id="camera-1",
                part_id=f"part-{number}",
                job_id="job-3" if number == 0 else None,
                recipe_id="recipe-1" if number == 0 else None,
                sequence=41 + number,
                captured_at=WHEN,
                deadline_ms=250.0 if number == 0 else None,
                is_late=False if number == 0 else None,
                result_state=state,
                evaluation=evaluation,
                reason_code="not-an-image" if state == "Failed" else None,
                reason="The content is no image. Grüße, 検査." if state == "Failed" else None,
                is_simulated=number == 1,
                anomaly_score=None if state == "Failed" else (0.75, 0.125)[number],
                threshold_ok=0.25,
                threshold_notok=0.5,
                defects=tuple(defects) if number == 0 else (),
                image_uri="s3://frames/line-1/camera-1/frame-0.png" if number == 0 else None,
                image_sha256="cd" * 32,
                image_width=width,
                image_height=height,
                frames_partition=2,
                frames_offset=2**40 + number,
                model_version="dapo-tiny",
                prompt_version="bottle.pack",
                decode_ms=1.5,
                infer_ms=20.25,
                judge_ms=0.75,
            )
        )
    return found
