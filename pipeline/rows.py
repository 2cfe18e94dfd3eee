"""From a result to its row in the contract, and from both to what the summary counts."""

from __future__ import annotations

import math

import numpy as np

from dapo.inspection import Evaluation, ResultState, Verdict
from pipeline.naming import artifact_name
from pipeline.ports import DROP, Result
from pipeline.summary import FrameOutcome
from schemas.codec import defect_struct
from schemas.ids import frame_key, result_id
from schemas.results import ResultRow

OVERLAYS, MASKS, DEAD_LETTERS = "overlays", "masks", "deadletter"


def to_row(result: Result, *, deadline_ms: float | None = None) -> ResultRow:
    """The result row of one frame, masks as run lengths of the frame.

    Args:
        deadline_ms: promised time from capture to result, where the frame's own header says none.
    """
    frame, verdict, configuration = result.frame, result.verdict, result.configuration
    own, record = frame.headers, frame.record
    deadline = float(own["deadline_ms"]) if "deadline_ms" in own else deadline_ms
    took_ms = (result.finished_at - frame.captured_at).total_seconds() * 1000
    key = frame_key(frame.source, frame.frame_id)
    state, evaluation, code, reason = _said(result)
    score = _float32(verdict.anomaly_score) if verdict is not None else None
    return ResultRow(
        result_id=result_id(key, configuration.hash),
        frame_key=key,
        frame_id=frame.frame_id,
        camera_id=frame.camera_id or None,
        station_id=own.get("station_id"),
        line_id=own.get("line_id"),
        part_id=own.get("part_id"),
        product_id=frame.product_id,
        job_id=own.get("job_id"),
        recipe_id=own.get("recipe_id"),
        sequence=frame.sequence,
        captured_at=frame.captured_at,
        started_at=result.started_at,
        finished_at=result.finished_at,
        deadline_ms=deadline,
        is_late=None if deadline is None else took_ms > deadline,
        result_state=state.value,
        evaluation=evaluation.value,
        reason_code=code or None,
        reason=reason or None,
        anomaly_score=score,
        threshold_ok=verdict.threshold_ok if verdict else None,
        threshold_notok=verdict.threshold_notok if verdict else None,
        defects=_defects(verdict, result.image_width, result.image_height),
        is_simulated=own["is_simulated"] == "true" if "is_simulated" in own else None,
        image_sha256=result.image_sha256 or None,
        image_width=result.image_width or None,
        image_height=result.image_height or None,
        frames_partition=None if record is None else record.partition,
        frames_offset=None if record is None else record.offset,
        model_version=configuration.model,
        prompt_version=configuration.prompts,
        configuration_hash=configuration.hash,
        decode_ms=result.decode_ms,
        infer_ms=result.infer_ms,
        judge_ms=result.judge_ms,
    )


def outcome(result: Result) -> FrameOutcome:
    """What the summary counts of a result."""
    state, evaluation, code, reason = _said(result)
    score = _float32(result.verdict.anomaly_score) if result.verdict is not None else None
    types = tuple(defect.type for defect in result.verdict.defects) if result.verdict else ()
    return _outcome(result.frame.frame_id, state, evaluation, code, reason, score, types)


def outcome_of_row(row: ResultRow) -> FrameOutcome:
    """The same from its row."""
    types = tuple(defect["type"] for defect in row.defects or ())
    state, evaluation = ResultState(row.result_state), Evaluation(row.evaluation)
    return _outcome(
        row.frame_id, state, evaluation, row.reason_code or "", row.reason or "", row.anomaly_score, types
    )


def _outcome(
    frame_id: str,
    state: ResultState,
    evaluation: Evaluation,
    code: str,
    reason: str,
    score: float | None,
    types: tuple[str, ...],
) -> FrameOutcome:
    name = artifact_name(frame_id)
    return FrameOutcome(
        frame_id=frame_id,
        state=state,
        evaluation=evaluation,
        reason_code=code,
        reason=reason,
        score=math.nan if score is None else score,
        types=types,
        overlay=f"{OVERLAYS}/{name}.jpg" if types else "",
        dead_letter=f"{DEAD_LETTERS}/{name}.json" if state is ResultState.FAILED else "",
    )


def _said(result: Result) -> tuple[ResultState, Evaluation, str, str]:
    if result.verdict is not None:
        verdict = result.verdict
        return ResultState.COMPLETED, verdict.evaluation, verdict.reason_code, verdict.reason
    if result.error is None:
        raise ValueError(f"frame {result.frame.frame_id}: a result needs a verdict or an error")
    state = ResultState.ABORTED if result.error[0] == DROP else ResultState.FAILED
    return state, Evaluation.UNDEFINED, result.error[1], result.error[2]


def _float32(score: float) -> float | None:
    """As the row holds it, so that a summary of results and one of rows agree to the last bit."""
    return None if math.isnan(score) else float(np.float32(score))


def _defects(verdict: Verdict | None, width: int, height: int) -> tuple[dict[str, object], ...] | None:
    if verdict is None:
        return None
    return tuple(defect_struct(defect, width, height) for defect in verdict.defects)
