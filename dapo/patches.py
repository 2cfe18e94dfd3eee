"""A linear of a pack's own beside the frozen blocks: from the patch layer straight into the joint space.

What it says of a patch is added to that patch's features in every tap, before they are normalised, and its mean over the
patches to the image feature. It starts at zero, so it changes nothing until it is learned. In dapo-tiny it sees what the
frozen stem says, standardised: all that an ImageNet network knows of the patch, of which the blocks keep a third. In any
other ViT it sees the patch layer's output. Nothing frozen lies behind it, so it is tuned at the cost of a linear layer.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from dapo.errors import PackError

WEIGHT = "patch.weight"  # [D, inputs], as a pack names it


def has_stem(visual: Any) -> bool:
    """Whether the patch layer has a frozen stem, whose features can be kept."""
    return hasattr(visual.conv1, "projection")


def after_stem(visual: Any) -> Any:
    """The tower that takes what the stem says, [B, channels, h, w], instead of pixels; it shares all with `visual`."""
    return _with_child(visual, "conv1", visual.conv1.projection)


def patch_inputs(visual: Any, seen: Tensor) -> Tensor:
    """What the linear sees: [B, N, inputs].

    Args:
        visual: the encoder's image tower.
        seen: what its stem said, [B, channels, h, w]; pixels, where it has none.
    """
    found: Tensor = visual.conv1.projection.standardise(seen) if has_stem(visual) else visual.conv1(seen)
    return found.flatten(2).transpose(1, 2)


def inputs_of(visual: Any) -> int:
    """How many numbers of a patch the linear sees."""
    return (
        int(visual.conv1.projection.linear.in_channels) if has_stem(visual) else len(visual.class_embedding)
    )


def fresh_linear(visual: Any) -> nn.Linear:
    """The linear before it is learned: all zeros."""
    linear = nn.Linear(inputs_of(visual), int(visual.proj.shape[1]), bias=False)
    torch.nn.init.zeros_(linear.weight)
    return linear.to(visual.class_embedding.device)


def check_weight(visual: Any, weight: Tensor) -> None:
    """Refuse a linear that is of another tower.

    Raises:
        PackError: names both shapes.
    """
    expected = [int(visual.proj.shape[1]), inputs_of(visual)]
    if list(weight.shape) != expected:
        raise PackError(f"{WEIGHT}: expected shape {expected} for this encoder, found {list(weight.shape)}.")


def with_patches(cls: Tensor, taps: list[Tensor], patches: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Features with what the linear says, [B, N, D], added; not normalised."""
    return cls + patches.mean(1), [tap + patches for tap in taps]


def _with_child(module: nn.Module, name: str, child: nn.Module) -> Any:
    """A module that shares everything with another but one child."""
    other = copy.copy(module)
    other._modules = {**module._modules, name: child}
    return other
