"""The image side of a pack as one module: pixels to features, what a runtime compiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dapo.encoder import Encoder
from dapo.pack import Pack
from dapo.vision import encode_image, project


class ImageTower(nn.Module):
    """Encoder, visual prompts and adapters of a pack; a pack of hand-written prompts has the encoder alone.

    Args:
        pack: its learned tensors are copied.
        encoder: the one that the pack was made for; shared, not copied.
    """

    def __init__(self, pack: Pack, encoder: Encoder) -> None:
        super().__init__()
        self.visual: Any = encoder.clip.visual
        self._alpha = pack.alpha
        self._learned = pack.kind == "dapo"
        self._taps = encoder.taps if self._learned else encoder.dense_taps
        for name, values in pack.tensors.items():
            if name.startswith(("prompt.visual", "adapter.")):
                tensor = torch.from_numpy(np.array(values, np.float32))
                self.register_buffer(name.replace(".", "_"), tensor)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Normalised pixels float32 [B, 3, S, S] -> CLS [B, D] and one [B, N, D] per tap, all L2-normalised."""
        if self._learned:
            out = encode_image(self.visual, pixels, self._taps, self.get_buffer("prompt_visual"), self._alpha)
            taps = [
                F.linear(
                    tap, self.get_buffer(f"adapter_{index}_weight"), self.get_buffer(f"adapter_{index}_bias")
                )
                for index, tap in enumerate(out.taps)
            ]
        else:
            out = encode_image(self.visual, pixels, self._taps)
            taps = [project(self.visual, tap) for tap in out.taps]
        return tuple(F.normalize(features, dim=-1) for features in (out.cls, *taps))
