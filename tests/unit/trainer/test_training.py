"""What training leans on: styles that are mixed without touching content, temperatures that are likely."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dapo.encoder import Encoder, load_encoder
from dapo.handwritten import make_handwritten_pack
from dapo.pack import Pack
from dapo.tiny import STEM_CHANNELS
from trainer.encoder.features import CELLS, GRID, Pool
from trainer.encoder.forward import image_taps
from trainer.encoder.generator import FAMILIES, VALIDATION_FAMILIES
from trainer.encoder.temperature import fit_temperature
from trainer.encoder.train import Batch

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


def batch(features: torch.Tensor) -> Batch:
    nothing = torch.zeros(len(features))
    return Batch(
        features, features.mean((2, 3)), features.std((2, 3)), nothing, nothing, nothing, nothing,
        np.zeros(len(features), np.uint8), (0, 0), nothing, 0,
    )  # fmt: skip


def test_mixed_styles_change_statistics_and_nothing_else() -> None:
    torch.manual_seed(0)
    features = torch.randn(4, STEM_CHANNELS, 8, 8) * torch.tensor([1.0, 2, 3, 4])[:, None, None, None]
    one = batch(features)
    mixed = one.restyled()
    assert not torch.allclose(mixed, features)

    def content(some: torch.Tensor) -> torch.Tensor:
        return (some - some.mean((2, 3), keepdim=True)) / some.std((2, 3), keepdim=True)

    torch.testing.assert_close(content(mixed), content(features), rtol=0, atol=2e-3)
    spread = mixed.std((2, 3))
    assert (spread > one.std.min() - 0.1).all()
    assert (spread < one.std.max() + 0.1).all()


def test_a_style_moves_only_the_half_that_the_pool_standardises(encoder: Encoder) -> None:
    features = torch.randn(2, STEM_CHANNELS, GRID, GRID)
    mean, std = features.mean((2, 3)), features.std((2, 3))
    plain, _ = image_taps(encoder.clip, features, mean, std, (0, 0))
    same, _ = image_taps(encoder.clip, features, mean, std, (0, 0), None, features)
    torch.testing.assert_close(same, plain)
    no_general = torch.zeros(2)
    dropped, _ = image_taps(encoder.clip, features, mean, std, (0, 0), no_general)
    restyled, _ = image_taps(encoder.clip, features, mean, std, (0, 0), no_general, 3 * features)
    torch.testing.assert_close(restyled, dropped)


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
