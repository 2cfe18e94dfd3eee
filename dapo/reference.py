"""A memory of good frames: how far each patch is from the nearest one that is known to be good.

Nearest-neighbour anomaly detection on patch features (Roth et al., PatchCore, arXiv 2106.08265). The features are those that
the head is given anyway, the taps; or one more tap, made of the frozen stem in front of all prompts (`StemTap`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dapo.pack import Reference


class StemTap(nn.Module):
    """The stem's features in the joint space's width, as one more tap.

    Args:
        weight: [D, channels].
        bias: [D].
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, stem: Tensor) -> Tensor:
        """[B, channels, h, w] -> [B, N, D], L2-normalised."""
        cells = stem.flatten(2).transpose(1, 2)
        return F.normalize(F.linear(cells, self.get_buffer("weight"), self.get_buffer("bias")), dim=-1)


def cell_features(taps: Tensor, used: Sequence[int]) -> Tensor:
    """Features that memories are made of, and compared by.

    Args:
        taps: [..., taps, N, D], L2-normalised.
        used: numbers of the taps, from 0.

    Returns:
        [..., N, len(used) * D], L2-normalised.
    """
    chosen = taps[..., list(used), :, :].transpose(-3, -2).flatten(-2)
    return chosen / math.sqrt(len(used))


def distances(cells: Tensor, memory: Tensor) -> Tensor:
    """Euclidean distance of each cell to the nearest row of the memory.

    Args:
        cells: [N, R], L2-normalised.
        memory: [M, R], L2-normalised.

    Returns:
        [N], 0 to 2.
    """
    nearest = (cells @ memory.T).amax(-1)
    return (2 - 2 * nearest).clamp(min=0).sqrt()


def anomaly(distance: Tensor, reference: Reference) -> Tensor:
    """Distances as anomaly in 0..1: a half at `reference.middle`."""
    return torch.sigmoid((distance - reference.middle) / reference.spread)
