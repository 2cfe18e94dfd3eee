"""Which frames are learned from, which choose, and which only judge. Whole parts, in each product apart."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

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
    return Sides(*(tuple(found[name]) for name in ("train", "validation", "test")))


def lasting_sides(samples: Sequence[Sample], salt: str, by: By = "part") -> Sides:
    """The same shares, by a hash of each part's name: a part is on the same side today and in a year, whatever came since.

    So a test that judged last month's pack is never learned from this month. Days that share a part stay together.
    """
    named: dict[str, list[Sample]] = defaultdict(list)
    for own in _products(samples).values():
        groups = together(own, by)
        names: dict[int, str] = {}
        for sample, group in zip(own, groups, strict=True):
            name = group_of(sample) if by == "part" or sample.day is None else f"day {sample.day}"
            names[group] = min(names.get(group, name), name)
        for sample, group in zip(own, groups, strict=True):
            named[_side(names[group], salt)].append(sample)
    return Sides(*(tuple(named[name]) for name in ("train", "validation", "test")))


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
