"""dapo-tiny, the bundled encoder: a small open_clip CLIP whose patch layer is a frozen ImageNet stem.

The stem is EfficientNet-lite0 (Tan & Le, arXiv 1905.11946; Apache-2.0 weights, see NOTICE) up to its block 10 (112
channels, stride 16) with block 4 (40 channels, stride 8) folded in by a 2 x 2 pixel-unshuffle: 272 channels. Its batch
norms are folded into the convolutions. Everything after the patch layer is the plain open_clip path, so prompts, deep
prompts and taps apply as they do on ViT-L.
"""

from __future__ import annotations

import dapo.lean  # noqa: F401  # before open_clip, which then takes a third of the time

# isort: split
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from dapo.errors import WeightsNotFound
from dapo.preprocess import CLIP_MEAN, CLIP_STD
from dapo.tiny_tokenizer import CONTEXT_LENGTH, WordTokenizer

NAME = "dapo-tiny"
IMAGE_SIZE = 256
PATCH_SIZE = 16
WIDTH = 192
JOINT_WIDTH = 192
LAYERS = 4
TEXT_WIDTH = 128
TEXT_LAYERS = 3
STEM_CHANNELS = 272
TAPS = (1, 2, 3, 4)  # blocks whose dense features were trained against the text tower

# One row per MBConv block of EfficientNet-lite0: kernel, stride, expansion, input and output channels.
_BLOCKS = (
    (3, 1, 1, 32, 16),
    (3, 2, 6, 16, 24),
    (3, 1, 6, 24, 24),
    (5, 2, 6, 24, 40),
    (5, 1, 6, 40, 40),
    (3, 2, 6, 40, 80),
    (3, 1, 6, 80, 80),
    (3, 1, 6, 80, 80),
    (5, 1, 6, 80, 112),
    (5, 1, 6, 112, 112),
    (5, 1, 6, 112, 112),
)
_FINE_BLOCK = 4
_CLAMP = 6.0  # standardised features beyond six spreads are noise of rare channels
_SPREAD_FLOOR = 0.15  # keeps a flat image (spread near 0) from being blown up to noise


class _SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding for even inputs: the odd pixel goes to the right and the bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=True)
        total = kernel - stride
        self.pads = (total // 2, total - total // 2) * 2

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, self.pads) if any(self.pads) else input)


class _Block(nn.Module):
    """Inverted residual without squeeze-and-excitation, batch norms folded."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Conv2d(inputs, hidden, 1) if expansion != 1 else None
        self.depthwise = _SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.project(F.relu6(self.depthwise(hidden)))
        return x + out if self.residual else out


class Lite0Stem(nn.Module):
    """CLIP-normalised images [B, 3, S, S] -> raw stem features [B, 272, S/16, S/16]."""

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = _SameConv(3, 32, 3, 2)
        self.blocks = nn.ModuleList(_Block(*row) for row in _BLOCKS)
        # From CLIP's normalisation to this network's own (0..255 -> (x - 127) / 128), as one scale and shift.
        mean, std = torch.tensor(CLIP_MEAN), torch.tensor(CLIP_STD)
        self.register_buffer("scale", (std * 255 / 128).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", ((mean * 255 - 127) / 128).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        # Channels last: a third of the time on a CPU, where depthwise convolutions are slow otherwise.
        images = (images * self.scale + self.shift).contiguous(memory_format=torch.channels_last)
        x = F.relu6(self.conv(images))
        fine = x
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == _FINE_BLOCK:
                fine = x
        return torch.cat([F.pixel_unshuffle(fine, 2), x], 1)


class StemProjection(nn.Module):
    """Stem features [B, 272, h, w] -> patch tokens [B, width, h, w].

    Features are standardised twice: by constants of the training pool, and by the image's own mean and spread. The
    second half says what is unusual for this very image, whatever the surface.
    """

    pool_mean: Tensor
    pool_std: Tensor

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.register_buffer("pool_mean", torch.zeros(STEM_CHANNELS))
        self.register_buffer("pool_std", torch.ones(STEM_CHANNELS))
        self.linear = nn.Conv2d(2 * STEM_CHANNELS, width, 1)

    def standardise(self, features: Tensor, mean: Tensor | None = None, std: Tensor | None = None) -> Tensor:
        """[B, 272, h, w] -> [B, 544, h, w]. `mean`, `std`: [B, 272] of the whole image where `features` is a crop."""
        if mean is None or std is None:
            mean, std = features.mean((2, 3)), features.std((2, 3))
        pool_mean, pool_std = self.pool_mean.view(1, -1, 1, 1), self.pool_std.view(1, -1, 1, 1)
        general = (features - pool_mean) / pool_std
        own_std = std[:, :, None, None] / pool_std + _SPREAD_FLOOR
        relative = (features - mean[:, :, None, None]) / pool_std / own_std
        return torch.cat([general, relative], 1).clamp(-_CLAMP, _CLAMP)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.linear(self.standardise(features))
        return out


class StemPatches(nn.Module):
    """The patch layer of dapo-tiny, in the place of an open_clip ViT's `conv1`."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.stem = Lite0Stem()
        self.projection = StemProjection(width)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.projection(self.stem(images))
        return out


@dataclass(frozen=True)
class TinyEncoder:
    """dapo-tiny as loaded from its file.

    Attributes:
        clip: the open_clip model, frozen, in eval mode, float32.
        tokenizer: sentences -> int64 [N, 16].
        metadata: training provenance as written by the export.
    """

    clip: CLIP
    tokenizer: WordTokenizer
    metadata: dict[str, Any]


def build_tiny(vocab_size: int) -> CLIP:
    """An untrained dapo-tiny."""
    model = CLIP(
        embed_dim=JOINT_WIDTH,
        vision_cfg=CLIPVisionCfg(
            image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, width=WIDTH, layers=LAYERS, head_width=32
        ),
        text_cfg=CLIPTextCfg(
            context_length=CONTEXT_LENGTH,
            vocab_size=vocab_size,
            width=TEXT_WIDTH,
            heads=4,
            layers=TEXT_LAYERS,
            no_causal_mask=True,  # DAPO's learned prompts attend without a mask: so does this tower from the start
        ),
    )
    model.visual.conv1 = StemPatches()
    return model


def bundled_weights() -> Path:
    """Path of the weights that come with the package."""
    return Path(str(resources.files("dapo"))) / "weights" / "dapo-tiny.safetensors"


def load_tiny(path: Path | None = None) -> TinyEncoder:
    """Load dapo-tiny, by default the bundled one.

    Raises:
        WeightsNotFound: the file is missing or is not a dapo-tiny.
    """
    missing = (
        "the bundled encoder is missing. Reinstall the package, or run 'make encoder' to train it again."
        if path is None
        else "no such file. Give the file of dapo-tiny's weights, or leave --weights out: they are bundled."
    )
    path = path or bundled_weights()
    try:
        if not path.is_file():
            raise WeightsNotFound(f"{path}: {missing}")
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {}).get("dapo_tiny", "{}"))
            names = file.keys()  # the open file itself can't be iterated
            state = {name: file.get_tensor(name).float() for name in names}
    except (OSError, SafetensorError, ValueError) as error:
        raise WeightsNotFound(f"{path}: can't be read as safetensors ({error}).") from error
    if not isinstance(metadata, dict) or "phrases" not in metadata:
        raise WeightsNotFound(f"{path}: not a dapo-tiny file (its metadata has no vocabulary).")
    tokenizer = WordTokenizer(metadata["phrases"])
    model = build_tiny(tokenizer.vocab_size)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsNotFound(f"{path}: these weights do not fit dapo-tiny. {error}") from error
    return TinyEncoder(model.eval().requires_grad_(False), tokenizer, metadata)
