"""The multi-type task: 1 + K states of a product, good among them, per pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.metrics import Counts, auroc, average_precision, tally


@dataclass
class MultiType:
    """Adds up images; macro one-vs-rest AUROC and AP, macro F1 of the argmax.

    Attributes:
        states: names, good first.
    """

    states: Sequence[str]
    _counts: list[Counts] = field(init=False)
    _confusion: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self._counts = [Counts() for _ in self.states]
        self._confusion = np.zeros((len(self.states), len(self.states)), np.int64)

    def add(self, probabilities: NDArray[np.floating], truth: NDArray[np.integer]) -> None:
        """One image: probabilities [1+K, H, W], index of the true state [H, W]; what is below 0 is left out."""
        known = truth >= 0
        probabilities, truth = probabilities[:, known], truth[known]
        for state, counts in enumerate(self._counts):
            counts.add(probabilities[state], truth == state)
        predicted = probabilities.argmax(0)
        size = len(self.states)
        pairs = np.asarray(truth, np.int64).ravel() * size + predicted.ravel()
        self._confusion += np.bincount(pairs, minlength=size * size).reshape(size, size)

    @property
    def absent(self) -> list[str]:
        """States that no image has: they are skipped."""
        return [name for i, name in enumerate(self.states) if not self._confusion[i].sum()]

    def figures(self, among: Sequence[str] | None = None) -> dict[str, float | None]:
        """Macro AUROC, AP and F1 over the states that occur in the truth (or those of them in `among`)."""
        chosen = [
            i
            for i, name in enumerate(self.states)
            if self._confusion[i].sum() and (among is None or name in among)
        ]
        tallies = [tally(self._counts[i]) for i in chosen]
        true = np.diag(self._confusion).astype(float)
        f1 = 2 * true / np.maximum(1, self._confusion.sum(0) + self._confusion.sum(1))
        return {
            "auroc": _mean([auroc(t) for t in tallies]),
            "ap": _mean([average_precision(t) for t in tallies]),
            "f1": _mean([float(f1[i]) for i in chosen]),
        }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
