"""Splits keep parts together, and a split that leaks is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dapo.errors import SourceError
from pipeline.testing import encoded, surface
from trainer.data.sample import PictureFile, Region, Sample, State
from trainer.data.split import content_hash, counts, folds, group_of, refuse_leaks, together


def sample(tmp_path, name, *, seed=0, group=None, word=None, form="PNG", day=None):
    path = tmp_path / name
    path.write_bytes(encoded(surface(seed), form))
    regions = (Region(word),) if word else ()
    state = State.DEFECTIVE if word else State.GOOD
    return Sample(name, "lid", PictureFile(path), state, regions, group=group, day=day)


def plain(number, group, word):
    path = PictureFile(__file__)  # never read
    regions = (Region(word),) if word else ()
    return Sample(str(number), "lid", path, State.DEFECTIVE if word else State.GOOD, regions, group=group)


rows = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([None, "scratch", "hole"])),
    min_size=12,
    max_size=60,
)


@settings(deadline=None)
@given(rows, st.integers(0, 3))
def test_groups_are_never_parted_and_nothing_is_lost(rows, seed):
    samples = [plain(number, group, word) for number, (group, word) in enumerate(rows)]
    if len({s.group for s in samples}) < 3:
        return
    sides = folds(samples, 3, seed)
    assert sorted(s.key for side in sides for s in side) == sorted(s.key for s in samples)
    for group in {s.group for s in samples}:
        assert sum(any(s.group == group for s in side) for side in sides) == 1
    assert [[s.key for s in side] for side in folds(samples, 3, seed)] == [
        [s.key for s in side] for side in sides
    ]


def test_types_are_mixed_on_both_sides():
    samples = [plain(n, f"part-{n // 2}", [None, "scratch", "hole"][n // 2 % 3]) for n in range(60)]
    one, other = folds(samples, 2, 1)
    assert counts(one) == counts(other) == {"good": 10, "hole": 10, "scratch": 10}


def test_too_few_parts_are_told():
    with pytest.raises(SourceError, match="2 groups of frames can't be split into 3"):
        folds([plain(n, "ab"[n % 2], None) for n in range(9)], 3, 0)


def test_a_frame_without_group_stands_for_itself():
    assert group_of(plain(1, None, None)) != group_of(plain(2, None, None))
    assert group_of(plain(1, "a", None)) == group_of(plain(2, "a", None))


def test_a_day_is_kept_together_with_all_its_parts_show():
    """Part a was seen on two days: both days, and what else was seen on them, are one group."""
    first, second, third = date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)
    days = [
        ("a", first),
        ("b", first),
        ("a", second),
        ("c", second),
        ("d", third),
        (None, third),
        (None, None),
    ]
    samples = [replace(plain(n, group, None), day=day) for n, (group, day) in enumerate(days)]
    groups = together(samples, "day")
    assert len(set(groups[:4])) == 1
    assert groups[4] == groups[5]
    assert len(set(groups)) == 3
    assert len(set(together(samples))) == 6


def test_types_that_are_there_once_are_spread_by_state():
    samples = [plain(n, f"part-{n}", word) for n, word in enumerate(["scratch", "hole", "dent", None])]
    assert sorted(len(side) for side in folds(samples, 2, 0)) == [2, 2]


def test_the_same_picture_under_another_name_and_format_is_found(tmp_path):
    one, other = sample(tmp_path, "a.png"), sample(tmp_path, "b.bmp", form="BMP")
    assert content_hash(one) == content_hash(other)
    with pytest.raises(
        SourceError, match=r"leaks: b\.bmp \(test\) is the same picture as a\.png \(training\)"
    ):
        refuse_leaks({"training": [one], "test": [other]})
    refuse_leaks({"training": [one, other], "test": [sample(tmp_path, "c.png", seed=1)]})


def test_one_part_on_two_sides_is_found(tmp_path):
    one = sample(tmp_path, "a.png", group="7", seed=1)
    other = sample(tmp_path, "b.png", group="7", seed=2)
    with pytest.raises(SourceError, match=r"b\.png \(test\) shows the same part as a\.png"):
        refuse_leaks({"training": [one], "test": [other]})
