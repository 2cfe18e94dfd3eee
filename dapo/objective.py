"""The training objective: image cross-entropy, and per tap focal and dice on the enlarged patch
probabilities.

Lin et al., focal loss, arXiv 1708.02002; Milletari et al., dice, arXiv 1606.04797.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

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
    """Focal, dice of the normal, dice of the abnormal probability, each [taps]; see `objective`.

    The same numbers as from maps of all states at full size, without them: dice is linear in the probabilities, so it is
    taken at patch resolution against masks brought down by the transpose of the enlargement; focal needs the probability of
    each pixel's own state only, so only states that occur in an image are enlarged.
    """
    present, slots = _present(types, len(text))
    defect = (types > 0).float()
    cells = taps[0].shape[1]
    ones, normal, abnormal = (
        brought_down(mask, cells) for mask in (torch.ones_like(defect), 1 - defect, defect)
    )
    rows = present[:, None].expand(-1, cells, -1)
    focals, normals, abnormals = [], [], []
    for states in patch_states(taps, text, temperature):
        maps = upsample(states.gather(2, rows), types.shape[-1])
        focals.append(focal(maps.gather(1, slots)[:, 0], len(text) - 1))
        normals.append(dice(states[..., 0], normal, ones, (1 - defect).sum((1, 2))))
        abnormals.append(dice(states[..., 1:].sum(-1), abnormal, ones, defect.sum((1, 2))))
    return torch.stack(focals), torch.stack(normals), torch.stack(abnormals)


def focal(chosen: Tensor, kinds: int) -> Tensor:
    """Focal loss, mean over all pixels of the batch.

    Args:
        chosen: probability of each pixel's true state, [B, S, S]; those of the other states add up to the rest.
        kinds: K, states beside it.
    """
    # The one-hot target clamped to [spread, 1 - smooth], times the probabilities, without building it.
    spread = _SMOOTH / max(1, kinds)
    p = chosen * (1 - _SMOOTH) + (1 - chosen) * spread + _SMOOTH
    return (-((1 - p) ** FOCAL_GAMMA) * p.log()).mean()


def dice(cells: Tensor, target: Tensor, ones: Tensor, area: Tensor) -> Tensor:
    """1 - dice coefficient of the enlarged cells, per image, then the mean.

    Args:
        cells: probabilities at patch resolution, [B, N].
        target: the mask brought down, [B, N].
        ones: a mask of ones brought down, [B, N].
        area: of the mask in pixels, [B].
    """
    overlap, total = (cells * target).sum(1), (cells * ones).sum(1)
    return 1 - ((2 * overlap + _DICE_SMOOTH) / (total + area + _DICE_SMOOTH)).mean()


def brought_down(masks: Tensor, cells: int) -> Tensor:
    """The transpose of `dapo.head.upsample`: [B, S, S] -> [B, N], so that <enlarged, mask> = <cells, brought down>."""
    grid, size = round(cells**0.5), masks.shape[-1]
    up = _enlargement(grid, size).to(masks)
    return (up.T @ masks @ up).flatten(1)


@lru_cache(maxsize=16)
def _enlargement(grid: int, size: int) -> Tensor:
    """Bilinear weights with aligned corners, [size, grid]: rows of cells become rows of pixels."""
    at = torch.linspace(0, grid - 1, size, dtype=torch.float64)
    return (1 - (at[:, None] - torch.arange(grid)).abs()).clamp(min=0).float()


def _present(types: Tensor, states: int) -> tuple[Tensor, Tensor]:
    """States that occur in each image, [B, M] (filled up with others), and each pixel's place among them, [B, 1, S, S]."""
    flat = types.flatten(1)
    occurs = torch.zeros(len(flat), states, dtype=torch.bool, device=flat.device).scatter_(1, flat, True)
    ranked = torch.argsort(occurs.int(), dim=1, descending=True, stable=True)
    order = ranked[:, : int(occurs.sum(1).max())]
    place = torch.zeros_like(occurs, dtype=torch.int64)
    place.scatter_(1, order, torch.arange(order.shape[1], device=flat.device).expand_as(order))
    return order, place.gather(1, flat).reshape(len(types), 1, *types.shape[1:])


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
