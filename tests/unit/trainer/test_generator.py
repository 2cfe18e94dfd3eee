from __future__ import annotations

import numpy as np
import pytest

from trainer.encoder.features import cell_labels
from trainer.encoder.generator import (
    DEFECT_NAMES,
    DEFECTS,
    FAMILIES,
    HELD_OUT_FAMILIES,
    TRAIN_FAMILIES,
    VALIDATION_FAMILIES,
    apply_defect,
    augment,
    defects_for,
    draw_clean,
    draw_sample,
)
from trainer.encoder.generator.boards import TRACK_DEFECTS
from trainer.encoder.sentences import Writer, class_words, generic_words, phrases


def test_the_same_seed_gives_the_same_bytes():
    first, again = (
        augment(rng, draw_sample(rng, TRAIN_FAMILIES)) for rng in (np.random.default_rng(3) for _ in range(2))
    )
    assert first.family == again.family
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_draws_normals_without_labels(family):
    rng = np.random.default_rng(1)
    sample = draw_sample(rng, [family], normal_fraction=1)
    assert sample.image.shape == (224, 224, 3)
    assert not sample.labels.any()
    photo = augment(rng, sample)
    assert photo.image.shape == (256, 256, 3)
    assert photo.image.std() > 0


@pytest.mark.parametrize("name", [name for name, looks in DEFECTS.items() if looks])
def test_a_defect_changes_its_place_more_than_the_rest(name):
    rng = np.random.default_rng(11)
    family = "perforated" if name in ("bent", "misplaced", "squeeze") else "ceramic"
    image, inside, ground = draw_clean(rng, family)
    found = None
    while found is None:
        found = apply_defect(rng, name, image, inside, ground)
    damaged, mask = found
    change = np.abs(damaged - image).mean(-1)
    assert mask.sum() >= 12
    assert change[mask].mean() > 3 * change[~mask].mean()


@pytest.mark.parametrize("name", TRACK_DEFECTS)
def test_track_defects_are_labelled(name):
    rng = np.random.default_rng(2)
    kinds = set()
    while not kinds:
        sample = draw_sample(rng, ["tracks"], normal_fraction=0, two_fraction=0, allowed=[name])
        kinds = set(np.unique(sample.labels)) - {0}
    assert kinds == {DEFECT_NAMES.index(name) + 1}


def test_held_out_families_are_never_trained_on():
    assert not set(TRAIN_FAMILIES) & {*HELD_OUT_FAMILIES, *VALIDATION_FAMILIES}
    assert "mouse-bite" not in defects_for("wood")
    rng = np.random.default_rng(0)
    assert {draw_sample(rng, TRAIN_FAMILIES).family for _ in range(30)} <= set(TRAIN_FAMILIES)


def test_cells_name_the_commonest_defect_and_its_cover():
    labels = np.zeros((256, 256), np.uint8)
    labels[0:8, 0:8] = 3
    labels[0:8, 8:12] = 5
    labels[0:2, 12:16] = 7
    types, cover = cell_labels(labels)
    assert types[0, :3].tolist() == [3, 5, 0]
    assert cover[0, :3].tolist() == [255, 128, 0]


def test_every_promised_word_is_one_token_and_belongs_to_one_class():
    known = set(phrases())
    words = [word for group in class_words() for word in group]
    assert len(words) == len(set(words))
    assert not set(words) & set(generic_words())
    assert {*words, *generic_words()} <= known
    promised = [
        "bent",
        "broken",
        "color",
        "combined",
        "contamination",
        "crack",
        "cut",
        "fabric",
        "glue",
        "hole",
        "missing",
        "poke",
        "rough",
        "scratch",
        "squeeze",
        "thread",
        "liquid",
        "misplaced",
        "damaged",
        "discoloration",
        "compound",
        "gluing",
        "puncture",
        "compressed",
        "threading",
        "misaligned",
        "wear",
        "damage",
        "breakage",
        "burnt",
        "stuck",
        "partical",
        "bubble",
        "melded",
        "melt",
        "spot",
        "extra",
        "chip",
        "rust",
        "flattening",
        "mismatch",
        "deformed",
        "stains",
        "burrs",
        "pit",
        "deformation",
        "abrasion",
        "foreign",
        "blowhole",
        "break",
        "fray",
        "uneven",
        "spur",
        "inclusion",
        "patches",
        "scratches",
        "defective",
    ]
    promised += [
        "faulty imprint",
        "irregular wick",
        "weird wick",
        "wrong place",
        "defective painting",
        "missing parts",
    ]
    promised += ["mouse bite", "open circuit", "pin hole", "short circuit", "spurious copper"]
    assert set(promised) <= known


def test_a_bank_has_one_sentence_a_class_between_normal_and_generic():
    bank = Writer(np.random.default_rng(0)).bank("plate")
    assert len(bank) == len(DEFECT_NAMES) + 2
    assert all("plate" in sentence for sentence in bank)
    assert Writer(np.random.default_rng(0)).caption("wood", [0, 1]).count(" and ") == 1
