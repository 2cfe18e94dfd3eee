"""The bundled encoder and its default pack, as shipped."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dapo.encoder import load_encoder
from dapo.errors import WeightsNotFound
from dapo.handwritten import make_handwritten_pack, type_vectors
from dapo.inspection import Evaluation
from dapo.judge import judge
from dapo.pack import Product, Scoring, Tiles
from dapo.pack_changes import add_type
from dapo.pack_io import read_pack
from dapo.packing import load_pack_encoder, type_vector
from dapo.predictor import Predictor
from dapo.preprocess import resize
from dapo.tiles import merge, windows
from dapo.tiny import Lite0Stem, bundled_weights, load_tiny
from dapo.tiny_tokenizer import UNKNOWN, WordTokenizer
from pipeline.bundled import default_pack_path
from trainer.encoder.stem import pretrained_stem

tokenizer = WordTokenizer(["hole", "faulty imprint", "a", "faulty"])


def test_phrases_are_one_token_and_the_longest_wins():
    assert tokenizer.ids("a faulty imprint, HOLE") == [4, 3, 2]
    assert tokenizer.ids("faulty hole") == [5, 2]
    assert tokenizer.ids("zorblax") == [UNKNOWN]
    assert tokenizer.knows("Faulty-Imprint")
    assert not tokenizer.knows("imprint")


@given(st.text(max_size=80))
def test_every_sentence_has_one_end_token_which_is_its_highest(text):
    [row] = tokenizer([text])
    assert len(row) == tokenizer.context_length
    assert (row == tokenizer.end).sum() == 1
    assert row.argmax() == (row == tokenizer.end).nonzero()[0, 0]


def test_a_vocabulary_names_each_phrase_once():
    with pytest.raises(ValueError, match="twice"):
        WordTokenizer(["hole", "hole"])


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("dapo-tiny")


@pytest.fixture(scope="module")
def pack():
    return read_pack(default_pack_path())


def test_the_bundle_is_small_and_frozen(encoder):
    assert bundled_weights().stat().st_size <= 20 * 2**20
    assert not any(parameter.requires_grad for parameter in encoder.clip.parameters())
    assert "Apache-2.0" in load_tiny().metadata["notice"]


def test_the_stem_is_efficientnets(encoder):
    """The shipped float16 stem is the package's, batch norms folded. Versions of torch round the folding differently: no value
    may be further off than the next float16, and no more than one in ten thousand off at all."""
    shipped: Lite0Stem = encoder.clip.visual.conv1.stem
    off = total = 0
    for (name, ours), theirs in zip(
        shipped.state_dict().items(), pretrained_stem().state_dict().values(), strict=True
    ):
        steps = (ours.half().view(torch.int16).int() - theirs.half().view(torch.int16).int()).abs()
        assert torch.equal(ours, ours.half().float()), name
        assert steps.max() <= 1, name
        off, total = off + int((steps > 0).sum()), total + steps.numel()
    assert off <= total / 10_000


def test_files_that_are_no_dapo_tiny_say_so(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(WeightsNotFound, match=r"none\.safetensors: no such file.*leave --weights out"):
        load_tiny(tmp_path / "none.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(WeightsNotFound, match="can't be read as safetensors"):
        load_tiny(tmp_path / "junk.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsNotFound, match="not a dapo-tiny file"):
        load_tiny(tmp_path / "other.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "wrong.safetensors", {"dapo_tiny": '{"phrases": ["a"]}'})
    with pytest.raises(WeightsNotFound, match="do not fit dapo-tiny"):
        load_tiny(tmp_path / "wrong.safetensors")


def test_a_missing_bundle_says_how_to_get_it_back(tmp_path, monkeypatch):
    monkeypatch.setattr("dapo.tiny.bundled_weights", lambda: tmp_path / "none.safetensors")
    with pytest.raises(WeightsNotFound, match="the bundled encoder is missing"):
        load_tiny()


def test_no_two_trained_words_share_a_vector(encoder, pack):
    for rows in (
        pack.tensors["text.types"],
        type_vectors(encoder, [word.word for word in pack.types]).numpy(),
    ):
        cosines = rows @ rows.T - 2 * np.eye(len(rows))
        assert cosines.max() < 1 - 1e-5


def test_an_unknown_word_means_some_defect(encoder, pack):
    assert not encoder.knows("zorblax")
    vector = type_vector(pack, encoder, "zorblax")
    assert vector @ pack.tensors["text.generic"] > vector @ pack.tensors["text.normal"]


def frames(count, seed=0):
    rng = np.random.default_rng(seed)
    plain = np.clip(120 + rng.normal(0, 5, (count, 256, 256, 3)), 0, 255).astype(np.uint8)
    for index in range(count // 2):
        y, x = rng.integers(40, 200, 2)
        plain[index, y : y + 12, x : x + 14] = 15
    return plain


def test_a_defect_scores_above_none(encoder, pack):
    scores = [p.score for p in Predictor(pack, encoder=encoder).predict(frames(8), ["*"] * 8)]
    assert min(scores[:4]) > max(scores[4:])


def test_adding_a_word_moves_no_bit_of_any_score(encoder, pack):
    begun = time.perf_counter()
    added = add_type(pack, "zorblax", type_vector(pack, encoder, "zorblax"), trained=False)
    assert time.perf_counter() - begun < 2
    assert np.array_equal(added.tensors["text.types"][:-1], pack.tensors["text.types"])
    images = frames(6)
    before = Predictor(pack, encoder=encoder).predict(images, ["*"] * 6)
    after = Predictor(added, encoder=encoder).predict(images, ["*"] * 6)
    assert [p.score for p in before] == [p.score for p in after]
    assert all(np.array_equal(a.map, b.map) for a, b in zip(before, after, strict=True))
    calibrated = Product(threshold_ok=0.3, threshold_notok=0.6)
    for a, b in zip(before, after, strict=True):
        assert judge(a, calibrated, 256, 256).evaluation is judge(b, calibrated, 256, 256).evaluation


def test_under_paper_scoring_a_new_word_moves_scores_and_says_so(encoder, pack):
    paper = Scoring(kind="paper")
    from dataclasses import replace

    base = replace(pack, scoring=paper)
    added = add_type(base, "zorblax", type_vector(base, encoder, "zorblax"))
    assert not any(product.calibrated for product in added.products.values())
    images = frames(2)
    before = Predictor(base, encoder=encoder).predict(images, ["*"] * 2)
    after = Predictor(added, encoder=encoder).predict(images, ["*"] * 2)
    assert [p.score for p in before] != [p.score for p in after]


def test_a_scratch_of_ten_pixels_in_twelve_megapixels_needs_tiles(encoder, pack):
    rng = np.random.default_rng(3)
    clean = np.clip(140 + rng.normal(0, 3, (3000, 4000, 3)), 0, 255).astype(np.uint8)
    scratched = clean.copy()
    scratched[1500:1502, 2000:2010] = 20  # 10 px long, 2 px wide
    predictor = Predictor(pack, encoder=encoder)

    middle = (
        (0.4, 0.4),
        (0.6, 0.4),
        (0.6, 0.6),
        (0.4, 0.6),
    )  # a region keeps the test to the tiles around the scratch

    def score(frame, tiles):
        parts = windows(4000, 3000, tiles, [middle] if tiles else ())
        inputs = np.stack([resize(part.cut(frame), predictor.image_size) for part in parts])
        return merge(predictor.predict(inputs, ["*"] * len(parts)), parts, 4000, 3000)

    tiles = Tiles(5, 6, 0.1)
    found, quiet = score(scratched, tiles), score(clean, tiles)
    lost, plain = score(scratched, None), score(clean, None)
    threshold = quiet.score + 0.5 * (found.score - quiet.score)
    assert found.score - quiet.score > 0.1
    assert abs(lost.score - plain.score) < 0.2 * (found.score - quiet.score)
    product = Product(threshold_ok=threshold, threshold_notok=threshold, min_area_px=1)
    assert judge(lost, product, 4000, 3000).evaluation is Evaluation.OK
    verdict = judge(found, product, 4000, 3000)
    assert verdict.evaluation is Evaluation.NOT_OK
    defect = verdict.defects[0]
    assert defect.centroid == pytest.approx((2005, 1501), abs=60)


def test_day_zero_prompts_work_without_training(encoder):
    hand = make_handwritten_pack(encoder, ["hole", "scratch"])
    scores = [p.score for p in Predictor(hand, encoder=encoder).predict(frames(8, 5), ["*"] * 8)]
    assert np.mean(scores[:4]) > np.mean(scores[4:])


def test_the_default_pack_belongs_to_the_bundle(pack):
    assert load_pack_encoder(pack).sha256 == pack.encoder.sha256
    assert pack.kind == "dapo"
    assert {"*", "sample"} <= set(pack.products)
