"""The training objective: image cross-entropy, and per tap focal and dice on the enlarged patch
probabilities.

Lin et al., focal loss, arXiv 1708.02002; Milletari et al., dice, arXiv 1606.04797.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dapo.head import pair, patch_states, upsample
from dapo.model import ImageFeatures

LOCAL_WEIGHT = 4.0
FOCAL_GAMMA = 2
_SMOOTH = 1e-5  # of the one-hot target and inside the logarithm
_DICE_SMOOTH = 1.0


@dataclass(frozen=True)
class Losses:
    """Parts of the objective; scalars, and one value per tap.

    Attributes:
        image: L_img.
        focal: [taps].
        dice_normal: [taps], of the normal probability against the normal area.
        dice_abnormal: [taps], of the summed type probabilities against the defect area.
    """

    image: Tensor
    focal: Tensor
    dice_normal: Tensor
    dice_abnormal: Tensor

    @property
    def local(self) -> Tensor:
        """L_loc."""
        return (self.focal + self.dice_normal + self.dice_abnormal).sum()

    @property
    def total(self) -> Tensor:
        """L = L_img + 4 L_loc."""
        return self.image + LOCAL_WEIGHT * self.local


def objective(
    features: ImageFeatures, text: Tensor, types: Tensor, labels: Tensor, temperature: float
) -> Losses:
    """L of method section 2.

    Args:
        features: of the batch.
        text: text matrix [1+K, D].
        types: int64 [B, S, S], row of `text` per pixel, 0 where normal.
        labels: int64 [B], 1 where the image is anomalous.
        temperature: tau.
    """
    image = F.cross_entropy(features.cls @ pair(text).T / temperature, labels)
    return Losses(image, *local_losses(features.taps, text, types, temperature))


def local_losses(
    taps: Sequence[Tensor], text: Tensor, types: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Focal, dice of the normal, dice of the abnormal probability, each [taps]; see `objective`."""
    defect = (types > 0).float()
    focals, normals, abnormals = [], [], []
    for states in patch_states(taps, text, temperature):
        maps = upsample(states, types.shape[-1])
        focals.append(focal(maps, types))
        normals.append(dice(maps[:, 0], 1 - defect))
        abnormals.append(dice(maps[:, 1:].sum(1), defect))
    return torch.stack(focals), torch.stack(normals), torch.stack(abnormals)


def focal(maps: Tensor, types: Tensor) -> Tensor:
    """Focal loss, mean over all pixels of the batch.

    Args:
        maps: probabilities [B, 1+K, S, S].
        types: int64 [B, S, S] in 0..K.
    """
    spread = _SMOOTH / max(1, maps.shape[1] - 1)
    chosen = maps.gather(1, types[:, None])[:, 0]
    # The one-hot target clamped to [spread, 1 - smooth], times the probabilities, without building it.
    p = chosen * (1 - _SMOOTH) + (maps.sum(1) - chosen) * spread + _SMOOTH
    return (-((1 - p) ** FOCAL_GAMMA) * p.log()).mean()


def dice(probability: Tensor, target: Tensor) -> Tensor:
    """1 - dice coefficient, per image, then the mean: both [B, S, S]."""
    p, t = probability.flatten(1), target.flatten(1)
    ratio = (2 * (p * t).sum(1) + _DICE_SMOOTH) / (p.sum(1) + t.sum(1) + _DICE_SMOOTH)
    return 1 - ratio.mean()


def type_masks(masks: Tensor, rows: Tensor, *, exact: bool = False) -> Tensor:
    """Resized defect masks -> row of the text matrix per pixel.

    Args:
        masks: float [B, S, S] in [0, 1]; edges are grey after a resize.
        rows: int64 [B], row of each image's type in the text matrix.
        exact: count only pixels of exactly 1, which shrinks masks by about a pixel: as the research code
            does, for parity. The default counts what is covered by half or more.

    Returns:
        int64 [B, S, S].
    """
    inside = masks == 1 if exact else masks >= 0.5
    return inside.long() * rows[:, None, None]
