"""Which frames to label next: what is in doubt, what is new, and nothing twice."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dapo.inspection import Evaluation, Verdict
from trainer.label_next import Candidate, Reason, label_next

SURE, NEAR = 0.05, 0.49  # scores far from and near to the threshold of 0.5
NONE = np.zeros((0, 16), np.float32)


def unit(rng, count):
    rows = rng.standard_normal((count, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def verdict(score, evaluation=Evaluation.OK, limits=(0.5, 0.5)):
    return Verdict(evaluation, "", "", score, *limits, ())


def candidates(embeddings, name="a", **said):
    one = verdict(**{"score": SURE, **said})
    return [Candidate(f"{name}-{n:04d}", row, (one,)) for n, row in enumerate(embeddings)]


def around(rng, centre, count, spread=0.01):
    return centre + spread * unit(rng, count)


def keys(found):
    return [one.key for one in found]


def test_copies_are_not_chosen_twice():
    rng = np.random.default_rng(1)
    one, *others = unit(rng, 4)
    many = candidates([one] * 50, "copy", score=NEAR) + candidates(others, "other")
    found = keys(label_next(many, NONE, 20))
    assert sorted(found) == ["copy-0000", "other-0000", "other-0001", "other-0002"]


def test_copies_of_labelled_frames_are_not_chosen_at_all():
    rng = np.random.default_rng(2)
    known = unit(rng, 5)
    many = candidates(known, "known", score=NEAR) + candidates(unit(rng, 3), "new")
    assert {key[:3] for key in keys(label_next(many, known, 8))} == {"new"}


def test_a_doubtful_cluster_does_not_eat_the_budget():
    rng = np.random.default_rng(3)
    [centre] = unit(rng, 1)
    known = unit(rng, 10)
    many = candidates(around(rng, centre, 200), "doubtful", score=NEAR) + candidates(unit(rng, 60), "sure")
    found = label_next(many, known, 12)
    assert len(found) == 12
    doubtful = [one for one in found if one.key.startswith("doubtful")]
    assert found[0] is doubtful[0]  # the most doubtful frame goes first
    assert len(doubtful) <= 2


def test_half_of_it_is_in_doubt_where_doubtful_frames_differ():
    rng = np.random.default_rng(4)
    many = candidates(unit(rng, 60), "doubtful", score=NEAR) + candidates(unit(rng, 60), "sure")
    found = label_next(many, unit(rng, 10), 12)
    assert sum(one.reason is Reason.UNCERTAIN for one in found) == 6


def test_packs_that_disagree_are_doubt_and_so_is_a_score_near_a_threshold():
    rng = np.random.default_rng(5)
    rows = unit(rng, 40)
    both = [
        Candidate(f"sure-{n:02d}", row, (verdict(SURE + n / 1000), verdict(SURE)))
        for n, row in enumerate(rows)
    ]
    both[7] = Candidate("split", rows[7], (verdict(0.1), verdict(0.9, Evaluation.NOT_OK)))
    both[9] = Candidate("near", rows[9], (verdict(0.499), verdict(SURE)))
    both[11] = Candidate("lost", rows[11], (verdict(float("nan")), verdict(SURE)))
    found = {one.key: one for one in label_next(both, NONE, 10)}
    assert found["split"].reason is Reason.UNCERTAIN
    assert found["split"].said == "the packs disagree: OK and NotOK"
    assert found["near"].said == "score 0.499 is near the threshold 0.500"
    assert [one.reason for one in found.values()].count(Reason.UNCERTAIN) == 2


def test_what_is_unlike_everything_labelled_is_new():
    rng = np.random.default_rng(6)
    centre, other = unit(rng, 2)
    known = around(rng, centre, 50).astype(np.float32)
    many = candidates(around(rng, centre, 50), "usual") + candidates(around(rng, other, 50), "new")
    [first] = label_next(many, known, 1)
    assert first.key.startswith("new")
    assert first.reason is Reason.NOVEL
    assert "the nearest labelled frame has a cosine of" in first.said


def test_without_a_label_the_most_usual_frame_is_first_and_then_what_differs_from_it():
    rng = np.random.default_rng(7)
    centre, other = unit(rng, 2)
    many = candidates(around(rng, centre, 90), "usual") + candidates(around(rng, other, 10), "rare")
    first, second = label_next(many, NONE, 2)
    assert first.key.startswith("usual")
    assert second.key.startswith("rare")
    assert {first.reason, second.reason} == {Reason.DIVERSE}


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 30), st.integers(0, 20))
def test_the_budget_is_filled_whatever_comes_and_the_order_does_not_matter(seed, many, count, labelled):
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, many)
    given = [
        Candidate(f"{n:03d}", row, (verdict(float(score)),))
        for n, (row, score) in enumerate(zip(unit(rng, many), scores, strict=True))
    ]
    known = unit(rng, labelled) if labelled else NONE
    found = label_next(given, known, count)
    assert len(set(keys(found))) == min(many, count)
    random.Random(seed).shuffle(given)
    assert label_next(given, known, count) == found


@pytest.mark.parametrize("count", [0, 5])
def test_nothing_to_choose_from(count):
    assert label_next([], NONE, count) == []
    assert label_next(candidates(unit(np.random.default_rng(8), 3)), NONE, 0) == []
