"""The image side of a pack as one module: pixels to features, what a runtime compiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dapo.encoder import Encoder
from dapo.errors import PackError
from dapo.pack import STEM_TAP, Pack
from dapo.patches import WEIGHT, after_stem, check_weight, has_stem, patch_inputs, with_patches
from dapo.reference import StemTap
from dapo.vision import encode_image, project


class ImageTower(nn.Module):
    """Encoder, visual prompts and adapters of a pack; a pack of hand-written prompts has the encoder alone.

    Args:
        pack: its learned tensors are copied.
        encoder: the one that the pack was made for; shared, not copied.

    Raises:
        PackError: a tensor does not fit the encoder.
    """

    def __init__(self, pack: Pack, encoder: Encoder) -> None:
        super().__init__()
        visual: Any = encoder.clip.visual
        self._alpha = pack.alpha
        self._learned = pack.kind == "dapo"
        self._taps = encoder.taps if self._learned else encoder.dense_taps
        for name, values in pack.tensors.items():
            if name.startswith(("prompt.visual", "adapter.")):
                self.register_buffer(name.replace(".", "_"), _tensor(values))
        if WEIGHT in pack.tensors:
            check_weight(visual, _tensor(pack.tensors[WEIGHT]))
            self.register_buffer("patch_weight", _tensor(pack.tensors[WEIGHT]))
        self._tuned_patches = WEIGHT in pack.tensors
        self._stem: Any = visual.conv1.stem if has_stem(visual) else nn.Identity()
        self._whole, self._visual = visual, after_stem(visual) if has_stem(visual) else visual
        self._stem_tap: StemTap | None = None
        if pack.has_stem_tap:
            if not has_stem(visual):
                raise PackError(
                    f"tensor {STEM_TAP}.weight: {encoder.name} has no stem. Make the memories of its taps."
                )
            weight, bias = (_tensor(pack.tensors[f"{STEM_TAP}.{part}"]) for part in ("weight", "bias"))
            self._stem_tap = StemTap(weight, bias)
        self.to(visual.class_embedding.device)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Normalised pixels float32 [B, 3, S, S] -> CLS [B, D] and one [B, N, D] per tap, all L2-normalised.

        Where the pack has one, the stem's tap is the last.
        """
        return self.behind_stem(self._stem(pixels))

    def behind_stem(self, seen: Tensor) -> tuple[Tensor, ...]:
        """The same from what the stem said, [B, channels, h, w]; from pixels where the encoder has no stem."""
        prompts = self.get_buffer("prompt_visual") if self._learned else None
        out = encode_image(self._visual, seen, self._taps, prompts, self._alpha)
        patches = patch_inputs(self._whole, seen) if self._tuned_patches else None
        return self.behind_blocks(out.cls, out.taps, patches, seen)

    def behind_blocks(
        self, cls: Tensor, hidden: Sequence[Tensor], patches: Tensor | None, stem: Tensor
    ) -> tuple[Tensor, ...]:
        """The same from what the blocks said.

        Args:
            cls: as `encode_image` gives it, [B, D].
            hidden: of the taps, [B, N, width] each.
            patches: what the patch layer's linear sees, [B, N, inputs]; needed where the pack has one.
            stem: what the stem said; needed where the pack has a tap of it.
        """
        if self._learned:
            taps = [
                F.linear(
                    tap, self.get_buffer(f"adapter_{index}_weight"), self.get_buffer(f"adapter_{index}_bias")
                )
                for index, tap in enumerate(hidden)
            ]
        else:
            taps = [project(self._visual, tap) for tap in hidden]
        if self._tuned_patches:
            assert patches is not None
            cls, taps = with_patches(cls, taps, F.linear(patches, self.get_buffer("patch_weight")))
        features = tuple(F.normalize(one, dim=-1) for one in (cls, *taps))
        return features if self._stem_tap is None else (*features, self._stem_tap(stem))


def _tensor(values: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))
