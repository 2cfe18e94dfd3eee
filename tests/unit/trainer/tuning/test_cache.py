"""What is computed once is what would be computed again; what is damaged or of another model is not used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dapo.model import DapoModel
from dapo.packing import make_pack
from trainer.data.split import content_hash
from trainer.tuning.cache import VARIANTS, FeatureCache, mirrored
from trainer.tuning.frozen import Joint, Pixels, frozen_half
from trainer.tuning.scope import Scope

from .plates import base_pack, plates


class Counting(Pixels):
    """Counts the frames that it is asked for."""

    def __init__(self, encoder):
        super().__init__(encoder)
        self.frames = 0

    def arrays(self, images):
        self.frames += len(images)
        return super().arrays(images)


def test_a_frame_is_computed_once_whatever_it_is_called(tmp_path: Path) -> None:
    samples = plates(tmp_path / "a", good=2, each=1)
    again = plates(tmp_path / "b", good=2, each=1)
    _, encoder = base_pack()
    frozen = Counting(encoder)
    cache = FeatureCache(tmp_path / "cache", frozen, encoder.image_size)
    told = []
    contents = cache.fill(samples, advance=told.append)
    assert [c.encoded for c in cache.fill(again)] == [c.encoded for c in contents]
    assert frozen.frames == len({c.encoded for c in contents}) == len(samples) == sum(told)
    assert [c.pixels for c in contents] == [content_hash(sample) for sample in samples]


def test_an_entry_cut_short_is_made_again(tmp_path: Path) -> None:
    samples = plates(tmp_path / "a", good=1, each=1)[:1]
    _, encoder = base_pack()
    frozen = Counting(encoder)
    cache = FeatureCache(tmp_path / "cache", frozen, encoder.image_size)
    [content] = cache.fill(samples)
    [entry] = (tmp_path / "cache").rglob(f"{content.encoded}.safetensors")
    entry.write_bytes(entry.read_bytes()[:20])
    cache.fill(samples)
    assert frozen.frames == 2
    assert cache.load([content.encoded])["pixels"].shape == (1, 64, 64, 3)


def test_variants_are_the_mirrored_frame(tmp_path: Path) -> None:
    samples = plates(tmp_path / "a", good=1, each=1)[:1]
    _, encoder = base_pack()
    cache = FeatureCache(tmp_path / "cache", Pixels(encoder), encoder.image_size)
    [content] = cache.fill(samples, VARIANTS)
    plain = cache.load([content.encoded])["pixels"][0].numpy()
    for variant in VARIANTS:
        found = cache.load([content.encoded], [variant])["pixels"][0].numpy()
        np.testing.assert_array_equal(found, mirrored(plain, variant))


def test_joint_features_are_those_of_the_model(tmp_path: Path) -> None:
    samples = plates(tmp_path / "a", good=2, each=1)
    pack, encoder = base_pack()
    model = DapoModel(encoder, prompts=2, context=2, tokens=2)
    joint, pixels = frozen_half(Scope.TEXT, pack, encoder), frozen_half(Scope.FULL, pack, encoder)
    assert isinstance(joint, Joint)
    caches = [FeatureCache(tmp_path / "cache", half, encoder.image_size) for half in (joint, pixels)]
    with torch.no_grad():
        one, other = (
            half.features(model, cache.load([c.encoded for c in cache.fill(samples)]))
            for half, cache in zip((joint, pixels), caches, strict=True)
        )
    torch.testing.assert_close(one.cls, other.cls, atol=1e-3, rtol=0)
    for a, b in zip(one.taps, other.taps, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=0)


def test_packs_of_other_features_have_other_entries(tmp_path: Path) -> None:
    pack, encoder = base_pack()
    moved = DapoModel(encoder, prompts=2, context=2, tokens=2, seed=1)
    folders = {
        FeatureCache(tmp_path, Joint(one, encoder), encoder.image_size)._folder
        for one in (pack, make_pack(moved, ["hole"]))
    }
    assert len(folders) == 2
