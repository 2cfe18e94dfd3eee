"""DAPO on a frozen CLIP: learned prompts in both towers, adapters on the taps, the text matrix they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dapo.encoder import Encoder
from dapo.head import Adapters
from dapo.patches import WEIGHT, after_stem, fresh_linear, has_stem, patch_inputs, with_patches
from dapo.prompts import (
    ALPHA,
    CONTEXT,
    PROMPTS,
    TEMPERATURE,
    TOKENS,
    LearnedPrompts,
    defect_sentence,
    normal_sentence,
    token_ids,
)
from dapo.text import Readout, encode_prompts
from dapo.vision import encode_image


@dataclass(frozen=True)
class ImageFeatures:
    """Features of a batch in the joint space.

    Attributes:
        cls: g, [B, D], L2-normalised.
        taps: p_l, one [B, N, D] per tap, L2-normalised.
    """

    cls: Tensor
    taps: list[Tensor]


class DapoModel(nn.Module):
    """The model of method section 1. Only V, W, T, P and the adapters have gradients, and the linear from the patch layer
    once `tune_patches` was called.

    Args:
        encoder: a frozen encoder.
        prompts: E, prompts per state.
        context: l, learned context tokens per prompt.
        tokens: deep tokens per block, in both towers.
        text_depth: text blocks with deep tokens, from the first; None for all.
        alpha: progressive mix.
        temperature: tau.
        seed: of the initial values.

    Example:
        >>> from dapo.encoder import load_encoder
        >>> model = DapoModel(load_encoder("ViT-B-32", "random", 64))
        >>> model.text_matrix(["scratch", "hole"]).shape
        torch.Size([3, 512])
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        prompts: int = PROMPTS,
        context: int = CONTEXT,
        tokens: int = TOKENS,
        text_depth: int | None = None,
        alpha: float = ALPHA,
        temperature: float = TEMPERATURE,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.clip: Any = encoder.clip
        self.alpha = alpha
        self.temperature = temperature
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.prompts = LearnedPrompts(
                encoder, prompts=prompts, context=context, tokens=tokens, text_depth=text_depth
            )
            self.adapters = Adapters(len(encoder.taps), encoder.vision_width, encoder.joint_width)
        device = next(self.clip.parameters()).device
        self.prompts.to(device)
        self.adapters.to(device)
        self.patch: nn.Linear | None = None

    def train(self, mode: bool = True) -> DapoModel:
        """Switch the learned parts to training; the frozen encoder stays in eval mode."""
        super().train(mode)
        self.clip.eval()
        return self

    def tune_patches(self) -> None:
        """Add the linear from the patch layer (`dapo.patches`), which is learned from here on."""
        if self.patch is None:
            self.patch = fresh_linear(self.clip.visual)

    def learned(self) -> dict[str, Tensor]:
        """V, W, T, P, the adapters and the patch layer's linear by the pack's names, as they are (not copied)."""
        tensors: dict[str, Tensor] = {
            "prompt.normal": self.prompts.normal,
            "prompt.abnormal": self.prompts.abnormal,
            **{f"prompt.text.{index}": tokens for index, tokens in enumerate(self.prompts.text)},
            "prompt.visual": self.prompts.visual,
        }
        for index, layer in enumerate(self.adapters.layers):
            tensors[f"adapter.{index}.weight"] = layer.get_parameter("weight")
            tensors[f"adapter.{index}.bias"] = layer.get_parameter("bias")
        if self.patch is not None:
            tensors[WEIGHT] = self.patch.weight
        return tensors

    def trainable(self) -> list[nn.Parameter]:
        """What an optimiser gets: about 3.36 M parameters on ViT-L."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def text_matrix(self, words: Sequence[str], readout: Readout = "eot") -> Tensor:
        """t, [1+K, D], rows L2-normalised; row 0 is the normal state. It does not depend on any image.

        With gradients on, all sentences go through the text tower together; without, one word at a time, so
        that a word's row never depends on its neighbours, not by one bit.
        """
        sentences = [normal_sentence(self._context, self._noun), *self._sentences(words)]
        return F.normalize(self.text_means(token_ids(self.encoder, sentences), readout), dim=-1)

    def text_vectors(self, words: Sequence[str], readout: Readout = "eot") -> Tensor:
        """Rows of the text matrix for `words` alone: [K, D]."""
        ids = token_ids(self.encoder, self._sentences(words))
        return F.normalize(self.text_means(ids, readout, normal_first=False), dim=-1)

    def text_means(self, ids: Tensor, readout: Readout, *, normal_first: bool = True) -> Tensor:
        """Tokenized sentences [R, L] -> mean over their E prompts, not normalised, [R, D].

        `normal_first`: the first sentence is the normal state's and takes V; all others take W.
        """
        context = self.prompts.context(len(ids), normal_first=normal_first)
        if torch.is_grad_enabled():
            return self._encode(ids, context, readout).mean(1)
        rows = (slice(row, row + 1) for row in range(len(ids)))
        return torch.cat([self._encode(ids[row], context[row], readout).mean(1) for row in rows])

    def image_features(self, pixels: Tensor, *, stem: bool = False) -> ImageFeatures:
        """Normalised pixels float32 [B, 3, S, S] -> image feature and adapted patch features.

        Args:
            stem: `pixels` are what the encoder's stem said of them, [B, channels, h, w].
        """
        visual = self.clip.visual
        out = encode_image(
            after_stem(visual) if stem else visual, pixels, self.encoder.taps, self.prompts.visual, self.alpha
        )
        if self.patch is None:
            return self.adapted(out.cls, out.taps)
        seen = visual.conv1.stem(pixels) if has_stem(visual) and not stem else pixels
        return self.adapted(out.cls, out.taps, patch_inputs(visual, seen))

    def adapted(self, cls: Tensor, hidden: Sequence[Tensor], patches: Tensor | None = None) -> ImageFeatures:
        """What lies behind the blocks: adapters, and the linear from the patch layer where there is one.

        Args:
            cls: as `encode_image` gives it, [B, D].
            hidden: of the taps, [B, N, width] each.
            patches: what the linear sees, [B, N, inputs]; needed where there is one.
        """
        taps = self.adapters(hidden)
        if self.patch is not None:
            assert patches is not None
            cls, taps = with_patches(cls, taps, self.patch(patches))
        return ImageFeatures(F.normalize(cls, dim=-1), [F.normalize(tap, dim=-1) for tap in taps])

    def _encode(self, ids: Tensor, context: Tensor, readout: Readout) -> Tensor:
        return encode_prompts(self.clip, ids, context, list(self.prompts.text), self.alpha, readout)

    @property
    def _context(self) -> int:
        return self.prompts.normal.shape[1]

    @property
    def _noun(self) -> str:
        return self.encoder.normal_template_noun

    def _sentences(self, words: Sequence[str]) -> list[str]:
        return [defect_sentence(word, self._context, self._noun) for word in words]
