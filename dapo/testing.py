"""For tests: a CLIP of random weights that takes milliseconds, on the code path of every other encoder."""

from __future__ import annotations

import dapo.lean  # noqa: F401  # before open_clip, which then takes a third of the time

# isort: split
import torch
from open_clip import SimpleTokenizer
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from dapo.encoder import Encoder, describe

IMAGE_SIZE = 64


def small_encoder(
    seed: int = 0, image_size: int = IMAGE_SIZE, *, blocks: int = 4, text_blocks: int = 3
) -> Encoder:
    """A frozen open_clip ViT of random weights: native 48 px, patches of 16 px, width 64, joint width 32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = CLIP(
            embed_dim=32,
            vision_cfg=CLIPVisionCfg(image_size=48, patch_size=16, width=64, layers=blocks, head_width=32),
            text_cfg=CLIPTextCfg(context_length=24, width=48, heads=4, layers=text_blocks),
            quick_gelu=True,
        )
    return describe(clip, SimpleTokenizer(context_length=24), "small-test-vit", f"random:{seed}", image_size)
