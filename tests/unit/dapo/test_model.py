"""The model: frozen towers, fused attention, any batch size, both read-outs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from open_clip import CustomTextCLIP, SimpleTokenizer
from open_clip.transformer import ResidualAttentionBlock
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from dapo.attention import fuse_attention
from dapo.encoder import describe
from dapo.errors import VocabularyError
from dapo.head import pair
from dapo.model import DapoModel
from dapo.objective import objective
from dapo.testing import small_encoder
from dapo.text import end_of_text
from dapo.vision import encode_image

WORDS = ["scratch", "faulty imprint", "hole"]


@pytest.fixture
def model() -> DapoModel:
    return DapoModel(small_encoder())


def _loss(model: DapoModel, batch: int = 2) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    pixels = torch.randn(batch, 3, 64, 64, generator=draw)
    types = torch.zeros(batch, 64, 64, dtype=torch.long)
    types[0, 10:30, 10:30] = 2
    labels = torch.tensor([1] + [0] * (batch - 1))
    return objective(model.image_features(pixels), model.text_matrix(WORDS), types, labels, 0.07).total


def test_only_prompts_and_adapters_learn(model: DapoModel) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.clip.state_dict().items()}
    optimizer = torch.optim.Adam(model.trainable(), lr=1e-2)
    torch.autograd.backward(_loss(model))
    optimizer.step()
    learned = set(map(id, model.learned().values()))
    assert {id(parameter) for parameter in model.parameters() if parameter.requires_grad} == learned
    assert all(parameter.grad is None for parameter in model.clip.parameters())
    for name, value in model.learned().items():
        assert value.grad is not None, name
        assert value.grad.abs().max() > 0, name
    assert all(torch.equal(value, before[name]) for name, value in model.clip.state_dict().items())
    assert not model.clip.training


def test_no_activation_is_kept_for_frozen_weights(model: DapoModel) -> None:
    """A layer with a frozen weight need not keep its input: only the prompts' gradients flow through it."""
    pixels = torch.randn(1, 3, 64, 64)
    kept: list[torch.Tensor] = []

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    def forward(prompts: torch.Tensor) -> list[tuple[int, ...]]:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            encode_image(model.clip.visual, pixels, model.encoder.taps, prompts)
        return [tuple(tensor.shape) for tensor in kept]

    frozen = forward(model.prompts.visual)
    model.clip.requires_grad_(True)
    unfrozen = forward(model.prompts.visual)
    model.clip.requires_grad_(False)
    assert tuple(pixels.shape) not in frozen
    assert tuple(pixels.shape) in unfrozen
    assert len(frozen) < len(unfrozen)
    assert forward(model.prompts.visual.detach()) == []


def _operators(block: ResidualAttentionBlock, hidden: torch.Tensor, *, backward: bool) -> set[str]:
    with profile(activities=[ProfilerActivity.CPU]) as record:
        if backward:
            torch.autograd.backward(block(hidden).sum())
        else:
            with torch.inference_mode():
                block(hidden)
    return {event.key for event in record.key_averages()}


@pytest.mark.parametrize("backward", [False, True])
def test_attention_is_fused(model: DapoModel, backward: bool) -> None:
    block = model.clip.visual.transformer.resblocks[0]
    operators = _operators(block, torch.randn(1, 21, 64, requires_grad=backward), backward=backward)
    assert "aten::scaled_dot_product_attention" in operators
    assert "aten::_native_multi_head_attention" not in operators


def test_features_do_not_depend_on_the_batch(model: DapoModel) -> None:
    pixels = torch.randn(5, 3, 64, 64)
    with torch.no_grad():
        whole = model.image_features(pixels)
        single = [model.image_features(pixels[index : index + 1]) for index in range(5)]
    assert whole.cls.shape == (5, 32)
    assert [tap.shape for tap in whole.taps] == [(5, 16, 32)] * 4
    torch.testing.assert_close(whole.cls, torch.cat([one.cls for one in single]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        whole.taps[2], torch.cat([one.taps[2] for one in single]), rtol=1e-5, atol=1e-6
    )


def test_without_prompts_it_is_open_clip() -> None:
    encoder = small_encoder()
    clip: Any = encoder.clip
    pixels = torch.randn(2, 3, 64, 64)
    expected = clip.visual.forward_intermediates(pixels, output_fmt="NLC", normalize_intermediates=False)
    out = encode_image(clip.visual, pixels, (1, 2, 3, 4))
    assert torch.equal(out.cls, clip.encode_image(pixels))
    for tap, block in zip(out.taps, expected["image_intermediates"], strict=True):
        assert torch.equal(tap, block)


def test_a_words_row_does_not_depend_on_its_neighbours(model: DapoModel) -> None:
    with torch.no_grad():
        alone, among = model.text_vectors(["hole"]), model.text_matrix([*WORDS, "bent"])
    assert torch.equal(alone[0], among[3])
    torch.testing.assert_close(among.norm(dim=-1), torch.ones(5))
    torch.testing.assert_close(model.text_matrix(WORDS), among[:4], rtol=1e-5, atol=1e-6)


def test_the_reference_readout_differs_only_where_deep_tokens_never_leave() -> None:
    encoder = small_encoder()
    for depth in range(4):
        model = DapoModel(encoder, text_depth=depth)
        with torch.no_grad():
            same = torch.equal(model.text_matrix(WORDS, "eot"), model.text_matrix(WORDS, "reference"))
        assert same == (depth < 3)


@pytest.mark.parametrize(
    "text",
    [
        {"pool_type": "eos", "eos_id": 49407},
        {"pool_type": "last"},
        {"pool_type": "argmax", "proj_bias": True},
        {"pool_type": "argmax", "proj_type": "none", "width": 32},
    ],
)
def test_text_towers_that_open_clip_builds_otherwise(text: dict[str, Any]) -> None:
    """Models with a separate text tower, other read-outs and projections, averaged image tokens."""
    clip = CustomTextCLIP(
        embed_dim=32,
        vision_cfg={"image_size": 32, "patch_size": 16, "width": 64, "layers": 2, "pool_type": "avg"},
        text_cfg={"context_length": 20, "width": 48, "heads": 4, "layers": 2, **text},
    )
    encoder = describe(clip, SimpleTokenizer(context_length=20), "custom", "file")
    ids = encoder.tokenize(["a scratch"])
    end = 19 if text["pool_type"] == "last" else 3
    assert end_of_text(clip, ids).tolist() == [end]
    model = DapoModel(encoder)
    with torch.no_grad():
        assert model.text_matrix(WORDS).shape == (4, 32)
        plain = encode_image(clip.visual, torch.ones(1, 3, 32, 32), encoder.taps)
        torch.testing.assert_close(plain.cls, encoder.clip.encode_image(torch.ones(1, 3, 32, 32)))
        assert [tap.shape for tap in plain.taps] == [(1, 4, 64)] * 2


def test_fused_attention_is_open_clips_own() -> None:
    plain = nn.MultiheadAttention(64, 2, batch_first=True).eval()
    fused = copy.deepcopy(plain)
    fuse_attention(fused)
    hidden, mask = torch.randn(2, 7, 64), torch.full((7, 7), float("-inf")).triu(1)
    for attn_mask in (None, mask):
        expected = plain(hidden, hidden, hidden, need_weights=False, attn_mask=attn_mask)[0]
        got = fused(hidden, hidden, hidden, need_weights=False, attn_mask=attn_mask)[0]
        torch.testing.assert_close(got, expected)
    assert fused.state_dict().keys() == plain.state_dict().keys()
    with pytest.raises(ValueError, match="self-attention"):
        fused(hidden, hidden + 1, hidden)


def test_an_empty_word_is_refused(model: DapoModel) -> None:
    with pytest.raises(VocabularyError, match="empty"):
        model.text_matrix(["scratch", "  "])


def test_initial_values_follow_the_rules_and_the_seed() -> None:
    encoder = small_encoder()
    a, b, c = (DapoModel(encoder, seed=seed).learned() for seed in (0, 0, 1))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["prompt.normal"], c["prompt.normal"])
    bound = (6 / (3 * 16 * 16 + 64)) ** 0.5
    visual = a["prompt.visual"]
    assert 0.9 * bound < visual.abs().max() <= bound
    table = encoder.clip.get_parameter("token_embedding.weight")
    many = DapoModel(encoder, prompts=400).prompts.normal.flatten(0, 1)
    torch.testing.assert_close(many.std(0), table.std(0), rtol=0.15, atol=0)


def test_the_pair_is_the_normal_row_and_the_normalised_mean_of_the_types() -> None:
    text = F.normalize(torch.randn(4, 8), dim=-1)
    torch.testing.assert_close(pair(text)[1], F.normalize(text[1:].sum(0), dim=0))
    assert torch.equal(pair(text)[0], text[0])
