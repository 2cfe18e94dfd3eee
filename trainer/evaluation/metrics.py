"""Ranking metrics of images and pixels. Ties count half (AUROC) or as one threshold (AP, F1-max), as in scikit-learn.

Pixel metrics work on counts per distinct value: maps are float16, so a million pixels have at most 65,536 values, and the
result is exact for the maps as they are, in bounded memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_VALUES = 1 << 16


def _order(values: NDArray[np.float16]) -> NDArray[np.int64]:
    """Rank of float16 bit patterns: an order-preserving integer in 0..65535."""
    bits = np.ascontiguousarray(values, np.float16).view(np.uint16).astype(np.int64)
    # -0.0 and 0.0 are one value; negative numbers come first, in reverse.
    bits[bits == 0x8000] = 0
    return np.where(bits & 0x8000, 0xFFFF - bits, bits + 0x8000)


@dataclass
class Counts:
    """Positives and negatives per distinct float16 value; adds up over images."""

    positive: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_VALUES, np.int64))
    negative: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_VALUES, np.int64))

    def add(self, scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> None:
        """Count scores (any shape, rounded to float16) with their truth (same shape)."""
        ranks = _order(np.asarray(scores, np.float16).ravel())
        flags = np.asarray(truth, bool).ravel()
        self.positive += np.bincount(ranks[flags], minlength=_VALUES)
        self.negative += np.bincount(ranks[~flags], minlength=_VALUES)

    def descending(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Counts of the values that occur, highest value first."""
        used = (self.positive + self.negative) > 0
        return self.positive[used][::-1].astype(float), self.negative[used][::-1].astype(float)


def _from_scores(
    scores: NDArray[np.floating], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts per distinct score, highest first, in full precision."""
    _, where = np.unique(-np.asarray(scores, np.float64), return_inverse=True)
    flags = np.asarray(truth, bool)
    return np.bincount(where, flags).astype(float), np.bincount(where, ~flags).astype(float)


Tally = tuple[NDArray[np.float64], NDArray[np.float64]]


def tally(scores: NDArray[np.floating] | Counts, truth: NDArray[np.bool_] | None = None) -> Tally:
    """(positives, negatives) per distinct score, highest first."""
    if isinstance(scores, Counts):
        return scores.descending()
    if truth is None:
        raise ValueError("truth is needed beside scores")
    return _from_scores(np.asarray(scores).ravel(), np.asarray(truth).ravel())


def auroc(counts: Tally) -> float | None:
    """Area under the ROC curve; None without positives or without negatives."""
    positive, negative = counts
    p, n = positive.sum(), negative.sum()
    if not p or not n:
        return None
    below = n - np.cumsum(negative)
    return float((positive * (below + negative / 2)).sum() / (p * n))


def average_precision(counts: Tally) -> float | None:
    """Area under precision and recall, as a sum over thresholds; None without positives."""
    positive, negative = counts
    if not positive.sum():
        return None
    true, false = np.cumsum(positive), np.cumsum(negative)
    return float((positive / positive.sum() * true / (true + false)).sum())


def f1_max(counts: Tally) -> float | None:
    """Highest F1 over all thresholds; None without positives."""
    positive, negative = counts
    if not positive.sum():
        return None
    true, false = np.cumsum(positive), np.cumsum(negative)
    return float((2 * true / (true + false + positive.sum())).max())


def three(counts: Tally) -> dict[str, float | None]:
    """AUROC, AP and F1-max by name."""
    return {"auroc": auroc(counts), "ap": average_precision(counts), "f1_max": f1_max(counts)}
