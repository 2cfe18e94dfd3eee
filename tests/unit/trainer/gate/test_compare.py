"""Two packs on the same frames are what each of them is alone."""

from __future__ import annotations

import cv2
import numpy as np

from dapo.pack import Product, Tiles
from dapo.pack_io import read_pack
from pipeline.settings import ModelSettings
from trainer.data.open import open_dataset
from trainer.gate.compare import Pair

MODEL = ModelSettings(runtime="torch")  # OpenVINO takes a second to compile each pack


def test_each_pack_judges_as_it_does_alone(data, packs):
    samples = open_dataset(str(data)).product("lid").samples
    old, new = map(read_pack, packs)
    tiled = new.with_products({"lid": Product(types=("hole",), tiles=Tiles(2, 2))})
    assert tiled.features_hash == old.features_hash  # so the image side is shared
    alone = {
        name: [one.champion for one in Pair(pack, pack, MODEL).frames(samples)]
        for name, pack in (("old", old), ("new", new), ("tiled", tiled))
    }
    for name, challenger in (("new", new), ("tiled", tiled)):
        both = list(Pair(old, challenger, MODEL, batch=3).frames(samples))
        assert [one.sample for one in both] == list(samples)
        for given, wanted in (("champion", "old"), ("challenger", name)):
            found = [getattr(one, given).anomaly_score for one in both]
            assert found == [verdict.anomaly_score for verdict in alone[wanted]]
    assert [one.anomaly_score for one in alone["old"]] != [one.anomaly_score for one in alone["tiled"]]


def test_the_embedding_is_that_of_the_champion_whatever_its_tiles(data, packs):
    samples = open_dataset(str(data)).product("lid").samples[:4]
    old, new = map(read_pack, packs)
    tiled = old.with_products({"lid": Product(types=("hole",), tiles=Tiles(2, 2))})
    plain = [one.embedding for one in Pair(old, tiled, MODEL).frames(samples)]
    again = [one.embedding for one in Pair(old, new, MODEL, batch=2).frames(samples)]
    assert np.array_equal(plain, again)
    mean = [one.embedding for one in Pair(tiled, old, MODEL, batch=3).frames(samples)]
    assert np.shape(mean) == np.shape(plain)
    assert not np.allclose(mean, plain)


def test_a_black_picture_has_no_score_and_no_embedding(data, packs):
    cv2.imwrite(str(data / "good" / "00.png"), np.zeros((64, 96, 3), np.uint8))
    old, new = map(read_pack, packs)
    first, second, *_ = Pair(old, new, MODEL).frames(open_dataset(str(data)).product("lid").samples)
    assert first.embedding is None
    assert np.isnan(first.champion.anomaly_score)
    assert second.embedding is not None
