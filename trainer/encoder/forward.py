"""dapo-tiny's image tower on stem features instead of pixels, on whole images or crops."""

from __future__ import annotations

import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F

from dapo.tiny import STEM_CHANNELS, StemPatches
from trainer.encoder.features import GRID


def image_taps(
    clip: CLIP,
    features: Tensor,
    mean: Tensor,
    std: Tensor,
    offset: tuple[int, int],
    keep: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """CLS [B, D] and the patch features [B, n*n, D] of every block, all L2-normalised, from crops of stem features.

    `keep` [B] in {0, 1} drops the pool-standardised half, so that the model also learns to work relative to the image.
    """
    visual = clip.visual
    patches: StemPatches = visual.conv1
    both = patches.projection.standardise(features, mean, std)
    if keep is not None:
        scale = torch.ones(len(both), both.shape[1], 1, 1)
        scale[:, :STEM_CHANNELS] = keep[:, None, None, None]
        both = both * scale
    tokens = patches.projection.linear(both)
    height, width = tokens.shape[-2:]
    positions = visual.positional_embedding
    window = positions[1:].view(GRID, GRID, -1)[offset[0] : offset[0] + height, offset[1] : offset[1] + width]
    x = tokens.flatten(2).transpose(1, 2) + window.reshape(height * width, -1)
    cls = (visual.class_embedding + positions[0]).expand(len(x), 1, -1)
    x = visual.ln_pre(torch.cat([cls, x], 1))
    taps = []
    for block in visual.transformer.resblocks:
        x = block(x)
        taps.append(F.normalize(visual.ln_post(x) @ visual.proj, dim=-1))
    return taps[-1][:, 0], [tap[:, 1:] for tap in taps]
