"""Frames in memory, and two packs that say of each what a test wants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from dapo.inspection import Evaluation, Verdict
from pipeline.testing import encoded, surface
from trainer.data.sample import Region, Sample, State
from trainer.gate.compare import Compared

OK, NOT_OK, OPEN = Evaluation.OK, Evaluation.NOT_OK, Evaluation.NOT_DECIDABLE
LIMITS = (0.3, 0.6)


@dataclass(frozen=True)
class MemoryPicture:
    """A picture of its own for each seed."""

    name: str
    seed: int
    defect: bool = False

    def read(self) -> bytes:
        return encoded(surface(self.seed, defect=self.defect))

    def version(self) -> str:
        return f"{self.seed} {self.defect}"


def sample(name, seed=0, *, word=None, state=None, product="lid", group=None, day=None, split=None):
    """A good frame, or a defective one of a type; unlabelled where `state` says so."""
    known = state or (State.GOOD if word is None else State.DEFECTIVE)
    regions = (Region(word),) if known is State.DEFECTIVE else ()
    picture = MemoryPicture(name, seed, defect=word is not None)
    return Sample(name, product, picture, known, regions, group, day, split)


def verdict(score):
    """Under the thresholds `LIMITS`."""
    low, high = LIMITS
    said = OK if score < low else OPEN if score < high else NOT_OK
    return Verdict(said, "", "", score, low, high, ())


@dataclass
class FakePair:
    """Says of each frame what it is told: key -> (score of the champion, of the challenger)."""

    scores: Mapping[str, tuple[float, float]]
    unusable: tuple[str, ...] = ()

    def frames(self, samples: Iterable[Sample], skip: object = None) -> Iterator[Compared]:
        for one in samples:
            if one.key in self.unusable:
                nothing = Verdict(OPEN, "black", "the picture is black", float("nan"), *LIMITS, ())
                yield Compared(one, nothing, nothing, None)
                continue
            champion, challenger = map(verdict, self.scores[one.key])
            rng = np.random.default_rng(one.picture.seed)
            yield Compared(one, champion, challenger, rng.standard_normal(8).astype(np.float32))
