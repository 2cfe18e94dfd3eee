"""The image tower: open_clip's blocks walked one by one, visual prompts mixed in, patch features tapped."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class VisionOutput:
    """What the image tower gives for a batch.

    Attributes:
        cls: [B, D], class token (or average) after the last block, `ln_post` and projection; not normalised.
        taps: one [B, N, width] per tap: hidden states of the N patches, no `ln_post`, no projection.
    """

    cls: Tensor
    taps: list[Tensor]


def encode_image(
    visual: Any, pixels: Tensor, taps: Collection[int], prompts: Tensor | None = None, alpha: float = 0.01
) -> VisionOutput:
    """Run an open_clip `VisionTransformer`, with or without visual prompts.

    In each block the prompt positions hold `alpha` x (their output of the block before) + (1 - `alpha`) x the
    block's own prompts: the paper's progressive tuning. Block 0 takes its prompts as they are.

    Args:
        visual: open_clip `VisionTransformer`.
        pixels: float32 [B, 3, S, S], normalised.
        taps: block numbers, from 1.
        prompts: [blocks, n, width], or None.
        alpha: share of the output of the block before.
    """
    hidden: Tensor = visual._embeds(pixels)  # patch layer, class token, position embedding, ln_pre
    skip = 1
    tapped = []
    for index, block in enumerate(visual.transformer.resblocks):
        if prompts is not None:
            own = prompts[index].expand(len(hidden), -1, -1)
            mixed = own if index == 0 else alpha * hidden[:, 1:skip] + (1 - alpha) * own
            hidden = torch.cat([hidden[:, :1], mixed, hidden[:, skip:]], 1)
            skip = 1 + prompts.shape[1]
        hidden = block(hidden)
        if index + 1 in taps:
            tapped.append(hidden[:, skip:].contiguous())
    without_prompts = torch.cat([hidden[:, :1], hidden[:, skip:]], 1) if skip > 1 else hidden
    pooled, _ = visual._pool(
        without_prompts
    )  # the class token after ln_post, or what else the architecture pools
    return VisionOutput(pooled @ visual.proj, tapped)


def project(visual: Any, hidden: Tensor) -> Tensor:
    """Hidden states [..., width] -> joint space [..., D]: `ln_post` and projection, not normalised."""
    out: Tensor = visual.ln_post(hidden) @ visual.proj
    return out
