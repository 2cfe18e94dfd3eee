"""What the gate is worth: how often it promotes a challenger that is no better, and how often one that is.

Scores of both packs are normal, equally spread for good and defective parts, and correlated part by part (the binormal
model of ROC analysis: Dorfman and Alf 1969), one frame a part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from trainer.gate.bootstrap import Scores


@dataclass(frozen=True)
class Setting:
    """One world.

    Attributes:
        auroc: of the champion.
        gain: of the challenger over it.
        share: of defective parts.
        correlation: of both packs' scores on one part.
        parts: in the test.
    """

    auroc: float
    gain: float
    share: float
    correlation: float
    parts: int


def draw(setting: Setting, rng: np.random.Generator) -> Scores:
    """One test of this world."""
    defective = np.arange(setting.parts) < round(setting.share * setting.parts)
    common, own = np.sqrt(setting.correlation), np.sqrt(1 - setting.correlation)
    shared = rng.standard_normal(setting.parts) * common
    # Two normals of spread 1 are told apart with this AUROC where their means are so far from each other.
    first, second = (np.sqrt(2) * norm.ppf(setting.auroc + gain) for gain in (0.0, setting.gain))
    return Scores(
        parts=np.arange(setting.parts),
        defective=defective,
        champion=shared + own * rng.standard_normal(setting.parts) + first * defective,
        challenger=shared + own * rng.standard_normal(setting.parts) + second * defective,
    )
