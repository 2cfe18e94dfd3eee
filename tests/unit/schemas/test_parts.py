from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.golden import rows
from schemas.parts import WORST_FIRST, part_evaluation, view_of
from schemas.results import EVALUATIONS

evaluations = st.lists(st.sampled_from(EVALUATIONS), min_size=1, max_size=6)


def test_every_evaluation_has_a_place_in_the_order():
    assert sorted(WORST_FIRST) == sorted(EVALUATIONS)


@pytest.mark.parametrize(
    ("worse", "better"),
    [("NotOK", "NotDecidable"), ("NotDecidable", "Undefined"), ("Undefined", "OK")],
)
def test_the_worse_view_decides_whichever_comes_first(worse, better):
    for views in permutations([worse, better, better]):
        assert part_evaluation(views) == worse


@given(evaluations)
def test_a_part_is_ok_only_if_all_its_views_are(views):
    assert (part_evaluation(views) == "OK") == (set(views) == {"OK"})


@given(evaluations, st.sampled_from(EVALUATIONS))
def test_one_more_view_never_makes_a_part_better(views, more):
    assert WORST_FIRST.index(part_evaluation([*views, more])) <= WORST_FIRST.index(part_evaluation(views))


def test_a_missing_view_is_not_decidable_but_undoes_no_defect():
    assert part_evaluation(["OK"], expected=2) == "NotDecidable"
    assert part_evaluation(["Undefined"], expected=2) == "NotDecidable"
    assert part_evaluation(["NotOK"], expected=2) == "NotOK"
    assert part_evaluation(["OK", "OK"], expected=2) == "OK"
    assert part_evaluation(["OK", "OK"], expected=1) == "OK"


def test_a_part_of_which_nothing_was_seen_is_not_ok():
    assert part_evaluation([]) == "NotDecidable"


def test_an_unknown_evaluation_is_refused():
    with pytest.raises(ValueError, match="Perfect"):
        part_evaluation(["OK", "Perfect"])


@pytest.mark.parametrize("state", ["Failed", "Aborted"])
@pytest.mark.parametrize("evaluation", EVALUATIONS)
def test_a_view_that_was_not_inspected_counts_as_not_decidable(state, evaluation):
    view = view_of(replace(rows()[0], result_state=state, evaluation=evaluation))
    assert view["evaluation"] == "NotDecidable"


def test_a_view_carries_what_its_result_says():
    row = rows()[0]
    assert view_of(row) == {
        "frame_key": row.frame_key,
        "camera_id": "camera-1",
        "result_id": row.result_id,
        "evaluation": "NotOK",
        "anomaly_score": 0.75,
    }
