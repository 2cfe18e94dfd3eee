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
    hidden = _embed(visual, pixels)
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
    if _frame_by_frame(pooled):
        return VisionOutput(torch.stack([frame @ visual.proj for frame in pooled]), tapped)
    return VisionOutput(pooled @ visual.proj, tapped)


def _embed(visual: Any, pixels: Tensor) -> Tensor:
    """Patch layer, class token, position embedding, `ln_pre`: [B, 1 + N, width]."""
    if not _frame_by_frame(pixels):
        hidden: Tensor = visual._embeds(pixels)
        return hidden
    return torch.cat([visual._embeds(frame[None]) for frame in pixels])


def _frame_by_frame(batch: Tensor) -> bool:
    """Whether to run the steps whose last bits would depend on the batch size frame by frame.

    Convolutions and products of few rows pick their algorithm by size. On a CPU one frame at a time is no
    slower, and dapo-tiny's stem stays in the cache: 17 ms a frame instead of 37 in a batch of 8, on one core.
    """
    return batch.device.type == "cpu" and not torch.is_grad_enabled()


def project(visual: Any, hidden: Tensor) -> Tensor:
    """Hidden states [..., width] -> joint space [..., D]: `ln_post` and projection, not normalised."""
    out: Tensor = visual.ln_post(hidden) @ visual.proj
    return out
