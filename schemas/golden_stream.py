"""Golden rows of what the stream says beside results: beats, part verdicts, labels. They use every column, and every null."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from schemas.golden_results import CONFIGURATION, WHEN
from schemas.ids import frame_key, part_key, result_id
from schemas.labels import LabelRow, label_row
from schemas.parts import VIEW_MISSING, PartRow
from schemas.rle import encode_mask
from schemas.status import StatusRow


def statuses() -> list[StatusRow]:
    """A worker in full run, and one that waits for a model before it has met a line."""
    return [
        StatusRow(
            at=WHEN,
            worker_id="inspect-0",
            line_id="line-1",
            state="running",
            started_at=WHEN - timedelta(days=40),
            frames_in=2**33,
            completed=2**33 - 20,
            failed=7,
            aborted=1,
            late=3,
            gaps=2,
            lost=5,
            in_flight=12,
            lag=345,
            oldest_ms=87.5,
            mode="realtime",
            configuration_hash=CONFIGURATION,
        ),
        StatusRow(
            at=WHEN + timedelta(seconds=1),
            worker_id="inspect-1",
            state="waiting",
            waiting_for="model",
            started_at=WHEN,
            frames_in=0,
            completed=0,
            failed=0,
            aborted=0,
            late=0,
            gaps=0,
            lost=0,
            in_flight=0,
            mode="capacity",
        ),
    ]


def part_verdicts() -> list[PartRow]:
    """A part with a defect in one of two views, and one that lacks a view and all that a sender may leave out."""
    keys = [frame_key(f"camera/{n}", "part-17") for n in (1, 2, 3)]
    scores = (0.75, 0.125, None)
    views = [
        {
            "frame_key": key,
            "camera_id": f"camera-{n}" if n < 3 else None,
            "result_id": result_id(key, CONFIGURATION),
            "evaluation": evaluation,
            "anomaly_score": score,
        }
        for n, key, evaluation, score in zip(
            (1, 2, 3), keys, ("NotOK", "OK", "NotDecidable"), scores, strict=True
        )
    ]
    return [
        PartRow(
            part_key=part_key("line-1", "bottle", "part-17", "job-3"),
            part_id="part-17",
            line_id="line-1",
            station_id="station-7",
            product_id="bottle",
            job_id="job-3",
            evaluation="NotOK",
            views_expected=2,
            views_seen=2,
            views=tuple(views[:2]),
            defect_types=("faulty-imprint", "hole"),
            first_captured_at=WHEN,
            last_captured_at=WHEN + timedelta(milliseconds=30),
            finished_at=WHEN + timedelta(milliseconds=95),
            is_late=False,
            deadline_ms=250.0,
            configuration_hash=CONFIGURATION,
        ),
        PartRow(
            part_key=part_key(None, None, "Teil 18 / 検査", None),
            part_id="Teil 18 / 検査",
            evaluation="NotDecidable",
            reason_code=VIEW_MISSING,
            reason="1 of 2 views came within 5 s.",
            views_expected=2,
            views_seen=1,
            views=tuple(views[2:]),
            defect_types=(),
            finished_at=WHEN + timedelta(seconds=5),
        ),
    ]


def labels() -> list[LabelRow]:
    """A drawn defect, the correction that takes it back, and an imported label of which little is known."""
    key = frame_key("camera/1", "frame-0")
    result = result_id(key, CONFIGURATION)
    mask = np.zeros((60, 80), bool)
    mask[10:20, 30:45] = True
    drawn = label_row(
        result, "faulty-imprint", WHEN, "console", author="zoë", frame_key=key, mask=encode_mask(mask)
    )
    return [
        drawn,
        label_row(
            result,
            "good",
            WHEN + timedelta(minutes=2),
            "cli",
            author="zoë",
            frame_key=key,
            comment="Reflexion, kein Fehler: 反射",
            supersedes=drawn.label_id,
        ),
        label_row(
            result_id(frame_key("camera/1", "frame-2"), CONFIGURATION),
            "unknown",
            datetime(1999, 12, 31, tzinfo=UTC),
            "import",
        ),
    ]
