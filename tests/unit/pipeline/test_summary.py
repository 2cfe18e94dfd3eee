"""The summary counts everything in bounded memory, in any order alike."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from dapo.inspection import Evaluation, ResultState
from pipeline.summary import UNREADABLE_LISTED, WORST_FRAMES, FrameOutcome, RunSummary, summarise


def _completed(number: int, score: float, *types: str) -> FrameOutcome:
    evaluation = Evaluation.NOT_OK if types else Evaluation.OK
    return FrameOutcome(f"{number:05d}", ResultState.COMPLETED, evaluation, "", "", score, types)


def _failed(number: int) -> FrameOutcome:
    return FrameOutcome(str(number), ResultState.FAILED, Evaluation.UNDEFINED, "damaged", "why", math.nan)


def test_types_count_frames_and_regions() -> None:
    outcomes = [_completed(1, 0.9, "hole", "hole", "dent"), _completed(2, 0.8, "dent"), _completed(3, 0.1)]
    summary = summarise(outcomes, RunSummary())
    assert (summary.types["hole"].frames, summary.types["hole"].regions) == (1, 2)
    assert (summary.types["dent"].frames, summary.types["dent"].regions) == (2, 2)
    assert summary.with_defects == 2
    assert summary.evaluations == {"NotOK": 2, "OK": 1}


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=300), st.randoms())
def test_the_worst_do_not_depend_on_the_order(scores: list[float], order: random.Random) -> None:
    outcomes = [_completed(number, score) for number, score in enumerate(scores)]
    shuffled = outcomes.copy()
    order.shuffle(shuffled)
    one, other = summarise(outcomes, RunSummary()), summarise(shuffled, RunSummary())
    scored = [outcome for outcome in outcomes if not math.isnan(outcome.score)]
    assert one.worst == other.worst == sorted(scored, key=lambda o: (-o.score, o.frame_id))[:WORST_FRAMES]
    assert one.histogram == other.histogram
    assert sum(one.histogram) == len(scored)
    assert one.frames == len(outcomes)


def test_scores_fall_into_their_bins() -> None:
    summary = summarise([_completed(1, 0.0), _completed(2, 1.0), _completed(3, 0.505)], RunSummary())
    assert [number for number, count in enumerate(summary.histogram) if count] == [0, 50, 99]


def test_lists_are_bounded_and_counts_are_not() -> None:
    summary = RunSummary()
    for number in range(UNREADABLE_LISTED + 50):
        summary.add(_failed(number))
        summary.add_skipped(f"{number}.txt", ".txt", "no image")
    assert summary.failed == summary.skipped[".txt"] == UNREADABLE_LISTED + 50
    assert len(summary.unreadable) == len(summary.skipped_files) == UNREADABLE_LISTED
    assert summary.reasons["damaged"] == UNREADABLE_LISTED + 50


def test_dropped_frames_are_counted_apart() -> None:
    summary = RunSummary()
    summary.add(FrameOutcome("a", ResultState.ABORTED, Evaluation.UNDEFINED, "late", "too late", math.nan))
    assert (summary.aborted, summary.failed, summary.frames) == (1, 0, 1)


def test_a_summary_without_times_has_no_duration() -> None:
    assert RunSummary().seconds == 0
