"""What a run found, in a few kilobytes however long the run: counters, a histogram, the worst frames.

It is built frame by frame while a run goes on, and again from the Arrow files of a finished or resumed one.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from dapo.inspection import Evaluation, ResultState

HISTOGRAM_BINS = 100
WORST_FRAMES = 200  # what a person looks at in one sitting; a report of 10,000 thumbnails opens on no phone
UNREADABLE_LISTED = (
    500  # each further one is counted only: a folder of a million text files must not fill memory
)


@dataclass(frozen=True, slots=True)
class FrameOutcome:
    """One frame as the summary sees it.

    Attributes:
        state: Completed, Failed or Aborted.
        score: in [0, 1]; NaN where nothing was inferred.
        types: type slug of each defect region, worst region first.
        overlay: relative to the run's folder, "" where there is none.
        dead_letter: relative to the run's folder, "" where there is none.
    """

    frame_id: str
    state: ResultState
    evaluation: Evaluation
    reason_code: str
    reason: str
    score: float
    types: tuple[str, ...] = ()
    overlay: str = ""
    dead_letter: str = ""


@dataclass(slots=True)
class TypeCount:
    """How often one defect type was found."""

    frames: int = 0
    regions: int = 0


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file of a folder that was not taken as a frame, and why."""

    path: str
    reason: str


@dataclass(slots=True)
class RunSummary:
    """Totals of one run.

    Attributes:
        source: as the user gave it.
        product: name of the product all frames were judged as.
        pack_name: file name of the prompt pack; `configuration_hash` is its sha256.
        encoder_name: of the pack's image encoder.
        threshold_ok, threshold_notok: of the product; None where it is uncalibrated.
        calibrated: whether the product's thresholds come from its own good frames.
        frames: results so far; always the sum of `evaluations` and `failed` and `aborted`.
        evaluations: frames per evaluation ("OK", "NotOK", ...), completed frames only.
        with_defects: completed frames with at least one defect region, whatever their evaluation.
        reasons: frames per reason code, of whatever state.
        types: per type slug.
        histogram: counts of `anomaly_score` in 100 equal bins over [0, 1].
        unreadable: the first failed frames; `failed` counts all.
        skipped: files of a folder that were not taken, per suffix; `skipped_files` names the first of them.
        reused: frames taken over from the run that was resumed; counted in all the other numbers too.
        exit_code: of the command; None while it runs.
        interrupted: the run was stopped before the source's end.
    """

    source: str = ""
    product: str = "*"
    pack_name: str = ""
    configuration_hash: str = ""
    encoder_name: str = ""
    threshold_ok: float | None = None
    threshold_notok: float | None = None
    calibrated: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    frames: int = 0
    failed: int = 0
    aborted: int = 0
    evaluations: Counter[str] = field(default_factory=Counter)
    with_defects: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    types: dict[str, TypeCount] = field(default_factory=dict)
    histogram: list[int] = field(default_factory=lambda: [0] * HISTOGRAM_BINS)
    unreadable: list[FrameOutcome] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    skipped_files: list[SkippedFile] = field(default_factory=list)
    reused: int = 0
    exit_code: int | None = None
    interrupted: bool = False
    _worst: list[tuple[float, tuple[int, ...], int, FrameOutcome]] = field(default_factory=list, repr=False)

    def add(self, outcome: FrameOutcome) -> None:
        """Count one frame."""
        self.frames += 1
        if outcome.reason_code:
            self.reasons[outcome.reason_code] += 1
        if outcome.state is not ResultState.COMPLETED:
            self._add_failed(outcome)
            return
        self.evaluations[outcome.evaluation.value] += 1
        self.with_defects += bool(outcome.types)
        for slug in set(outcome.types):
            self.types.setdefault(slug, TypeCount()).frames += 1
        for slug in outcome.types:
            self.types[slug].regions += 1
        if math.isnan(outcome.score):
            return
        self.histogram[min(max(int(outcome.score * HISTOGRAM_BINS), 0), HISTOGRAM_BINS - 1)] += 1
        # Equal scores are ordered by id, so that the list does not depend on the order of arrival. Code points are
        # negated because the heap's smallest is the one to drop: the least bad, and of equals the last by id.
        entry = (outcome.score, tuple(-ord(letter) for letter in outcome.frame_id), -self.frames, outcome)
        if len(self._worst) < WORST_FRAMES:
            heapq.heappush(self._worst, entry)
        elif entry > self._worst[0]:
            heapq.heapreplace(self._worst, entry)

    def add_skipped(self, path: str, suffix: str, reason: str) -> None:
        """Count one file of a folder that is no frame; it is never silently ignored."""
        self.skipped[suffix] += 1
        if len(self.skipped_files) < UNREADABLE_LISTED:
            self.skipped_files.append(SkippedFile(path, reason))

    @property
    def worst(self) -> list[FrameOutcome]:
        """At most 200 frames, highest score first, equal scores by frame id."""
        return sorted((entry[3] for entry in self._worst), key=lambda one: (-one.score, one.frame_id))

    @property
    def seconds(self) -> float:
        """Wall-clock duration so far; 0 where either end is unknown."""
        if self.started_at is None or self.finished_at is None:
            return 0.0
        return (self.finished_at - self.started_at).total_seconds()

    def as_json(self) -> dict[str, Any]:
        """Plain data, for summary.json: everything but the worst frames, which the report shows."""
        return {
            "source": self.source,
            "product": self.product,
            "pack": self.pack_name,
            "configuration_hash": self.configuration_hash,
            "encoder": self.encoder_name,
            "threshold_ok": self.threshold_ok,
            "threshold_notok": self.threshold_notok,
            "calibrated": self.calibrated,
            "started_at": self.started_at.isoformat() if self.started_at else None,
            "finished_at": self.finished_at.isoformat() if self.finished_at else None,
            "frames": self.frames,
            "failed": self.failed,
            "aborted": self.aborted,
            "with_defects": self.with_defects,
            "reused": self.reused,
            "interrupted": self.interrupted,
            "exit_code": self.exit_code,
            "evaluations": dict(sorted(self.evaluations.items())),
            "reasons": dict(sorted(self.reasons.items())),
            "types": {slug: asdict(count) for slug, count in sorted(self.types.items())},
            "histogram": self.histogram,
            "unreadable": [
                {"frame_id": one.frame_id, "code": one.reason_code, "reason": one.reason}
                for one in self.unreadable
            ],
            "skipped": dict(sorted(self.skipped.items())),
            "skipped_files": [asdict(one) for one in self.skipped_files],
        }

    def _add_failed(self, outcome: FrameOutcome) -> None:
        if outcome.state is ResultState.ABORTED:
            self.aborted += 1
            return
        self.failed += 1
        if len(self.unreadable) < UNREADABLE_LISTED:
            self.unreadable.append(outcome)


def summarise(outcomes: Iterable[FrameOutcome], header: RunSummary) -> RunSummary:
    """Count all of `outcomes` into `header`, which names source, product and pack."""
    for outcome in outcomes:
        header.add(outcome)
    return header
