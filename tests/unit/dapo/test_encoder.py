"""Loading encoders: architectures, files, hashes, and what is said when weights are nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from dapo import encoder as module
from dapo import tiny
from dapo.encoder import load_encoder, spaced_taps, weights_hash
from dapo.errors import SettingsError, WeightsNotFound
from dapo.model import DapoModel
from dapo.testing import small_encoder
from dapo.tiny_tokenizer import WordTokenizer


@pytest.mark.parametrize(
    ("name", "size", "grid", "taps"),
    [
        ("ViT-B-16", 224, 14, (3, 6, 9, 12)),
        ("ViT-L-14-336-quickgelu", 518, 37, (6, 12, 18, 24)),
        ("ViT-S-32-alt", 96, 3, (3, 6, 9, 12)),
    ],
)
def test_any_open_clip_vit(name: str, size: int, grid: int, taps: tuple[int, ...]) -> None:
    """One frame and one word through both towers at full size, random weights."""
    encoder = load_encoder(name, "random", size)
    model = DapoModel(encoder)
    with torch.inference_mode():
        features = model.image_features(torch.randn(1, 3, size, size))
        text = model.text_vectors(["scratch"])
    assert (encoder.grid, encoder.taps) == (grid, taps)
    assert [tap.shape for tap in features.taps] == [(1, grid * grid, encoder.joint_width)] * 4
    assert features.cls.shape == text.shape == (1, encoder.joint_width)
    assert all(torch.isfinite(tap).all() for tap in (*features.taps, text))
    if name.startswith("ViT-L"):
        assert sum(parameter.numel() for parameter in model.trainable()) == 3_360_768


def test_the_hash_names_weights_not_image_size_nor_dtype() -> None:
    a, b = small_encoder(0, 64), small_encoder(0, 96)
    assert a.sha256 == b.sha256 != small_encoder(1).sha256
    assert (a.grid, b.grid) == (4, 6)
    state = {"x": torch.tensor([1.5, 2.0]), "y": torch.tensor(3)}
    assert weights_hash(state) == weights_hash({"y": torch.tensor(3), "x": state["x"].half()})
    assert weights_hash(state) != weights_hash({**state, "x": state["x"].view(2, 1)})
    assert weights_hash(state) != weights_hash({"z": state["x"], "y": state["y"]})


def test_the_position_embedding_is_resized_as_open_clip_does() -> None:
    ours = load_encoder("ViT-S-32-alt", "random", 320)
    torch.manual_seed(0)
    theirs: Any = open_clip.create_model("ViT-S-32-alt", pretrained=None, load_weights=False)
    state = dict(theirs.state_dict())
    sized: Any = open_clip.create_model(
        "ViT-S-32-alt", pretrained=None, load_weights=False, force_image_size=320
    )
    open_clip.model.resize_pos_embed(state, sized)
    assert torch.equal(ours.clip.visual.positional_embedding, state["visual.positional_embedding"])


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_local_file_gives_the_same_encoder(tmp_path: Path, suffix: str) -> None:
    made = load_encoder("ViT-S-32-alt", "random:5", 64)
    native = load_encoder("ViT-S-32-alt", "random:5")
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save(native.clip.state_dict(), path)
    else:
        save_file(native.clip.state_dict(), path)
    read = load_encoder("ViT-S-32-alt", "file", 64, path)
    assert read.sha256 == made.sha256 == native.sha256
    assert torch.equal(
        read.clip.get_parameter("visual.positional_embedding"),
        made.clip.get_parameter("visual.positional_embedding"),
    )


def test_without_network_the_message_names_file_place_and_option(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(entry: object) -> str:
        raise FileNotFoundError("Failed to download: offline")

    monkeypatch.setattr(module, "download_pretrained", offline)
    with pytest.raises(WeightsNotFound) as caught:
        load_encoder("ViT-L-14-336-quickgelu", "openai", 518)
    message = str(caught.value)
    assert "open_clip_model.safetensors" in message
    assert "timm/vit_large_patch14_clip_336.openai" in message
    assert "--weights FILE" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no-such-vit", "random"), "no such architecture"),
        (("RN50", "random"), "not open_clip's plain ViT"),
        (("coca_ViT-B-32", "random"), "not open_clip's plain ViT"),
        (("roberta-ViT-B-32", "random"), "text tower"),
        (("ViT-B-16", "no-such-tag"), "no such weights.*laion400m_e32"),
        (("ViT-S-32-alt", "random", 100), "take a multiple of it, such as 96"),
    ],
)
def test_a_wrong_choice_is_a_message(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_encoder(*arguments)


def test_a_file_that_is_no_weights_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match="--weights FILE"):
        load_encoder("ViT-S-32-alt", "file")
    with pytest.raises(WeightsNotFound, match="no such file"):
        load_encoder("ViT-S-32-alt", "file", path=tmp_path / "none.safetensors")
    for name in ("ViT-S-32-alt", "dapo-tiny"):  # a path that can't even be looked up
        with pytest.raises(WeightsNotFound, match="File name too long"):
            load_encoder(name, "file", path=tmp_path / ("n" * 300))
    for name, content in (("a.safetensors", b"junk"), ("b.pt", b"junk"), ("c.pt", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsNotFound, match=name):
            load_encoder("ViT-S-32-alt", "file", path=tmp_path / name)
    save_file({"x": torch.zeros(1)}, tmp_path / "d.safetensors")
    with pytest.raises(WeightsNotFound, match="not weights of ViT-S-32-alt"):
        load_encoder("ViT-S-32-alt", "file", path=tmp_path / "d.safetensors")


def test_dapo_tiny_takes_the_same_path(tmp_path: Path) -> None:
    """From a file of random weights: what is loaded is independent of the bundle."""
    tokenizer = WordTokenizer(["scratch", "flawless", "object", "anomaly"])
    path = tmp_path / "tiny.safetensors"
    metadata = {"dapo_tiny": json.dumps({"phrases": tokenizer.phrases})}
    save_file(tiny.build_tiny(tokenizer.vocab_size).state_dict(), path, metadata)
    encoder = load_encoder("dapo-tiny", "bundled", path=path)
    assert (encoder.weights, encoder.image_size, encoder.grid) == ("file", 256, 16)
    assert (encoder.taps, encoder.dense_taps) == ((1, 2, 3, 4), tiny.TAPS)
    assert encoder.knows is not None
    assert encoder.knows("Scratch")
    assert not encoder.knows("zebra")
    model = DapoModel(encoder)
    with torch.inference_mode():
        features = model.image_features(torch.randn(2, 3, 256, 256))
        text = model.text_matrix(["scratch", "zebra"])
    assert [tap.shape for tap in features.taps] == [(2, 256, 192)] * 4
    assert text.shape == (3, 192)


def test_taps_are_evenly_spaced_and_end_at_the_last_block() -> None:
    assert spaced_taps(12) == (3, 6, 9, 12)
    assert spaced_taps(4) == (1, 2, 3, 4)
    assert spaced_taps(3) == (1, 2, 3)
    assert all(spaced_taps(blocks)[-1] == blocks for blocks in range(1, 60))


def test_a_file_placed_by_hand_is_the_same_model_as_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No weights file says its activation, mean or standard deviation: the hub's entry of the tag does."""
    path = tmp_path / "weights.safetensors"
    save_file(load_encoder("ViT-S-32-alt", "random").clip.state_dict(), path)
    hub = {"quick_gelu": True, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
    monkeypatch.setattr(module, "get_pretrained_cfg", lambda name, tag: hub if tag == "openai" else {})
    monkeypatch.setattr(module, "download_pretrained", lambda entry: str(path))
    downloaded, placed = (
        load_encoder("ViT-S-32-alt", "openai"),
        load_encoder("ViT-S-32-alt", "openai", path=path),
    )
    own = load_encoder("ViT-S-32-alt", "file", path=path)
    assert downloaded.activation == placed.activation == "quick_gelu"
    assert (placed.mean, placed.std) == (downloaded.mean, downloaded.std) == (hub["mean"], hub["std"])
    images = torch.randn(1, 3, placed.image_size, placed.image_size)
    with torch.inference_mode():
        assert torch.equal(placed.clip.encode_image(images), downloaded.clip.encode_image(images))
        assert not torch.equal(placed.clip.encode_image(images), own.clip.encode_image(images))
    assert (own.activation, own.sha256) == ("gelu", placed.sha256)
    with pytest.raises(SettingsError, match=r"no such weights.*the tag is 'file'"):
        load_encoder("ViT-S-32-alt", "opneai", path=path)


@pytest.mark.parametrize("weights", ["random:x", "random:-1", f"random:{2**70}"])
def test_a_seed_is_a_number(weights: str) -> None:
    with pytest.raises(SettingsError, match="expected a seed"):
        load_encoder("ViT-S-32-alt", weights)
