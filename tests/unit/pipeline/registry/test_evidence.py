"""When no score can move, and when the gate has to be asked."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from dapo.pack import Pack, Product, Scoring
from dapo.pack_changes import set_product, set_threshold
from dapo.predictor import Predictor
from dapo.testing import small_encoder
from pipeline.cli.types import with_word as added
from pipeline.registry.evidence import NotProven, evidence, moves_scores
from pipeline.registry.pointers import Pointers
from pipeline.registry.registry import Registry
from pipeline.testing import MemoryStore
from tests.unit.pipeline.registry.packs import OWN, champion, tuned, with_word
from tests.unit.triton_models.packs import pack as encoded_pack

A = champion()


def _tensor(pack: Pack, name: str) -> Pack:
    changed = np.roll(pack.tensors[name], 1, axis=-1)
    return replace(pack, tensors={**pack.tensors, name: np.ascontiguousarray(changed)})


def test_a_new_word_moves_no_score() -> None:
    assert moves_scores(A, A) is None
    assert moves_scores(A, with_word(A, "dent", "tube", "*")) is None
    assert moves_scores(A, set_product(A, "tube", {"types": ("hole", "scratch")})) is None


def test_a_product_of_its_own_that_is_judged_as_all_others_were_moves_no_score() -> None:
    assert moves_scores(A, A.with_products({"plate": OWN})) is None
    assert moves_scores(A, A.with_products({"plate": replace(OWN, threshold_ok=0.1)})) is not None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (tuned(), "temperature differs"),
        (replace(A, scoring=Scoring(fuse_map=0.5)), "scoring differs"),
        (replace(A, scoring=Scoring("paper")), "paper scoring"),
        (replace(A, encoder=replace(A.encoder, sha256="1" * 64)), "encoder differs"),
        (_tensor(A, "text.generic"), r"tensor text\.generic differs"),
        (_tensor(A, "text.types"), r"tensor text\.types differs"),
        (set_threshold(A, "tube", 0.3, 0.6), "product tube differs"),
        (set_product(A, "tube", {"roi": (((0, 0), (1, 0), (1, 1)),)}), "product tube differs"),
        (set_product(A, "tube", {"min_area_px": 99}), "product tube differs"),
        (set_product(A, "tube", {"types": ("scratch",)}), "product tube loses a type"),
    ],
)
def test_all_else_may_move_scores_or_verdicts(changed: Pack, said: str) -> None:
    found = moves_scores(A, changed)
    assert found is not None
    assert re.search(said, found)


def test_a_word_that_is_taken_away_is_no_word_added() -> None:
    assert moves_scores(with_word(A), A) is not None


def test_thresholds_of_single_types_can_be_moved_by_a_word() -> None:
    own = replace(OWN, type_thresholds={"hole": (0.1, 0.3)})
    pack = A.with_products({"tube": own})
    assert "single types" in str(moves_scores(pack, with_word(pack)))


def test_scores_of_a_real_model_stay_equal_to_the_bit() -> None:
    """What the promise rests on."""
    before = encoded_pack()
    after = added(before, "tube", "scratch")
    assert moves_scores(before, after) is None
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    encoder = small_encoder()
    one, other = (Predictor(pack, encoder=encoder).predict(images, ["tube"] * 4) for pack in (before, after))
    for old, new in zip(one, other, strict=True):
        assert old.score == new.score
        assert np.array_equal(old.map, new.map)


def test_what_allows_a_pack() -> None:
    registry = Registry(MemoryStore())
    registry.push(A)
    hash_a, hash_b = A.configuration_hash, tuned().configuration_hash
    now = Pointers(champion=hash_a)
    assert evidence(registry, Pointers(), tuned()) == "first champion"
    assert "no worse by construction" in evidence(registry, now, with_word(A))
    with pytest.raises(NotProven, match=r"gate has not been asked.*temperature differs.*--force REASON"):
        evidence(registry, now, tuned())
    registry.keep_gate(hash_a, hash_b, {"outcome": "not-decidable"})
    with pytest.raises(NotProven, match="gate says not-decidable"):
        evidence(registry, now, tuned())
    registry.keep_gate(hash_a, hash_b, {"outcome": "promote"})
    assert evidence(registry, now, tuned()) == "gate: promote"


def test_products_without_types_are_compared_too() -> None:
    pack = A.with_products({"blank": Product()})
    assert moves_scores(pack, with_word(pack, "dent", "blank")) is None
