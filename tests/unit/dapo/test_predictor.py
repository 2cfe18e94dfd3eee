"""Packs at work: scores that no added type moves, mixed batches, refusals."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from dapo import head, packing
from dapo.encoder import Encoder
from dapo.errors import EncoderMismatch, PackError, SettingsError, VocabularyError
from dapo.handwritten import make_handwritten_pack, normal_vector, type_vectors
from dapo.inspection import Prediction
from dapo.model import DapoModel
from dapo.pack import Pack, Scoring
from dapo.packing import DEFAULT_SCORING, make_pack, model_from_pack, type_vector
from dapo.predictor import Predictor
from dapo.preprocess import normalise
from dapo.testing import small_encoder

WORDS = ["scratch", "faulty imprint", "hole"]
PAPER = dataclasses.replace(DEFAULT_SCORING, kind="paper")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return small_encoder()


@pytest.fixture(scope="module")
def model(encoder: Encoder) -> DapoModel:
    return DapoModel(encoder, seed=4)


@pytest.fixture(scope="module", params=["dapo", "handwritten"])
def pack(request: pytest.FixtureRequest, encoder: Encoder, model: DapoModel) -> Pack:
    products = {"tube": ["hole"], "plate": ["scratch", "hole"], "blank": []}
    if request.param == "dapo":
        return make_pack(model, WORDS, products=products)
    return make_handwritten_pack(encoder, WORDS, products=products)


def _images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def _equal(a: Prediction, b: Prediction) -> bool:
    return a.score == b.score and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("map", "type_map", "type_scores")
    )


@pytest.mark.parametrize("kind", ["default", "paper"])
def test_a_prediction_keeps_the_contract(pack: Pack, encoder: Encoder, kind: str) -> None:
    scoring = DEFAULT_SCORING if kind == "default" else PAPER
    products = ["tube", "plate", "blank", "never heard of"]
    results = Predictor(pack, encoder=encoder, scoring=scoring).predict(_images(4), products)
    for result, types in zip(results, (1, 2, 0, 3), strict=True):
        assert 0 <= result.score <= 1
        assert (str(result.map.dtype), result.map.shape) == ("float16", (4, 4))
        assert (str(result.type_map.dtype), result.type_map.shape) == ("uint16", (4, 4))
        assert (str(result.type_scores.dtype), result.type_scores.shape) == ("float32", (types,))
        assert result.map.min() >= 0
        assert result.map.max() <= 1
        assert result.type_map.max() < max(1, types)
        if types:
            assert result.type_scores.sum() == pytest.approx(1, abs=1e-5)


def test_the_same_frame_gives_the_same_bytes(pack: Pack, encoder: Encoder) -> None:
    images, products = _images(3), ["plate", "tube", "*"]
    first, second = (Predictor(pack, encoder=encoder).predict(images, products) for _ in range(2))
    assert all(_equal(a, b) for a, b in zip(first, second, strict=True))


def test_neither_batch_nor_neighbours_change_a_bit(pack: Pack, encoder: Encoder) -> None:
    predict = Predictor(pack, encoder=encoder).predict
    images = _images(4)
    mixed = predict(images, ["plate", "tube", "blank", "plate"])
    plain = predict(images, ["plate"] * 4)
    assert _equal(mixed[0], plain[0])
    assert _equal(mixed[3], plain[3])
    for first, last in ((3, 4), (2, 4), (1, 4), (0, 1)):
        part = predict(images[first:last], ["plate"] * (last - first))
        assert all(_equal(a, b) for a, b in zip(part, plain[first:last], strict=True))


def test_more_types_move_no_bit_of_score_or_map(encoder: Encoder, model: DapoModel) -> None:
    images = _images(3)
    few = Predictor(make_pack(model, WORDS), encoder=encoder).predict(images, ["*"] * 3)
    words = [*WORDS, *(f"kind {number} of mark" for number in range(120))]
    many_pack = make_pack(model, words)
    many = Predictor(many_pack, encoder=encoder).predict(images, ["*"] * 3)
    for a, b in zip(few, many, strict=True):
        assert a.score == b.score
        assert a.map.tobytes() == b.map.tobytes()
        assert len(b.type_scores) == 123
    paper = (
        Predictor(made, encoder=encoder, scoring=PAPER).predict(images, ["*"] * 3)
        for made in (make_pack(model, WORDS), many_pack)
    )
    assert any(a.score != b.score for a, b in zip(*paper, strict=True))


def test_default_scoring_is_what_it_says(encoder: Encoder, model: DapoModel) -> None:
    scoring = Scoring(
        kind="default", top_k_fraction=0.25, fuse_map=0.4, smoothing_sigma=0.0, type_fuse_cls=0.3
    )
    made = make_pack(model, WORDS, scoring=scoring)
    image = _images(1)
    result = Predictor(made, encoder=encoder).predict(image, ["*"])[0]
    with torch.no_grad():
        features = model.image_features(torch.from_numpy(normalise(image, encoder.mean, encoder.std)))
        text = model.text_matrix(WORDS)
        generic = F.normalize(model.text_vectors(made.generic_words).mean(0), dim=0)
        two = torch.stack([text[0], generic])
        cells = torch.stack([(tap[0] @ two.T / 0.07).softmax(-1)[:, 1] for tap in features.taps]).mean(0)
        p_cls = (features.cls[0] @ two.T / 0.07).softmax(-1)[1]
        score = 0.6 * p_cls + 0.4 * cells.sort().values[-4:].mean()
        logits = torch.stack(features.taps).mean(0)[0] @ text[1:].T / 0.07
        top = cells.argmax()
        mixed = logits[top].softmax(-1) ** 0.7 * (features.cls[0] @ text[1:].T / 0.07).softmax(-1) ** 0.3
    assert result.score == pytest.approx(score.item(), abs=1e-6)
    np.testing.assert_allclose(result.map, cells.reshape(4, 4).numpy(), atol=1e-3)
    np.testing.assert_array_equal(result.type_map, logits.argmax(-1).reshape(4, 4).numpy())
    np.testing.assert_allclose(result.type_scores, (mixed / mixed.sum()).numpy(), atol=1e-5)


def test_paper_scoring_is_the_papers(encoder: Encoder, model: DapoModel) -> None:
    made = make_pack(model, WORDS, readout="reference", products={"plate": ["hole", "scratch"]})
    image = _images(1)
    result = Predictor(made, encoder=encoder, scoring=PAPER).predict(image, ["plate"])[0]
    with torch.no_grad():
        features = model.image_features(torch.from_numpy(normalise(image, encoder.mean, encoder.std)))
        text = model.text_matrix(WORDS, "reference")
        score = head.image_probabilities(features.cls, head.pair(text), 0.07)[0, 1]
        states = torch.stack(head.patch_states(features.taps, text, 0.07)).sum(0)[0]
        own = torch.stack(head.patch_states(features.taps, text[[0, 3, 1]], 0.07)).sum(0)[0]
    assert result.score == pytest.approx(score.item(), abs=1e-6)
    np.testing.assert_allclose(result.map.ravel(), (4 - states[:, 0]).numpy() / 4, atol=1e-3)
    np.testing.assert_array_equal(result.type_map.ravel(), own[:, 1:].argmax(-1).numpy())


def test_another_encoder_is_refused_with_both_hashes(pack: Pack, encoder: Encoder) -> None:
    other = small_encoder(1)
    with pytest.raises(EncoderMismatch) as caught:
        Predictor(pack, encoder=other)
    assert encoder.sha256 in str(caught.value)
    assert other.sha256 in str(caught.value)
    with pytest.raises(EncoderMismatch, match="96 px"):
        Predictor(pack, encoder=small_encoder(0, 96))


@pytest.mark.parametrize(
    "changes", [{"activation": "gelu"}, {"mean": (0.5, 0.5, 0.5)}, {"std": (0.5, 0.5, 0.5)}]
)
def test_the_same_weights_as_another_model_are_refused(
    pack: Pack, encoder: Encoder, changes: dict[str, object]
) -> None:
    other = dataclasses.replace(encoder, **changes)
    with pytest.raises(EncoderMismatch, match=re.escape(str(next(iter(changes.values()))))):
        Predictor(pack, encoder=other)
    unrecorded = dataclasses.replace(pack, encoder=dataclasses.replace(pack.encoder, activation=None))
    if "activation" in changes:  # a pack from before it was recorded has no say
        assert Predictor(unrecorded, encoder=other).image_size == 64


def test_weights_are_found_as_the_pack_names_them(
    pack: Pack, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def load(*arguments: object) -> Encoder:
        asked.append(arguments)
        return encoder

    monkeypatch.setattr(packing, "load_encoder", load)
    assert Predictor(pack, weights=tmp_path).image_size == 64
    assert asked == [("small-test-vit", "random:0", 64, tmp_path)]


def test_a_pack_gives_its_model_back(encoder: Encoder, model: DapoModel) -> None:
    made = make_pack(model, WORDS)
    again = model_from_pack(made, encoder)
    for (name, a), (_, b) in zip(model.learned().items(), again.learned().items(), strict=True):
        assert torch.equal(a, b), name
    broken = dataclasses.replace(made, tensors={**made.tensors, "adapter.1.bias": np.zeros(7, np.float32)})
    with pytest.raises(PackError, match=r"adapter\.1\.bias: expected shape \[32\] .* found shape \[7\]"):
        model_from_pack(broken, encoder)
    with pytest.raises(PackError, match="hand-written"):
        model_from_pack(make_handwritten_pack(encoder, WORDS), encoder)


def test_a_new_word_is_encoded_as_the_packs_own(pack: Pack, encoder: Encoder) -> None:
    for row, word in enumerate(WORDS):
        assert np.array_equal(type_vector(pack, encoder, word), pack.tensors["text.types"][row])


def test_rows_of_every_pack_are_unit_vectors(pack: Pack) -> None:
    for name in ("text.normal", "text.generic", "text.types"):
        np.testing.assert_allclose(np.linalg.norm(pack.tensors[name], axis=-1), 1, atol=1e-5)


def test_handwritten_prompts_are_an_ensemble_of_the_plain_text_tower(encoder: Encoder) -> None:
    row = type_vectors(encoder, ["scratch"])[0]
    sentence = encoder.clip.encode_text(
        encoder.tokenize(["a photo of a object with scratch"]), normalize=True
    )[0]
    assert 0.8 < row @ sentence < 1
    assert not torch.allclose(row, normal_vector(encoder))
    with pytest.raises(VocabularyError, match="empty"):
        type_vectors(encoder, ["scratch", " "])
    assert make_handwritten_pack(encoder, WORDS).temperature == pytest.approx(0.07, rel=1e-4)


def test_an_unlisted_word_of_a_product_is_named(model: DapoModel) -> None:
    with pytest.raises(PackError, match="product tube: type 'dent'"):
        make_pack(model, WORDS, products={"tube": ["dent"]})


def test_wrong_images_are_named(pack: Pack, encoder: Encoder) -> None:
    predict = Predictor(pack, encoder=encoder).predict
    assert predict(_images(0), []) == []
    with pytest.raises(ValueError, match="2 images for 1 products"):
        predict(_images(2), ["*"])
    with pytest.raises(ValueError, match=r"expected uint8 \[B, 64, 64, 3\]"):
        predict(_images(1)[:, :32], ["*"])


def test_a_device_that_is_not_there_is_a_message(
    pack: Pack, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="no such device"):
        Predictor(pack, encoder=encoder, device="toaster")
    for device in ("mps", "meta"):
        with pytest.raises(SettingsError, match="'cpu' or 'cuda' only"):
            Predictor(pack, encoder=encoder, device=device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="no CUDA device"):
        Predictor(pack, encoder=encoder, device="cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SettingsError, match="CUDA devices 0 to 1 only"):
        Predictor(pack, encoder=encoder, device="cuda:2")


def test_smoothing_keeps_a_flat_map_and_spreads_a_peak() -> None:
    flat = torch.full((8, 8), 0.4)
    torch.testing.assert_close(head.smooth(flat, 1.5), flat)
    peak = torch.zeros(9, 9)
    peak[4, 4] = 1
    spread = head.smooth(peak, 1.0)
    assert 0.15 < spread[4, 4] < 0.17  # 1 / (2 pi)
    assert torch.equal(head.smooth(peak, 0), peak)
