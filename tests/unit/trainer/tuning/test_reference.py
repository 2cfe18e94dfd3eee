"""A memory knows good frames again, and says how far others are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dapo.errors import PackError
from dapo.pack import Product, Scoring
from dapo.pack_io import pack_bytes, unpack
from dapo.predictor import Head
from dapo.reference import StemTap, distances
from trainer.tuning.memories import Memories, principal_directions
from trainer.tuning.reference import Known, remember, weighted, with_memory, without_memories

from .plates import base_pack


def frames(count: int, seed: int, *, odd: bool = False) -> torch.Tensor:
    """[F, 4, 16, 32]: cells around four directions; an odd frame has three cells of a fifth."""
    draw = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(5, 4, 32, generator=torch.Generator().manual_seed(9)), dim=-1)
    kinds = torch.randint(0, 4, (count, 16), generator=draw)
    if odd:
        kinds[:, :3] = 4
    taps = centres[kinds].transpose(1, 2) + 0.1 * torch.randn(count, 4, 16, 32, generator=draw)
    return F.normalize(taps, dim=-1)


def test_odd_cells_are_far_and_good_ones_near() -> None:
    pack, _ = base_pack()
    good = frames(12, 1)
    memory = remember(good, range(12), (0, 1, 2, 3), size=40)
    assert memory.rows.shape == (40, 4 * 32)
    made = with_memory(pack, "*", memory)
    head = Head(replace(made, scoring=replace(made.scoring, smoothing_sigma=0.0)))
    tests = torch.cat([frames(6, 2), frames(6, 3, odd=True)])
    cls = F.normalize(torch.ones(12, 32), dim=-1)
    alone = replace(memory.reference, map_weight=1.0, score_weight=1.0)
    head = Head(
        replace(
            made, scoring=replace(made.scoring, smoothing_sigma=0.0), products={"*": Product(reference=alone)}
        )
    )
    found = head.predict(cls, tests, ["*"] * 12)
    assert max(p.score for p in found[:6]) < min(p.score for p in found[6:])
    for prediction in found[6:]:
        cells = prediction.map.astype(float).flatten()
        assert cells[:3].min() > 0.5 > np.median(cells[3:])


def test_the_same_frames_give_the_same_memory_and_no_more_rows_than_asked() -> None:
    good = frames(6, 1)
    one, other = (remember(good, range(6), (0,), size=10, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.rows, other.rows)
    assert len(one.rows) == 10
    assert len(remember(good, range(6), (0,), size=10_000).rows) == 6 * 16


def test_rare_good_places_are_remembered() -> None:
    good = frames(20, 1)
    rare = F.normalize(-good[0, :, :1], dim=-1)  # one cell of one frame lies opposite to all others
    good[0, :, :1] = rare
    memory = remember(good, range(20), (0, 1, 2, 3), size=8)
    wanted = (rare.transpose(0, 1).flatten(1) / 2).numpy()
    assert np.isclose(memory.rows @ wanted[0], 1, atol=1e-5).any()


def test_weights_follow_whoever_ranks_better() -> None:
    good = frames(12, 1)
    memory = remember(good, range(12), (0, 1, 2, 3), size=40)
    taps = torch.cat([frames(8, 2), frames(8, 3, odd=True)])
    defective = np.arange(16) >= 8
    rng = np.random.default_rng(0)
    masks = np.zeros((16, 4, 4), bool)
    masks[8:].reshape(8, 16)[:, :3] = True
    blind = Known(
        taps, rng.uniform(0, 1, 16), defective, rng.uniform(0, 1, (16, 4, 4)).astype(np.float32), masks
    )
    knowing = replace(blind, scores=defective.astype(float), maps=masks.astype(np.float32))
    scoring = Scoring(smoothing_sigma=0.0)
    memory = replace(memory, reference=replace(memory.reference, score_weight=0.5, map_weight=0.5))
    found = weighted(memory, blind, scoring).reference
    assert found.score_weight > 0.5
    assert found.map_weight > 0.5
    same = weighted(memory, replace(knowing, defective=np.zeros(16, bool)), scoring)
    assert same.reference == memory.reference  # nothing to rank
    assert weighted(memory, knowing, scoring).reference.score_weight == 0.5  # both are right


def test_a_pack_carries_its_memories_and_refuses_half_of_one() -> None:
    pack, _ = base_pack()
    memory = remember(frames(4, 1), range(4), (0, 2), size=5)
    made = with_memory(pack, "plate", memory)
    assert unpack(pack_bytes(made)).configuration_hash == made.configuration_hash
    assert made.features_hash == pack.features_hash
    assert without_memories(made).configuration_hash != made.configuration_hash
    with pytest.raises(PackError, match=r"reference\.plate"):
        replace(made, tensors=pack.tensors)
    with pytest.raises(PackError, match="expected rows of 64"):
        replace(made, tensors={**made.tensors, "reference.plate": memory.rows[:, :32]})


def test_other_products_do_not_change_by_a_bit() -> None:
    pack, _ = base_pack()
    pack = pack.with_products({"ring": Product(types=("hole",))})
    made = with_memory(pack, "plate", remember(frames(4, 1), range(4), (0,), size=5))
    cls, taps = F.normalize(torch.randn(2, 32), dim=-1), frames(2, 5)
    for one, other in zip(
        Head(pack).predict(cls, taps, ["ring"] * 2), Head(made).predict(cls, taps, ["ring"] * 2), strict=True
    ):
        assert one.score == other.score
        np.testing.assert_array_equal(one.map, other.map)


def test_principal_directions_keep_distances() -> None:
    rng = np.random.default_rng(2)
    cells = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 40)) + 3).astype(np.float32)
    weight, bias = principal_directions(cells, 8)
    scaled = (cells - cells.mean(0)) / cells.std(0)
    projected = cells @ weight.T + bias
    np.testing.assert_allclose(
        np.linalg.norm(projected[0] - projected[1]), np.linalg.norm(scaled[0] - scaled[1]), rtol=1e-3
    )


def test_a_cell_of_twice_the_contrast_is_another() -> None:
    cells = np.random.default_rng(3).normal(size=(2000, 40)).astype(np.float32)
    cells -= cells.mean(0)
    tap = StemTap(*map(torch.from_numpy, principal_directions(cells, 48)))
    one, twice = (tap(torch.from_numpy(scale * cells[:1])[..., None, None])[0] for scale in (1.0, 2.0))
    assert float(distances(one, twice)) > 0.2
    assert float(distances(one, one)) < 1e-3


def test_wrong_options_are_named() -> None:
    with pytest.raises(Exception, match="frames or more"):
        Memories(frames=1)
