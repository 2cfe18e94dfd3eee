"""Which frames are learned from, which choose, and which only judge. Whole parts, in each product apart."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dapo.errors import SourceError
from trainer.data.sample import Sample, State
from trainer.data.split import folds, group_of, together

By = Literal["part", "day"]
_FOLDS = 5  # one judges, one chooses, three are learned from


@dataclass(frozen=True)
class Sides:
    """Labelled frames. `train` is learned from, `validation` sets weights and thresholds, `test` judges."""

    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    given: bool = False  # the test is data of its own: nothing may be moved out of it

    def named(self) -> Mapping[str, Sequence[Sample]]:
        return {"train": self.train, "validation": self.validation, "test": self.test}


def balanced_sides(samples: Sequence[Sample], seed: int, by: By = "part") -> Sides:
    """Three, one and one fifth of each product's parts, types spread as evenly as they can be. For data that stays as it is.

    A product of one or two parts is learned from alone.
    """
    found: dict[str, list[Sample]] = {"train": [], "validation": [], "test": []}
    for own in _products(samples).values():
        parts = len(set(together(own, by)))
        if parts < 3:
            found["train"] += own
            continue
        test, validation, *train = folds(own, min(_FOLDS, parts), seed, by)
        found["test"] += test
        found["validation"] += validation
        found["train"] += [sample for side in train for sample in side]
    return Sides(tuple(found["train"]), tuple(found["validation"]), tuple(found["test"]))


def lasting_sides(samples: Sequence[Sample], salt: str) -> Sides:
    """The same shares, by a hash of each part's name: a part is on the same side today and in a year, whatever came since.

    So a test that judged last month's pack is never learned from this month. Days can't be kept together so: a part that shows
    up on two of them would move both when the first is forgotten.
    """
    named: dict[str, list[Sample]] = defaultdict(list)
    for own in _products(samples).values():
        for sample in own:
            named[_side(group_of(sample), salt)].append(sample)
    return Sides(tuple(named["train"]), tuple(named["validation"]), tuple(named["test"]))


def kept_apart(
    sides: Sides, pixels_of: Callable[[Sample], str], base: Mapping[str, Any]
) -> tuple[Sides, int]:
    """The sides without what the pack has seen before: parts that it learned from are learned from again, parts that set its
    thresholds judge no more. Returns them, and how many frames had to move.

    Args:
        pixels_of: hash of a frame's pixels.
        base: the pack's provenance.

    Raises:
        SourceError: a test that was given has such frames.
    """
    learned, chose = (set(base.get(name, ())) for name in ("tuned_on", "calibrated_on"))
    place: dict[str, str] = {}
    for samples in sides.named().values():
        for sample in samples:
            seen = pixels_of(sample)
            if seen in learned:
                place[group_of(sample)] = "train"
            elif seen in chose:
                place.setdefault(group_of(sample), "validation")
    order = ("train", "validation", "test")
    found: dict[str, list[Sample]] = {name: [] for name in order}
    moved = 0
    for name, samples in sides.named().items():
        for sample in samples:
            wanted = place.get(group_of(sample), name)
            nearer = min(name, wanted, key=order.index)
            if nearer != name and name == "test" and sides.given:
                raise SourceError(
                    f"{sample.key}: the pack was made with it, so it can't judge. Take it out of the test."
                )
            moved += nearer != name
            found[nearer].append(sample)
    kept = Sides(tuple(found["train"]), tuple(found["validation"]), tuple(found["test"]), sides.given)
    return kept, moved


def labelled(samples: Sequence[Sample]) -> list[Sample]:
    """Frames that somebody has looked at.

    Raises:
        SourceError: there is none.
    """
    kept = [sample for sample in samples if sample.state is not State.UNLABELLED]
    if not kept:
        raise SourceError("no labelled frame in the data: label some, with 'dapo label' or in its folders.")
    return kept


def _side(name: str, salt: str) -> str:
    place = hashlib.sha256(f"{salt}\n{name}".encode("utf-8", "surrogatepass")).digest()[0]
    return ("test", "validation", "train", "train", "train")[place % _FOLDS]


def _products(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.product].append(sample)
    return dict(sorted(found.items()))
