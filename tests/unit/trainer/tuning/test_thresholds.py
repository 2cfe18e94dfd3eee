"""Thresholds keep what was wanted of them, and say how sure that is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dapo.errors import SettingsError
from trainer.tuning.thresholds import Scored, Wanted, find_thresholds

scores = st.lists(st.floats(0, 1, width=32), min_size=5, max_size=60)


def scored(good, bad=(), types=None) -> Scored:
    values = np.array([*good, *bad], float)
    return Scored(
        [str(n) for n in range(len(values))],
        values,
        np.arange(len(values)) >= len(good),
        types or [""] * len(values),
    )


def find(frames: Scored, wanted: Wanted):
    found = find_thresholds(frames, wanted)
    assert found is not None
    return found


@settings(deadline=None, max_examples=40)
@given(scores, scores, st.floats(0.01, 0.3))
def test_the_wanted_rates_are_kept_on_the_frames_at_hand(good, bad, rate) -> None:
    found, _ = find(scored(good, bad), Wanted(false_alarms=rate, misses=rate))
    assert 0 <= found.ok <= found.notok <= 1
    assert found.alarms == sum(s >= found.notok for s in good)
    reached = [s for s in good if s >= found.notok]
    assert len(reached) <= rate * len(good) or found.notok == 1.0
    assert sum(s < found.ok for s in bad) <= rate * len(bad)
    assert found.alarm_bound >= found.alarms / len(good)


def test_a_part_is_as_bad_as_its_worst_frame() -> None:
    frames = Scored(["a", "a", "b"], np.array([0.1, 0.9, 0.2]), np.array([False, False, False]), [""] * 3)
    found, _ = find(frames, Wanted(false_alarms=0.5))
    assert (found.good, found.alarms) == (2, 1)
    assert 0.2 < found.notok < 0.9


def test_what_lies_between_the_thresholds_is_for_a_person() -> None:
    found, _ = find(scored([0.1, 0.2, 0.3, 0.4], [0.25, 0.6, 0.7, 0.8]), Wanted(false_alarms=0.1, misses=0.1))
    assert found.ok == 0.25
    assert 0.4 < found.notok < 0.6
    assert (found.misses, found.caught) == (0, 3)


def test_a_dear_miss_lowers_the_threshold() -> None:
    frames = scored(np.linspace(0, 0.6, 60), np.linspace(0.4, 1, 60))
    cheap, _ = find(frames, Wanted(cost=1, defective=0.5))
    dear, _ = find(frames, Wanted(cost=100, defective=0.5))
    assert dear.notok < cheap.notok
    assert dear.caught > cheap.caught


def test_a_type_may_have_a_rate_of_its_own() -> None:
    types = ["crack", "scratch"] * 20
    frames = scored(np.linspace(0, 0.5, 40), types=types)
    found, own = find(frames, Wanted(false_alarms=0.01, type_false_alarms={"crack": 0.25, "dent": 0.1}))
    assert set(own) == {"crack"}
    assert own["crack"].alarms == 10  # a quarter of all forty good parts
    assert own["crack"].notok < found.notok


def test_the_interval_holds_the_threshold_and_shrinks_with_parts() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for count in (40, 400):
        found, _ = find(scored(rng.uniform(0, 1, count)), Wanted(false_alarms=0.1))
        low, high = found.notok_interval
        assert low <= found.notok <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_without_good_parts_there_is_nothing_to_stand_on() -> None:
    assert find_thresholds(scored([], [0.5, 0.6]), Wanted()) is None
    views = Scored(["a", "a"], np.array([0.1, 0.9]), np.array([False, True]), ["", ""])
    assert find_thresholds(views, Wanted()) is None  # a part with one defective view is no good part


def test_a_type_that_no_good_part_is_taken_for_keeps_the_products_thresholds() -> None:
    frames = scored([0.1, 0.2, 0.3], [0.8, 0.9], ["scratch"] * 3 + ["crack"] * 2)
    _, own = find(frames, Wanted(type_false_alarms={"crack": 0.05}))
    assert own == {}


def test_the_products_figures_are_of_parts_as_they_are_judged() -> None:
    types = ["crack", "scratch"] * 20
    frames = scored(np.linspace(0, 0.5, 40), types=types)
    found, own = find(frames, Wanted(false_alarms=0.01, type_false_alarms={"crack": 0.25}))
    assert found.alarms == own["crack"].alarms == 10
    assert found.alarm_bound > 0.25


@pytest.mark.parametrize(
    "wrong", [{"false_alarms": 0}, {"misses": 1}, {"cost": -1}, {"type_false_alarms": {"crack": 2}}]
)
def test_wrong_wishes_are_named(wrong) -> None:
    with pytest.raises(SettingsError, match="expected a"):
        Wanted(**wrong)
