"""Parts stay on their side, today and in a year."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from dapo.errors import SourceError
from trainer.data.sample import PictureFile, Region, Sample, State
from trainer.tuning.sides import balanced_sides, labelled, lasting_sides


def sample(part: int, view: int, word: str | None, day: int = 1) -> Sample:
    regions = (Region(word),) if word else ()
    state = State.DEFECTIVE if word else State.GOOD
    picture = PictureFile(Path(__file__))  # never read
    return Sample(f"{part}-{view}-{day}", "lid", picture, state, regions, f"part {part}", date(2026, 1, day))


def lids(parts: int, days: int = 1) -> list[Sample]:
    words = (None, "scratch", None, "hole")
    return [
        sample(part, view, words[part % 4], part % days + 1) for part in range(parts) for view in range(2)
    ]


def names(side: tuple[Sample, ...]) -> set[str]:
    return {str(one.group) for one in side}


def test_all_frames_are_on_one_side_and_types_on_all() -> None:
    samples = lids(100)
    sides = balanced_sides(samples, seed=1)
    assert sorted(s.key for side in sides.named().values() for s in side) == sorted(s.key for s in samples)
    assert not names(sides.train) & (names(sides.validation) | names(sides.test))
    for side in (sides.validation, sides.test):
        assert len(side) == 40
        assert {s.word for s in side} == {"good", "scratch", "hole"}


def test_a_product_of_two_parts_is_learned_from_alone() -> None:
    sides = balanced_sides(lids(2), seed=1)
    assert (len(sides.train), sides.validation, sides.test) == (4, (), ())


def test_what_judged_once_is_never_learned_from() -> None:
    first, later = lasting_sides(lids(60), "salt"), lasting_sides(lids(120)[20:], "salt")
    sides = {s.key: name for name, side in first.named().items() for s in side}
    again = {s.key: name for name, side in later.named().items() for s in side}
    both = sides.keys() & again.keys()
    assert both
    assert {key: sides[key] for key in both} == {key: again[key] for key in both}, "whatever came or went"
    assert first.test
    assert first.validation


def test_unlabelled_frames_are_left_out_and_their_want_is_told() -> None:
    unknown = Sample("u", "lid", PictureFile(Path(__file__)), State.UNLABELLED)
    assert labelled([*lids(1), unknown]) == lids(1)
    with pytest.raises(SourceError, match="no labelled frame"):
        labelled([unknown])
