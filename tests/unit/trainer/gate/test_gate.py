"""The gate's statistics against plain loops, and its rules one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dapo.errors import SettingsError
from dapo.inspection import Evaluation
from trainer.evaluation.metrics import auroc as plain_auroc
from trainer.evaluation.metrics import average_precision as plain_ap
from trainer.evaluation.metrics import tally
from trainer.gate.bootstrap import Scores, auroc, average_precision, paired_difference, rate_bounds
from trainer.gate.rules import MAX_USES, Judged, Outcome, Question, Rules, decide
from trainer.gate.simulation import Setting, draw

OK, NOT_OK, OPEN, NONE = Evaluation.OK, Evaluation.NOT_OK, Evaluation.NOT_DECIDABLE, Evaluation.UNDEFINED


@given(st.data())
def test_a_weight_counts_like_so_many_frames(data):
    """Whole weights are frames that are there so often: the metrics of the evaluation, which know no weights, must agree."""
    count = data.draw(st.integers(2, 12))
    scores = np.array(data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count)), float)
    truth = np.array(
        [True, False, *data.draw(st.lists(st.booleans(), min_size=count - 2, max_size=count - 2))]
    )
    weights = np.array(data.draw(st.lists(st.integers(1, 3), min_size=count, max_size=count)))
    repeated = tally(np.repeat(scores, weights), np.repeat(truth, weights))
    assert auroc(scores, truth, weights[None].astype(float))[0] == pytest.approx(plain_auroc(repeated))
    assert average_precision(scores, truth, weights[None].astype(float))[0] == pytest.approx(
        plain_ap(repeated)
    )


def test_the_error_is_that_of_many_tests():
    """The bootstrap's standard error, from one test each, against the spread of the difference over many tests."""
    setting = Setting(0.9, 0.03, 0.5, 0.7, 200)
    rng = np.random.default_rng(1)
    found = [paired_difference([draw(setting, rng)], seed=n, draws=300) for n in range(150)]
    spread = np.std([one.value for one in found])
    assert np.mean([one.error for one in found]) == pytest.approx(spread, rel=0.15)
    assert np.mean([one.value for one in found]) == pytest.approx(0.03, abs=0.006)


def test_views_of_one_part_are_no_further_evidence():
    rng = np.random.default_rng(2)
    one = draw(Setting(0.9, 0.03, 0.5, 0.7, 100), rng)
    views = Scores(*(np.tile(array, 4) for array in (one.parts, one.defective, one.champion, one.challenger)))
    alone, together = paired_difference([one], seed=3), paired_difference([views], seed=3)
    assert together.value == pytest.approx(alone.value)
    assert together.error == pytest.approx(alone.error)
    assert together.parts == alone.parts == 100


def test_too_few_parts_and_broken_scores_are_no_difference():
    few = Scores(np.arange(3), np.array([True, False, False]), np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="two good and two defective"):
        paired_difference([few], seed=1)
    broken = Scores(np.arange(4), np.array([True, True, False, False]), np.full(4, np.nan), np.zeros(4))
    with pytest.raises(ValueError, match="not finite"):
        paired_difference([broken], seed=1)


def test_products_count_alike_and_their_errors_add_up():
    rng = np.random.default_rng(4)
    one, other = draw(Setting(0.9, 0.0, 0.5, 0.5, 60), rng), draw(Setting(0.8, 0.05, 0.5, 0.5, 240), rng)
    first, second = paired_difference([one], seed=5), paired_difference([other], seed=5)
    both = paired_difference([one, other], seed=5)
    assert both.value == pytest.approx((first.value + second.value) / 2)
    assert both.error == pytest.approx(np.hypot(first.error, second.error) / 2, rel=0.1)


def test_the_parts_asked_for_are_enough():
    rng = np.random.default_rng(6)
    small = paired_difference([draw(Setting(0.9, 0.03, 0.5, 0.9, 80), rng)], seed=7)
    needed = small.parts_for(0.03)
    assert needed > 80
    tests = [
        paired_difference([draw(Setting(0.9, 0.03, 0.5, 0.9, needed), rng)], seed=n, draws=300)
        for n in range(60)
    ]
    assert np.mean([one.lower() > 0 for one in tests]) > 0.6


def test_bounds_of_rates():
    assert rate_bounds(0, 150)[0] == 0
    assert rate_bounds(0, 150)[1] == pytest.approx(0.0198, abs=1e-4)
    assert rate_bounds(10, 10)[1] == 1
    assert rate_bounds(5, 10)[0] < 0.5 < rate_bounds(5, 10)[1]


def frames(count=40, *, gain=0.0, champion=0.6, verdict=NOT_OK, good=OK, noise=1.0, word="scratch"):
    """So many good parts and so many defective ones; the challenger tells them apart better by `gain` spreads."""
    rng = np.random.default_rng(8)
    found = []
    for number in range(2 * count):
        defective = number % 2 == 1
        base = rng.normal() * noise + champion * defective
        found.append(
            Judged(
                "lid",
                f"part-{number}",
                defective,
                (word,) if defective and word else (),
                (base, OK),
                (base + gain * defective, verdict if defective else good),
            )
        )
    return found


def finding(decision, rule):
    [one] = [one for one in decision.findings if one.rule == rule]
    return one


def under(frames, change):
    """The same frames, the challenger's score and verdict changed by `change(frame, number)`."""
    return [replace(frame, challenger=change(frame, number)) for number, frame in enumerate(frames)]


class TestTheQuestion:
    def test_a_better_pack_is_promoted(self):
        found = decide(frames(gain=1.0), Question.SUPERIOR)
        assert found.outcome is Outcome.PROMOTE
        assert found.auroc.lower() > 0
        assert "points, surely above +" in finding(found, "better").said

    def test_one_that_is_no_better_is_refused(self):
        found = decide(frames(gain=0.0), Question.SUPERIOR)
        assert found.auroc.value == 0
        assert found.outcome is Outcome.REFUSE

    def test_one_that_may_be_better_needs_more_parts_and_says_how_many(self):
        rng = np.random.default_rng(9)
        shaken = under(frames(20, gain=0.1), lambda f, n: (f.challenger[0] + rng.normal(), NOT_OK))
        found = decide(shaken, Question.SUPERIOR)
        assert found.outcome is Outcome.NOT_DECIDABLE
        assert found.label_more > 0

    def test_a_changed_pack_must_only_be_no_worse(self):
        rng = np.random.default_rng(10)
        little = under(frames(200, champion=3.0), lambda f, n: (f.champion[0] + rng.normal() * 0.05, OK))
        assert decide(little, Question.NOT_INFERIOR).outcome is Outcome.PROMOTE
        worse = frames(gain=-1.0, champion=2.0)
        assert finding(decide(worse, Question.NOT_INFERIOR), "no worse").outcome is Outcome.REFUSE

    def test_the_parts_asked_for_are_those_that_show_what_was_found(self):
        rng = np.random.default_rng(11)
        near = under(frames(40, champion=1.5), lambda f, n: (f.champion[0] + rng.normal() * 0.5, OK))
        found = finding(decide(near, Question.NOT_INFERIOR), "no worse")
        assert found.outcome is Outcome.NOT_DECIDABLE
        assert found.label_more > 40

    def test_two_packs_that_are_right_about_few_parts_are_not_surely_alike(self):
        rng = np.random.default_rng(12)
        both = under(frames(10, champion=99.0), lambda f, n: (f.champion[0] + rng.normal(), OK))
        found = decide(both, Question.NOT_INFERIOR)
        assert (found.auroc.champion, found.auroc.challenger) == (1, 1)
        assert found.outcome is Outcome.NOT_DECIDABLE
        same = under(frames(10, champion=99.0), lambda f, n: f.champion)
        assert decide(same, Question.NOT_INFERIOR).outcome is Outcome.PROMOTE

    def test_too_few_parts_are_told_per_product(self):
        found = decide(frames(4), Question.SUPERIOR)
        assert found.outcome is Outcome.NOT_DECIDABLE
        assert finding(found, "enough parts").said == "lid: 4 good and 4 defective parts; each needs 10"
        assert found.label_more == 12
        assert decide([], Question.SUPERIOR).outcome is Outcome.NOT_DECIDABLE

    def test_a_gain_on_all_is_not_paid_for_by_one(self):
        better = [replace(f, product=f"p{n}") for n in range(6) for f in frames(gain=2.0)]
        worse = [replace(f, product="valve") for f in frames(gain=-3.0, champion=3.0)]
        found = decide([*better, *worse], Question.SUPERIOR)
        assert finding(found, "better").outcome is Outcome.PROMOTE
        assert found.outcome is Outcome.REFUSE
        assert any("valve: -" in one.said and one.outcome is Outcome.REFUSE for one in found.findings)

    def test_a_test_that_was_asked_too_often_decides_nothing(self):
        assert decide(frames(gain=1.0), Question.SUPERIOR, uses=MAX_USES - 1).outcome is Outcome.PROMOTE
        assert decide(frames(gain=1.0), Question.SUPERIOR, uses=MAX_USES).outcome is Outcome.REFUSE

    def test_a_score_that_is_none_promotes_nothing(self):
        broken = under(frames(gain=1.0), lambda f, n: f.challenger if f.defective else (float("nan"), OK))
        found = decide(broken, Question.SUPERIOR)
        assert found.outcome is Outcome.REFUSE
        assert "40 frames have no score" in finding(found, "scores").said

    def test_the_finding_that_decided_is_told(self):
        assert decide(frames(gain=1.0), Question.SUPERIOR).decisive.rule == "better"
        assert decide(frames(verdict=OK), Question.NOT_INFERIOR).decisive.rule == "no worse"
        alarming = decide(frames(gain=1.0, good=NOT_OK), Question.SUPERIOR, Rules(false_alarms=0.05))
        assert alarming.decisive.rule == "false alarms"
        open_ = decide(
            frames(gain=1.0), Question.SUPERIOR, Rules(recall={"crack": 0.9, "dent": 0.5, "*": 0.5})
        )
        assert open_.decisive.said.startswith("dent: 0 parts")
        assert open_.decisive.label_more == open_.label_more


class TestGuards:
    def test_false_alarms_stop_a_better_pack_only_where_they_are_sure(self):
        rules = Rules(false_alarms=0.05)
        assert decide(frames(gain=1.0), Question.SUPERIOR, rules).outcome is Outcome.PROMOTE
        alarming = frames(gain=1.0, good=NOT_OK)
        assert decide(alarming, Question.SUPERIOR, rules).outcome is Outcome.REFUSE
        two = [*alarming[:4], *frames(gain=1.0)[4:]]  # 2 of 40: above the budget's 4 %, and not surely
        assert decide(two, Question.SUPERIOR, Rules(false_alarms=0.04)).outcome is Outcome.PROMOTE
        one = [*alarming[:2], *frames(gain=1.0)[2:]]
        assert decide(one, Question.SUPERIOR, Rules(false_alarms=0.0)).outcome is Outcome.REFUSE

    def test_a_product_can_not_hide_its_false_alarms_behind_others(self):
        quiet = [replace(f, product=f"p{n}") for n in range(9) for f in frames(gain=1.0)]
        loud = [replace(f, product="valve") for f in frames(gain=1.0, good=NOT_OK)]
        assert decide([*quiet, *loud], Question.SUPERIOR, Rules(false_alarms=0.2)).outcome is Outcome.REFUSE

    def test_what_is_not_decidable_is_neither_alarm_nor_hit_and_has_its_budget(self):
        rules = Rules(false_alarms=0.05, recall={"*": 0.5})
        found = decide(frames(gain=1.0, good=OPEN), Question.SUPERIOR, rules)
        assert finding(found, "false alarms").outcome is Outcome.PROMOTE
        found = decide(frames(gain=1.0, verdict=OPEN), Question.SUPERIOR, rules)
        assert finding(found, "recall").outcome is Outcome.REFUSE
        found = decide(frames(gain=1.0, good=OPEN), Question.SUPERIOR, Rules(not_decidable=0.2))
        assert finding(found, "not decidable").outcome is Outcome.REFUSE

    def test_floors_hold_for_all_defects_and_for_each_type_that_is_named(self):
        missed = frames(gain=1.0, verdict=OK)
        assert decide(missed, Question.SUPERIOR, Rules(recall={"*": 0.9})).outcome is Outcome.REFUSE
        assert decide(missed, Question.SUPERIOR, Rules(recall={"scratch": 0.9})).outcome is Outcome.REFUSE
        lenient = Rules(recall={"scratch": 0.01})  # would need 299 parts to be broken
        assert decide(missed, Question.SUPERIOR, lenient).outcome is Outcome.NOT_DECIDABLE
        untyped = frames(gain=1.0, verdict=OK, word="")
        assert decide(untyped, Question.SUPERIOR, Rules(recall={"*": 0.9})).outcome is Outcome.REFUSE

    def test_a_floor_that_no_part_of_the_test_can_break_is_open(self):
        found = decide(frames(gain=1.0), Question.SUPERIOR, Rules(recall={"crack": 0.9}))
        assert found.outcome is Outcome.NOT_DECIDABLE
        assert finding(found, "recall").said == "crack: 0 parts; the floor of 90.0% needs 2 to be judged"
        assert found.label_more == 2

    def test_a_floor_of_all_allows_no_miss(self):
        one = under(frames(gain=1.0), lambda f, n: (f.challenger[0], OK) if n == 1 else f.challenger)
        assert (
            decide(frames(gain=1.0), Question.SUPERIOR, Rules(recall={"*": 1.0})).outcome is Outcome.PROMOTE
        )
        assert decide(one, Question.SUPERIOR, Rules(recall={"*": 1.0})).outcome is Outcome.REFUSE

    def test_a_part_is_as_bad_as_its_worst_view(self):
        views = [
            replace(f, challenger=(f.challenger[0], verdict))
            for f in frames(gain=1.0)
            for verdict in ((OK, NOT_OK) if f.defective else (OK, OK))
        ]
        found = decide(views, Question.SUPERIOR, Rules(recall={"*": 0.9}))
        assert finding(found, "recall").said.startswith("lid: all types: 40 of 40 parts")

    def test_other_verdicts_need_limits_to_be_judged_by(self):
        """The AUROC of a pack with other thresholds is the same, whatever they do."""
        known = [replace(f, champion=(f.champion[0], NOT_OK if f.defective else OK)) for f in frames()]
        silent = under(known, lambda f, n: (f.champion[0], OK))
        found = decide(silent, Question.NOT_INFERIOR)
        assert found.outcome is Outcome.REFUSE
        assert finding(found, "verdicts").said.startswith("40 of 80 parts get another verdict")
        limits = Rules(recall={"*": 0.5}, false_alarms=0.2)
        assert finding(decide(silent, Question.NOT_INFERIOR, limits), "recall").outcome is Outcome.REFUSE
        kept = under(known, lambda f, n: f.champion)
        assert decide(kept, Question.NOT_INFERIOR).outcome is Outcome.PROMOTE
        assert decide(kept, Question.NOT_INFERIOR, limits).outcome is Outcome.PROMOTE

    def test_thresholds_that_get_lost_stop_it(self):
        found = decide(frames(gain=1.0, good=NONE), Question.SUPERIOR)
        assert finding(found, "calibrated").outcome is Outcome.REFUSE
        never = [
            replace(f, champion=(f.champion[0], NONE)) for f in frames(gain=1.0, good=NONE, verdict=NONE)
        ]
        assert decide(never, Question.SUPERIOR).outcome is Outcome.PROMOTE
        assert decide(never, Question.SUPERIOR, Rules(false_alarms=0.05)).outcome is Outcome.REFUSE
        other = replace(
            frames(gain=1.0)[1], challenger=(9.0, NONE)
        )  # one view of a part whose other view is NotOK
        hidden = decide([*frames(gain=1.0), other], Question.SUPERIOR)
        assert finding(hidden, "calibrated").outcome is Outcome.REFUSE


@pytest.mark.parametrize(
    "wrong",
    [{"margin": 0}, {"level": 1.5}, {"recall": {"scratch": 2}}, {"false_alarms": -1}, {"min_parts": 1}],
)
def test_wrong_limits_are_told(wrong):
    with pytest.raises(SettingsError, match="gate: "):
        Rules(**wrong)
