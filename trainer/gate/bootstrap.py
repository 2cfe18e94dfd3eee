"""Paired bootstrap over parts: by how much two packs differ on the same frames, and how sure that is.

Parts are drawn with replacement, never frames: views of one part are no independent evidence (Field and Welsh, Bootstrapping
clustered data, JRSS B 2007). Good and defective parts are drawn apart, so that every draw has both, and both packs are
scored on the same draw: what makes a part hard for both cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm, rankdata, t

DRAWS = 1000
LEVEL = 0.05  # one-sided
POWER = 0.8

Floats = NDArray[np.float64]
Metric = Callable[[Floats, NDArray[np.bool_], Floats], Floats]


@dataclass(frozen=True)
class Scores:
    """Both packs' anomaly scores of one product's labelled frames.

    Attributes:
        parts: number of each frame's part, int [N].
        defective: bool [N].
        champion, challenger: float [N].
    """

    parts: NDArray[np.int64]
    defective: NDArray[np.bool_]
    champion: Floats
    challenger: Floats

    def classes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of the good parts, and of those with a defect on any of their frames."""
        bad = np.unique(self.parts[self.defective])
        return np.setdiff1d(np.unique(self.parts), bad), bad


@dataclass(frozen=True)
class Difference:
    """Challenger less champion, the mean over products of one metric.

    Attributes:
        champion, challenger: the metric.
        value: by how much.
        error: its standard error.
        freedom: degrees of freedom of `error`.
        parts: of all products.
    """

    champion: float
    challenger: float
    value: float
    error: float
    freedom: float
    parts: int

    def lower(self, level: float = LEVEL) -> float:
        """One-sided lower confidence bound."""
        return self.value - self._reach(level)

    def upper(self, level: float = LEVEL) -> float:
        """One-sided upper confidence bound."""
        return self.value + self._reach(level)

    def parts_for(self, gain: float, level: float = LEVEL, power: float = POWER) -> int:
        """Parts of the same mixture with which a true difference of `gain` is seen with this power.

        The standard error falls with the root of their number.
        """
        needed = gain / (norm.ppf(1 - level) + norm.ppf(power))
        return int(np.ceil(self.parts * (self.error / needed) ** 2))

    def _reach(self, level: float) -> float:
        return float(t.ppf(1 - level, self.freedom)) * self.error


def auroc(scores: Floats, truth: NDArray[np.bool_], weights: Floats) -> Floats:
    """Area under the ROC curve for many weightings at once: scores [N], truth [N], weights [B, N] -> [B]. Ties count half."""
    positive, negative = _by_score(scores, truth, weights)
    total = negative.sum(1, keepdims=True)
    below = total - np.cumsum(negative, 1)
    return np.asarray((positive * (below + negative / 2)).sum(1) / (positive.sum(1) * total[:, 0]))


def average_precision(scores: Floats, truth: NDArray[np.bool_], weights: Floats) -> Floats:
    """Average precision, as `auroc`."""
    positive, negative = _by_score(scores, truth, weights)
    hits, alarms = np.cumsum(positive, 1), np.cumsum(negative, 1)
    precision = hits / np.maximum(hits + alarms, np.finfo(float).tiny)
    return np.asarray((positive * precision).sum(1) / positive.sum(1))


def _by_score(scores: Floats, truth: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """Weights of positives and negatives per distinct score, the highest first: [B, U] each."""
    order = np.argsort(-scores, kind="stable")
    first = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    kept, held = weights[:, order], truth[order]
    return np.add.reduceat(kept * held, first, 1), np.add.reduceat(kept * ~held, first, 1)


def paired_difference(
    products: Sequence[Scores], metric: Metric = auroc, *, seed: int, draws: int = DRAWS
) -> Difference:
    """Bootstrap the difference of a metric, averaged over products without weights.

    Each product needs two good and two defective parts at least; see `Scores.classes`.

    Args:
        draws: of the bootstrap.

    Raises:
        ValueError: a product has fewer parts, or a score is not finite.
    """
    for one in products:
        if min(len(members) for members in one.classes()) < 2:
            raise ValueError("each product needs two good and two defective parts")
        if not (np.isfinite(one.champion).all() and np.isfinite(one.challenger).all()):
            raise ValueError("a score is not finite")
    rng = np.random.default_rng(seed)
    values, variances, freedoms = [], [], []
    for one in products:
        value, variance, freedom = _one(one, metric, rng, draws)
        values.append(value)
        variances.append(variance)
        freedoms.append(freedom)
    count = len(products)
    variance = float(np.sum(variances)) / count**2
    # Welch and Satterthwaite: of a sum of variances that are each estimated.
    shares = [(v / count**2) ** 2 / f for v, f in zip(variances, freedoms, strict=True)]
    freedom = variance**2 / sum(shares) if sum(shares) > 0 else float(min(freedoms))
    champion, challenger = np.mean(values, 0)
    return Difference(
        champion=float(champion),
        challenger=float(challenger),
        value=float(challenger - champion),
        error=float(np.sqrt(variance)),
        freedom=freedom,
        parts=sum(len(np.unique(one.parts)) for one in products),
    )


def _one(
    one: Scores, metric: Metric, rng: np.random.Generator, draws: int
) -> tuple[tuple[float, float], float, float]:
    """(champion, challenger), variance of their difference, its degrees of freedom; for one product."""
    classes = one.classes()
    weights = np.zeros((draws, int(one.parts.max()) + 1))
    for members in classes:
        weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), draws)
    frames = weights[:, one.parts]
    plain = np.ones((1, len(one.parts)))
    both = [
        (metric(s, one.defective, plain)[0], metric(s, one.defective, frames))
        for s in (one.champion, one.challenger)
    ]
    (champion, drawn_champion), (challenger, drawn_challenger) = both
    freedom = min(len(members) for members in classes) - 1
    # A bootstrap of n is too narrow by (n - 1) / n; of both classes, the smaller one's share.
    variance = float(np.var(drawn_challenger - drawn_champion, ddof=1)) * (freedom + 1) / freedom
    if variance == 0 and not np.array_equal(rankdata(one.champion), rankdata(one.challenger)):
        # Both are right about every part, in ways of their own: the next part may still be the first they differ about.
        variance = 1 / (freedom + 1) ** 2
    return (float(champion), float(challenger)), variance, float(freedom)


def rate_bounds(hits: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """One-sided lower and upper bounds of a rate after `hits` of `count` (Clopper and Pearson 1934)."""
    low = 0.0 if hits == 0 else float(beta.ppf(level, hits, count - hits + 1))
    high = 1.0 if hits >= count else float(beta.ppf(1 - level, hits + 1, count - hits))
    return low, high
