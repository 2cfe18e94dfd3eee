"""What the default pack leans on: a temperature that is likely."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dapo.encoder import Encoder, load_encoder
from dapo.handwritten import make_handwritten_pack
from dapo.pack import Pack
from dapo.tiny import STEM_CHANNELS
from trainer.encoder.features import CELLS, GRID, Pool
from trainer.encoder.generator import FAMILIES, VALIDATION_FAMILIES
from trainer.encoder.temperature import fit_temperature

COUNT = 6


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("dapo-tiny")


@pytest.fixture(scope="module")
def pack(encoder: Encoder) -> Pack:
    return make_handwritten_pack(encoder, ["scratch"])


def pool(family: str) -> Pool:
    rng = np.random.default_rng(0)
    cover = np.zeros((COUNT, CELLS, CELLS), np.uint8)
    cover[::2, 4:9, 4:9] = 255
    return Pool(
        rng.normal(0, 2, (COUNT, STEM_CHANNELS, GRID, GRID)).astype(np.float16),
        (cover > 0).astype(np.uint8),
        cover,
        np.full(COUNT, list(FAMILIES).index(family), np.uint8),
    )


def test_a_sharp_pack_gets_a_milder_temperature_and_keeps_all_else(encoder: Encoder, pack: Pack) -> None:
    sharp = replace(pack, temperature=0.02)
    found = fit_temperature(sharp, encoder, pool(VALIDATION_FAMILIES[0]))
    assert found.temperature > 0.1, "noise says nothing of defects: near-certain cells are unlikely"
    assert replace(found, temperature=0.02).configuration_hash == sharp.configuration_hash
    again = fit_temperature(pack, encoder, pool(VALIDATION_FAMILIES[0]))
    assert again.temperature == found.temperature, "where it starts does not matter"


def test_a_pool_without_the_families_says_how_to_draw_one(encoder: Encoder, pack: Pack) -> None:
    with pytest.raises(SystemExit, match="--families validation"):
        fit_temperature(pack, encoder, pool("brushed"))
