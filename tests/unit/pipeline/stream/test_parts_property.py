"""Each part has exactly one verdict, whatever comes in between."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.ids import frame_key
from tests.unit.pipeline.stream.parts_line import RESULTS, TIMEOUT, Line, result

PARTS_SENT, VIEWS = 5, 3
_PART = st.integers(0, PARTS_SENT - 1)
STEP = st.one_of(
    st.tuples(st.just("view"), _PART, st.integers(0, VIEWS - 1)),
    st.tuples(st.just("all views"), _PART),
    st.sampled_from([("turn",), ("turn",), ("kill",), ("undone",), ("in doubt",), ("rebalance",)]),
    st.tuples(st.just("wait"), st.sampled_from([1.0, TIMEOUT])),
)


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(STEP, min_size=8, max_size=60), one_camera=st.booleans(), patient=st.booleans())
def test_each_part_has_exactly_one_verdict_whatever_happens_in_between(steps, one_camera, patient):
    """Views in any order, over any partitions, some twice; kills, undone and doubtful commits, rebalances, time."""
    line = Line(partitions=3)
    sent: set[tuple[int, int]] = set()
    for step in steps:
        match step:
            case ("view", part, view):
                _send(line, sent, part, [view], one_camera)
            case ("all views", part):
                _send(line, sent, part, range(VIEWS), one_camera)
            case ("turn",):
                line.parts.turn()
            case ("kill",):
                line.kill()
            case ("undone",):
                line.log.failing = 1
            case ("in doubt",):
                line.log.carried_out = 1
            case ("rebalance",):
                line.broker.share("parts")
            case ("wait", seconds):
                line.clock += min(seconds, 0.9 * (TIMEOUT - line.clock)) if patient else seconds
        _check(line, sent)
    line.turns(6)
    if (
        line.clock < TIMEOUT
    ):  # nothing was late, so each part that has all its views is told, with all of them
        whole = {f"p{part}" for part, _ in sent if all((part, view) in sent for view in range(VIEWS))}
        assert {row.part_id for row in line.told} == whole
    for _ in range(3):
        line.kill()
        line.turns()
        line.wait(2 * TIMEOUT)
    _check(line, sent)
    assert {row.part_id for row in line.told} == {f"p{part}" for part, _ in sent}
    ends = {at: len(records) for at, records in line.broker.topics.items() if at[0] == RESULTS}
    assert {at: line.broker.offsets[("parts", at)] for at in ends} == ends


def _send(line: Line, sent: set[tuple[int, int]], part: int, views: Iterable[int], one_camera: bool) -> None:
    """A part's views lie in one partition or in several."""
    for view in views:
        line.send(result(f"p{part}", view), VIEWS, key=b"k" if one_camera else None)
        sent.add((part, view))


def _check(line: Line, sent: set[tuple[int, int]]) -> None:
    told = line.told
    assert len({row.part_key for row in told}) == len(told), "a part has two verdicts"
    ours = {frame_key(f"camera-{view}", f"p{part}") for part, view in sent}
    for row in told:
        views = [view["frame_key"] for view in row.views]
        assert len(set(views)) == len(views), "a frame counts twice"
        assert set(views) <= ours
        assert row.views_seen == VIEWS or line.clock >= TIMEOUT, "a view was called missing before its time"
        assert row.evaluation == ("OK" if row.views_seen == VIEWS else "NotDecidable")
