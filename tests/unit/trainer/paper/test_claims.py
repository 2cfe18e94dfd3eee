"""The paper's claims: what is trained on what, that ablations lack what they say, and how figures become tables."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from dapo.testing import small_encoder
from tests.unit.trainer.tuning.plates import plates
from trainer.data.dataset import ProductData
from trainer.data.sample import Sample
from trainer.paper.claims import Trial, new_products, novel_types, run_trial, tuned
from trainer.paper.comparison import (
    DAPO,
    HAND,
    METRICS,
    VARIANTS,
    Run,
    by_seed,
    gains,
    pictures,
    tables,
)
from trainer.paper.plot import Series, dots

DEEP, WORDS = VARIANTS[2], VARIANTS[3]


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in plates(tmp_path_factory.mktemp("plates"), good=6, each=4):
        found.setdefault(sample.product, []).append(sample)
    return found


def test_each_product_is_tested_once_per_seed_and_never_teaches_its_own_test(
    frames: dict[str, list[Sample]],
) -> None:
    many = {f"{name} {number}": own for name, own in frames.items() for number in range(3)}
    for seed in range(3):
        trials = new_products(many, [seed], 4)
        tested = [product.name for trial in trials for product in trial.test]
        assert sorted(tested) == sorted(many)
        for trial in trials:
            taught = set(trial.name.removeprefix("tuned on ").split(", "))
            assert not taught & {product.name for product in trial.test}
    halves = {tuple(p.name for p in new_products(many, [seed], 4)[0].test) for seed in range(8)}
    assert len(halves) > 1, "another half for each seed"


def test_a_withheld_type_is_not_learned_from_and_is_tested(frames: dict[str, list[Sample]]) -> None:
    halved = {name: (own[::2], own[1::2]) for name, own in frames.items()}
    first, second, third = novel_types(halved, [0, 1, 2], 10)
    assert (first.withheld, second.withheld, third.withheld) == (("hole",), ("scratch",), ())
    for trial in (first, second):
        assert not {word for sample in trial.train for word in sample.words} & set(trial.withheld)
        assert {word for product in trial.test for word in product.words} >= set(trial.withheld)
        keys = {sample.key for sample in trial.train}
        assert not keys & {sample.key for product in trial.test for sample in product.samples}
    assert third.test == ()


@pytest.fixture(scope="module")
def trial(frames: dict[str, list[Sample]]) -> Trial:
    train, test = frames["plate"], frames["ring"]
    known = [sample for sample in train if "hole" not in sample.words]
    return Trial("types", 0, "without hole", tuple(known), (ProductData("ring", tuple(test)),), ("hole",))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_variant_is_tuned_and_tested(trial: Trial, variant: object, tmp_path: Path) -> None:
    found = run_trial(trial, variant, small_encoder(), tmp_path, epochs=1)["ring"]  # type: ignore[arg-type]
    assert set(found) == set(METRICS)
    for name in ("image AUROC", "pixel AUROC", "novel image AUROC", "novel pixel AUROC"):
        assert found[name] is not None
        assert 0 <= found[name] <= 1
    assert (found["novel types AUROC"] is None) == (variant is WORDS)
    assert (found["seen types AUROC"] is None) == (variant is WORDS)


def test_ablations_lack_what_they_say(trial: Trial, tmp_path: Path) -> None:
    encoder = small_encoder()
    whole, shallow, wordless = (tuned(trial, one, encoder, tmp_path, 1) for one in (DAPO, DEEP, WORDS))
    assert whole.tensors["prompt.visual"].size > 0
    assert shallow.tensors["prompt.visual"].size == 0
    assert not [name for name in shallow.tensors if name.startswith("prompt.text.")]
    assert [word.word for word in whole.types] == ["scratch"]
    assert [word.word for word in wordless.types] == ["x"]
    fresh = tuned(trial, DAPO, encoder, tmp_path, 2)
    assert not np.array_equal(fresh.tensors["adapter.0.weight"], whole.tensors["adapter.0.weight"])


def run(claim: str, seed: int, variant: str, value: float) -> Run:
    return Run(
        claim, seed, variant, {"a": {"image AUROC": value}, "b": {"image AUROC": value + 0.1, "AUPRO": None}}
    )


RUNS = [
    *(run("products", seed, DAPO.name, 0.8 + 0.02 * seed) for seed in range(3)),
    *(run("products", seed, HAND.name, 0.7) for seed in range(3)),
]


def test_gains_are_of_the_same_seed_in_points() -> None:
    assert by_seed(RUNS, "products", DAPO.name)["image AUROC"] == pytest.approx({0: 0.85, 1: 0.87, 2: 0.89})
    mean, wide = gains(RUNS, "products")["image AUROC"]
    assert (mean, wide) == (pytest.approx(12.0), pytest.approx(2.0))
    assert gains(RUNS, "types") == {}


def test_tables_and_pictures_show_mean_and_spread() -> None:
    text = tables(RUNS)
    assert "| DAPO prompts | 0.870 ± 0.020 |" in text
    assert "| *DAPO prompts against hand-written prompts, points* | +12.0 ± 2.0 |" in text
    assert "AUPRO" not in text
    picture = pictures(RUNS)["products"]
    ElementTree.fromstring(picture)
    assert "DAPO prompts, image AUROC: 0.870 ± 0.020" in picture


def test_dots_of_nothing_are_an_empty_picture() -> None:
    text = dots([Series("<one>", {})], ["a"], "nothing")
    ElementTree.fromstring(text)
    assert "&lt;one&gt;" in text
    assert "<circle" not in text
