"""A challenger beside the champion on live frames: what it would have said, and what it costs. Nothing is published.

Each result that the line publishes is joined with its frame by place; the challenger inspects the frame with the same
stages, and both verdicts are compared.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dapo.errors import FrameError, ServiceUnavailable
from dapo.inspection import Evaluation, Verdict
from pipeline.decode import Limits
from pipeline.inspect import Inspector, Preparer
from pipeline.ports import Frame, Infer, Record, Result
from pipeline.stream.frames import REFERENCE, read_frame
from schemas.results import ResultRow

_EVALUATIONS = tuple(one.value for one in Evaluation)
_MAX_CHANGES = 1000  # frames that are named; the table counts all


@dataclass(frozen=True, slots=True)
class Change:
    """A frame of which the two packs say something else."""

    frame_id: str
    camera_id: str | None
    champion: str
    challenger: str
    champion_types: tuple[str, ...]
    challenger_types: tuple[str, ...]


@dataclass(slots=True)
class Agreement:
    """What two packs said of the same frames.

    Attributes:
        table: (champion's evaluation, challenger's) -> frames.
        changes: frames with another evaluation, the first thousand of them.
        types_changed: frames with other types of defects.
        scores: (champion's, challenger's) of each frame.
        champion_ms, challenger_ms: the model's time of each frame.
        skipped: frames that could not be compared, by why.
    """

    table: Counter[tuple[str, str]] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)
    types_changed: int = 0
    scores: list[tuple[float, float]] = field(default_factory=list)
    champion_ms: list[float] = field(default_factory=list)
    challenger_ms: list[float] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def frames(self) -> int:
        """Frames that were compared."""
        return len(self.scores)

    def add(self, row: ResultRow, verdict: Verdict, challenger_ms: float) -> None:
        """Count one frame: the champion's row, with an anomaly score, and the challenger's verdict."""
        assert row.anomaly_score is not None
        said = (row.evaluation, verdict.evaluation.value)
        types = tuple(sorted({defect["type"] for defect in row.defects or ()}))
        own = tuple(sorted({defect.type for defect in verdict.defects}))
        self.table[said] += 1
        self.types_changed += types != own
        self.scores.append((row.anomaly_score, verdict.anomaly_score))
        self.challenger_ms.append(challenger_ms)
        if row.infer_ms is not None:
            self.champion_ms.append(row.infer_ms)
        if said[0] != said[1] and len(self.changes) < _MAX_CHANGES:
            self.changes.append(Change(row.frame_id, row.camera_id, *said, types, own))

    def report(self) -> dict[str, Any]:
        """All of it as plain data; None where nothing can be said."""
        same = sum(count for (one, other), count in self.table.items() if one == other)
        return {
            "frames": self.frames,
            "skipped": dict(sorted(self.skipped.items())),
            "agreement": round(same / self.frames, 4) if self.frames else None,
            "table": {
                one: {other: self.table[one, other] for other in _EVALUATIONS}
                for one in _EVALUATIONS
                if any(self.table[one, other] for other in _EVALUATIONS)
            },
            "changed": [dataclasses.asdict(one) for one in self.changes],
            "types_changed": self.types_changed,
            "rank_correlation": rank_correlation(self.scores),
            "champion_ms": _quantiles(self.champion_ms),
            "challenger_ms": _quantiles(self.challenger_ms),
        }


class Shadow:
    """Compares until it has seen enough.

    Args:
        champion: configuration hash; rows of any other pack are passed over.
        infer: the challenger's model.
        frame: message of a frame by partition and offset; None where it is gone.
        fetch: the image of a frame whose message only says where it lies.
        limits: of frames, checked before decoding.
    """

    def __init__(
        self,
        champion: str,
        infer: Infer,
        frame: Callable[[int, int], Record | None],
        fetch: Callable[[Frame], bytes],
        limits: Limits | None = None,
    ) -> None:
        self.agreement = Agreement()
        self._champion = champion
        self._infer, self._preparer = infer, Preparer(infer, limits)
        self._frame, self._fetch = frame, fetch

    def look(self, rows: Iterable[ResultRow], limit: int | None = None) -> bool:
        """Compare what can be compared of some rows; whether there are `limit` frames by now."""
        for row in rows:
            if limit is not None and self.agreement.frames >= limit:
                return True
            if (why := self._compare(row)) is not None:
                self.agreement.skipped[why] += 1
        return limit is not None and self.agreement.frames >= limit

    def _compare(self, row: ResultRow) -> str | None:
        """Why it could not be compared; None where it was."""
        if row.configuration_hash != self._champion:
            return "other pack"
        if row.anomaly_score is None or row.frames_partition is None or row.frames_offset is None:
            return "not inferred"
        try:
            record = self._frame(row.frames_partition, row.frames_offset)
            if record is None:
                return "frame is gone"
            result = self._inspected(record)
        except FrameError:
            return "image can't be had"
        except ServiceUnavailable:
            return "server away"
        verdict = result.verdict
        if verdict is None or np.isnan(verdict.anomaly_score):
            return "not inferred"
        self.agreement.add(row, verdict, result.infer_ms)
        return None

    def _inspected(self, record: Record) -> Result:
        frame = read_frame(record)
        if frame.error is None and REFERENCE in frame.headers:
            frame = dataclasses.replace(frame, data=self._fetch(frame))
        # One for each frame: a call that fails leaves nothing behind for the next.
        inspector = Inspector(self._infer, live=True)
        [result] = inspector.add(self._preparer.prepare(frame))
        return result


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rho of scores in pairs; None of fewer than two, or where one side is always the same.

    >>> rank_correlation([(0.1, 0.2), (0.2, 0.4), (0.3, 0.9)])
    1.0
    """
    if len(pairs) < 2:
        return None
    one, other = (_ranks(np.array(side)) for side in zip(*pairs, strict=True))
    if not one.std() or not other.std():
        return None
    return round(float(np.corrcoef(one, other)[0, 1]), 4)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


def _quantiles(milliseconds: Sequence[float]) -> dict[str, float] | None:
    if not milliseconds:
        return None
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2)}
