"""Labelled frames made ready for tuning: what is known of each, at the resolution the loss is taken at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.sample import Sample, State
from trainer.tuning.cache import Content

CELLS_PER_PATCH = (
    4  # pixels of the loss along a patch: as fine as a label is, at a sixteenth of the frame's cost
)
UNNAMED = -1  # a defect whose type is not among the product's words
# Labels are read finer than they are used: a cell must know how much of it is covered. Finer still where that finds nothing.
_FINER, _FINEST = 4, 16


@dataclass(frozen=True)
class Example:
    """One labelled frame.

    Attributes:
        sample: as the data set gave it.
        content: what it is told by.
        states: int8 [L, L], 0 good, 1 + index into the product's words, `UNNAMED` a defect of none of them; None where it
            is defective and nobody drew where: a weak label.
    """

    sample: Sample
    content: Content
    states: NDArray[np.int8] | None

    @property
    def product(self) -> str:
        return self.sample.product

    @property
    def defective(self) -> bool:
        return self.sample.defective

    @property
    def kind(self) -> str:
        """What it counts as where kinds are balanced: good, its one type, or several."""
        return self.sample.word or "several"


def make_examples(
    samples: Sequence[Sample],
    contents: Sequence[Content],
    words: Mapping[str, Sequence[str]],
    size: int,
    *,
    whole: bool = False,
) -> list[Example]:
    """Labelled frames; unlabelled ones must not be among them.

    Args:
        words: product -> its words, in the order of the states; a product that is missing has none.
        size: L, side of the states in cells.
        whole: see `in_cells`.

    Raises:
        SourceError: a mask can't be read, or marks nothing.
    """
    found = []
    for sample, content in zip(samples, contents, strict=True):
        if sample.state is State.UNLABELLED:
            raise ValueError(f"{sample.key} is not labelled")
        found.append(Example(sample, content, _states(sample, words.get(sample.product, ()), size, whole)))
    return found


def _states(sample: Sample, words: Sequence[str], size: int, whole: bool) -> NDArray[np.int8] | None:
    """None where nobody drew the defect, or it is too small to be found again: a good frame is what it must not become."""
    for finer in (_FINER, _FINEST):
        fine = sample.types_at(words, size * finer)
        if fine is None:
            return None
        if not sample.defective or fine.any():
            return in_cells(fine, size, whole=whole)
    return None


def in_cells(states: NDArray[np.int64], size: int, *, whole: bool = False) -> NDArray[np.int8]:
    """States per pixel [S, S] -> per cell [size, size]: the state that covers half of it or more.

    A defect too small for that keeps the one cell that it covers most, so none gets lost.

    Args:
        whole: count only cells that are covered wholly, which shrinks masks as the research code does; small ones vanish.
    """
    step = len(states) // size
    blocks = states.reshape(size, step, size, step)
    found = np.zeros((size, size), np.int8)
    best = np.zeros((size, size))
    for state in np.unique(states[states != 0]):
        cover = (blocks == state).mean((1, 3))
        marked = cover == 1 if whole else cover >= min(0.5, cover.max())
        better = marked & (cover > best)
        found[better], best[better] = state, cover[better]
    return found


def manifest_hash(examples: Sequence[Example]) -> str:
    """SHA-256 over content and labels of all frames, in whatever order: what a pack was tuned on."""
    rows = sorted(
        json.dumps(
            [
                example.product,
                example.content.pixels,
                example.sample.state.value,
                list(example.sample.words),
                None if example.states is None else hashlib.sha256(example.states.tobytes()).hexdigest(),
            ]
        )
        for example in examples
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
