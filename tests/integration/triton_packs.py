"""Packs of the bundled encoder, and frames, for tests on a real model server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import pipeline
from dapo.pack import Pack, Product
from dapo.pack_io import read_pack
from dapo.preprocess import resize
from pipeline.bundled import default_pack_path

SAMPLES = Path(pipeline.__file__).parent / "samples"
SMALL = 64  # px: 16 patches instead of 256, for tests that ask often


def bundled() -> Pack:
    """The bundled pack, with products of no, one and few types."""
    types = read_pack(default_pack_path()).product("*").types
    own = {"none": Product(), "one": Product(types=types[2:3]), "few": Product(types=types[:5])}
    return read_pack(default_pack_path()).with_products(own)


def small(pack: Pack) -> Pack:
    """The same for images of 64 px."""
    return replace(pack, encoder=replace(pack.encoder, image_size=SMALL, patch_grid=SMALL // 16))


def other(pack: Pack) -> Pack:
    """The same image side under another configuration."""
    return pack.with_products({"one": replace(pack.product("one"), mask_threshold=0.7)})


def prompted(pack: Pack) -> Pack:
    """Another image side: other visual prompts."""
    prompts = np.ascontiguousarray(pack.tensors["prompt.visual"][:, ::-1])
    return replace(pack, tensors={**pack.tensors, "prompt.visual": prompts})


def frames(count: int, size: int) -> NDArray[np.uint8]:
    """Model inputs from the sample photographs, each time turned and mirrored otherwise: uint8 [count, S, S, 3]."""
    pictures = [
        resize(np.asarray(Image.open(path).convert("RGB")), size) for path in sorted(SAMPLES.glob("*.png"))
    ]
    found = []
    for number in range(count):
        turned = np.rot90(pictures[number % len(pictures)], number // len(pictures))
        found.append(turned if number % 2 else turned[:, ::-1])
    return np.ascontiguousarray(np.stack(found))
