"""What every adapter of the Dataset port must do, on the same frames in each one's own layout, or in the archive."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dapo.errors import SourceError
from pipeline.testing import MemoryStore
from tests.contract import archive_tree
from tests.contract.dataset_trees import HEIGHT, TREES, WIDTH, drawn
from trainer.data.open import Options, open_dataset
from trainer.data.sample import State


def opened(build, tmp_path):
    """(data set, its name, its products) of a layout; one without scratches gets its words by a file."""
    root = tmp_path / "data"
    root.mkdir()
    name, kind, products = build(root)
    words = tmp_path / "words.toml"
    words.write_text('[words]\nBurrs = "scratch"\n')
    options = Options(words=words, unannotated="good")
    return open_dataset(f"{kind}:{name}", options), name, products


@pytest.fixture
def store():
    """The bucket of the archive."""
    return MemoryStore()


@pytest.fixture(params=[*TREES, archive_tree.archive], ids=lambda build: build.__name__)
def built(request, tmp_path, store):
    """(data set, its name, its products)."""
    if request.param is archive_tree.archive:
        return archive_tree.archive(store, tmp_path), f"archive:{archive_tree.DAYS}", archive_tree.PRODUCTS
    return opened(request.param, tmp_path)


@pytest.fixture
def bytes_of(built, store):
    """A picture -> its bytes, which may be read, written and deleted."""
    of_archive = built[1].startswith("archive:")
    return lambda picture: archive_tree.StoredBytes(store, picture) if of_archive else Path(picture.name)


def test_products_are_told_and_what_is_no_product_is_refused(built):
    data, name, products = built
    assert data.products() == products
    with pytest.raises(SourceError, match=r"no product 'nosuch'") as told:
        data.product("nosuch")
    assert name in str(told.value)


def test_good_frames_and_defects_are_told_apart(built):
    data, _, products = built
    for product in products:
        samples = data.product(product).samples
        assert [s.state for s in samples].count(State.GOOD) == 3
        assert [s.word for s in samples].count("scratch") == 3
        assert len(samples) == 6
        assert {s.product for s in samples} == {product}


def test_keys_are_unique_and_stay(built):
    data, _, products = built
    keys = [s.key for name in products for s in data.product(name).samples]
    assert len(set(keys)) == len(keys)
    assert keys == [s.key for name in products for s in data.product(name).samples]


def test_the_defect_is_where_it_was_drawn(built):
    data, _, products = built
    for sample in data.product(products[0]).samples:
        size = 20
        expected = cv2.resize(drawn().astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST) > 0
        mask = sample.mask_at(size)
        assert mask.any() == sample.defective
        if sample.defective:
            np.testing.assert_array_equal(mask, expected)
            np.testing.assert_array_equal(sample.types_at(["hole", "scratch"], size), expected * 2)
            np.testing.assert_array_equal(sample.types_at(["hole"], size), expected * -1)


def test_frames_decode_and_their_version_follows_the_bytes(built, bytes_of):
    data, _, products = built
    sample = data.product(products[0]).samples[0]
    assert sample.image().shape == (HEIGHT, WIDTH, 3)
    before = sample.version()
    assert sample.version() == before
    encoded = bytes_of(sample.picture)
    encoded.write_bytes(encoded.read_bytes() + b"\0")
    assert sample.version() != before


def test_a_damaged_frame_is_met_when_it_is_looked_at_and_named(built, bytes_of):
    data, _, products = built
    sample = data.product(products[0]).samples[0]
    encoded = bytes_of(sample.picture)
    encoded.write_bytes(b"no picture")
    [again] = [s for s in data.product(products[0]).samples if s.key == sample.key]
    with pytest.raises(SourceError, match=encoded.name):
        again.image()
    encoded.unlink()
    with pytest.raises(SourceError, match=encoded.name):
        again.image()


@pytest.mark.parametrize("build", TREES, ids=lambda build: build.__name__)
def test_the_layout_is_found_without_its_name(build, tmp_path):
    _, name, products = opened(build, tmp_path)
    assert open_dataset(name).products() == products
