"""Packs that differ as packs of a plant do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dapo.pack import Pack, Product
from dapo.pack_changes import add_type
from pipeline.testing import small_pack

OWN = Product(types=("scratch", "hole"), threshold_ok=0.2, threshold_notok=0.6, calibrated=True)


def champion() -> Pack:
    return small_pack(products={"*": OWN, "tube": replace(OWN, types=("hole",))})


def with_word(pack: Pack | None = None, word: str = "dent", *products: str) -> Pack:
    base = pack or champion()
    return add_type(base, word, np.eye(6, dtype=np.float32)[5], products=products or ("tube",))


def tuned(number: int = 1) -> Pack:
    """Another temperature: every score moves."""
    return replace(champion(), temperature=0.01 + number / 1000)
