"""Packs for `dapo.testing.small_encoder`, made once."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from dapo.encoder import Encoder
from dapo.model import DapoModel
from dapo.pack import Pack
from dapo.packing import make_pack
from dapo.testing import small_encoder

PRODUCTS = {"tube": ["hole"], "plate": ["scratch", "hole"], "blank": []}


@cache
def encoder() -> Encoder:
    return small_encoder()


@cache
def pack(seed: int = 0) -> Pack:
    """Three types, products with 0 to 3 of them; another seed has other prompts."""
    return make_pack(DapoModel(encoder(), seed=seed), ["scratch", "dent", "hole"], products=PRODUCTS)


def calibrated(ok: float = 0.1, notok: float = 0.2) -> Pack:
    """The same pack with thresholds: another configuration, the same image side."""
    product = replace(pack().product("tube"), threshold_ok=ok, threshold_notok=notok, calibrated=True)
    return pack().with_products({"tube": product})


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
