"""How far frames are from what a pack knows of its products: scores and image features, each as one distance.

The distance is that of Kolmogorov and Smirnov (1933): the greatest difference of two cumulative distributions, 0 to 1. Of
features it is taken over how far each frame is from the nearest of one half of those that the pack remembers as usual, against
how far the other half is from it: a new background, a moved camera or another material is far from all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from dapo.pack import USUAL, Pack

Floats = NDArray[np.floating]
LEAST_FRAMES = 20  # fewer say nothing of a distribution
LEAST_DISTANCE = 0.2  # smaller ones are surely there in a long row of frames, and mean nothing
_SAME = 1 - 1e-5  # cosine of one frame that was looked at twice
_LEVEL = 0.001  # of the distance that chance alone would give: one false alarm in a thousand looks


@dataclass(frozen=True)
class Drift:
    """One product in one respect.

    Attributes:
        of: "scores" or "features".
        distance: 0 (as ever) to 1.
        limit: what is above it is drift.
        frames: that were looked at.
    """

    product: str
    of: Literal["scores", "features"]
    distance: float
    limit: float
    frames: int

    @property
    def drifted(self) -> bool:
        return self.distance > self.limit


def knows(pack: Pack, product: str) -> bool:
    """Whether the pack remembers what a product usually looks like."""
    return USUAL + product in pack.tensors


def drift_of(pack: Pack, product: str, scores: Floats, features: Floats) -> list[Drift]:
    """Drift of a product that the pack knows.

    Args:
        scores: anomaly scores of frames under the pack, [N].
        features: their image features, [N, D].
    """
    usual = pack.tensors[USUAL + product]
    known, now = _unit(usual[:, 1:]), _unit(features)
    # Frames that are compared may not be those that they are compared with: they would be nearer than chance has it.
    near, others = known[::2], known[1::2]
    apart = _distance(_nearest(others, near), _nearest(now, near))
    count = len(scores)
    return [
        Drift(product, "scores", _distance(usual[:, 0], scores), _limit(len(usual), count), count),
        Drift(product, "features", apart, _limit(len(others), count), count),
    ]


def evenly(count: int, most: int) -> Sequence[int]:
    """At most `most` of `count` numbers from 0, evenly over all."""
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, most))}) if count else []


def _nearest(frames: Floats, known: Floats) -> Floats:
    """Cosine of each frame to the nearest remembered one; a frame that is itself remembered is not compared with itself."""
    cosines = frames @ known.T
    cosines[cosines > _SAME] = -1
    return np.asarray(cosines.max(1))


def _distance(one: Floats, other: Floats) -> float:
    return float(ks_2samp(one, other).statistic)


def _limit(one: int, other: int) -> float:
    """What two samples of one distribution exceed once in a thousand times (Smirnov 1948), or the least that counts."""
    chance = math.sqrt(-math.log(_LEVEL / 2) / 2) * math.sqrt((one + other) / (one * other))
    return max(LEAST_DISTANCE, chance)


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, np.finfo(np.float32).tiny), np.float64)
