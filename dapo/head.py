"""From features and text vectors to probabilities, maps and type scores; no tower is run in here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# A type is read from the most anomalous cells: 3 % of a 16 x 16 grid are 8 cells, about the size of a small
# defect.
TYPE_CELLS = 0.03
_TINY = 1e-12  # keeps a product of probabilities from becoming 0 / 0


class Adapters(nn.Module):
    """One linear layer per tap, from the image tower's width to the joint space.

    Attributes:
        layers: `nn.Linear(width, joint width)` per tap.
    """

    def __init__(self, taps: int, width: int, joint_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, joint_width) for _ in range(taps))

    def forward(self, taps: Sequence[Tensor]) -> list[Tensor]:
        """[B, N, width] per tap -> [B, N, D] per tap, not normalised."""
        return [layer(tap) for layer, tap in zip(self.layers, taps, strict=True)]


def pair(text: Tensor) -> Tensor:
    """Text matrix [1+K, D] -> [2, D]: t_0, and t_A = the normalised mean of the types."""
    return torch.stack([text[0], F.normalize(text[1:].mean(0), dim=-1)])


def image_probabilities(cls: Tensor, text: Tensor, temperature: float) -> Tensor:
    """Normalised image features [B, D] and text rows [C, D] -> softmax over the rows, [B, C]."""
    return (cls @ text.T / temperature).softmax(-1)


def patch_states(taps: Sequence[Tensor], text: Tensor, temperature: float) -> list[Tensor]:
    """S_l: normalised patch features [B, N, D] per tap, text rows [C, D] -> softmax over rows, [B, N, C]."""
    return [(tap @ text.T / temperature).softmax(-1) for tap in taps]


def upsample(states: Tensor, size: int) -> Tensor:
    """Patch cells [B, G*G, C] -> [B, C, size, size], bilinear with aligned corners."""
    batch, cells, channels = states.shape
    grid = round(cells**0.5)
    maps = states.transpose(1, 2).reshape(batch, channels, grid, grid)
    return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=True)


def state_maps(taps: Sequence[Tensor], text: Tensor, temperature: float, size: int) -> Tensor:
    """The paper's maps: sum over taps of S_l, [B, C, size, size]; channel 0 is the normal state, all sum to
    the taps.

    Summed at patch resolution and enlarged once, which is the same as enlarging first.
    """
    states = patch_states(taps, text, temperature)
    return upsample(torch.stack(states).sum(0), size)


def smooth(cells: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing of a map [G, G]; `sigma` in patch cells, 0 for none."""
    if sigma <= 0:
        return cells
    radius = min(max(1, round(3 * sigma)), cells.shape[0] - 1)
    at = torch.arange(-radius, radius + 1, device=cells.device, dtype=cells.dtype)
    kernel = (-(at**2) / (2 * sigma**2)).exp()
    kernel = kernel / kernel.sum()
    padded = F.pad(cells[None, None], (radius,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel.view(1, 1, -1, 1))
    return F.conv2d(rows, kernel.view(1, 1, 1, -1))[0, 0]


def top_mean(cells: Tensor, fraction: float) -> Tensor:
    """Mean of the highest `fraction` of the cells (at least one): scalar."""
    flat = cells.flatten()
    return flat.topk(max(1, round(fraction * len(flat)))).values.mean()


def type_distribution(cells: Tensor, anomaly: Tensor, image: Tensor, cls_weight: float) -> Tensor:
    """One image's distribution over its product's own types.

    Args:
        cells: logits per cell and type, [N, K].
        anomaly: anomaly per cell in [0, 1], [N].
        image: logits of the whole image per type, [K].
        cls_weight: 0 for the cells only, 1 for the whole image only.

    Returns:
        [K], sums to 1: (the most anomalous cells' softmax, weighted by their anomaly)^(1 - cls_weight)
        x (the image's softmax)^cls_weight, normalised.
    """
    weights, at = anomaly.topk(max(1, round(TYPE_CELLS * len(anomaly))))
    weights = weights + _TINY
    local = (cells[at].softmax(-1) * weights[:, None]).sum(0) / weights.sum()
    mixed = (local + _TINY).log() * (1 - cls_weight) + image.log_softmax(-1) * cls_weight
    return mixed.softmax(-1)
