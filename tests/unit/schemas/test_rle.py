from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from schemas.rle import MaskError, decode_mask, encode_mask

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40))


def naive_runs(mask):
    """Column-major run lengths, background first, written down from the definition."""
    runs, value = [], False
    count = 0
    for pixel in mask.T.ravel():
        if pixel == value:
            count += 1
        else:
            runs.append(count)
            value, count = pixel, 1
    return [*runs, count]


@given(masks)
def test_masks_survive_the_round_trip(mask):
    rle = encode_mask(mask)
    assert rle["size"] == list(mask.shape)
    assert np.array_equal(decode_mask(rle), mask)


@given(masks)
def test_the_text_is_cocos(mask):
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_mask(mask)["counts"] == theirs["counts"].decode()
    uncompressed = {"size": list(mask.shape), "counts": naive_runs(mask)}
    assert coco.frPyObjects(uncompressed, *mask.shape)["counts"].decode() == encode_mask(mask)["counts"]


@given(masks, st.integers(0, 20), st.integers(0, 20), st.integers(0, 9), st.integers(0, 9))
def test_a_region_lies_where_it_was_put(mask, x, y, right, below):
    height, width = y + mask.shape[0] + below, x + mask.shape[1] + right
    full = decode_mask(encode_mask(mask, (x, y), (height, width)))
    assert np.array_equal(full[y : y + mask.shape[0], x : x + mask.shape[1]], mask)
    assert full.sum() == mask.sum()


def test_a_region_outside_its_frame_is_refused():
    with pytest.raises(MaskError, match="does not lie inside a frame of 4 x 4"):
        encode_mask(np.ones((3, 3), bool), (2, 0), (4, 4))


@given(st.text(max_size=30), st.integers(-3, 50), st.integers(-3, 50))
def test_hostile_counts_give_a_mask_error_or_a_mask_of_the_size(counts, height, width):
    try:
        mask = decode_mask({"size": [height, width], "counts": counts})
    except MaskError:
        return
    assert mask.shape == (height, width)


@pytest.mark.parametrize(
    ("rle", "says"),
    [
        ({"size": [2, 2]}, "needs size"),
        ({"size": [2], "counts": "4"}, "needs size"),
        ({"size": [0, 2], "counts": ""}, "limits are"),
        ({"size": [10**6, 10**6], "counts": "4"}, "limits are"),
        ({"size": [2, 2], "counts": "5"}, "runs add up to 5"),
        ({"size": [2, 2], "counts": "`"}, "end inside a run"),
        ({"size": [2, 2], "counts": "o" * 20}, "never ends"),
        ({"size": [2, 2], "counts": "O"}, "negative run"),
        ({"size": [2, 2], "counts": "1" * (2**24 + 1)}, "characters"),
        ({"size": [2, 2], "counts": "!"}, "no run-length character"),
    ],
)
def test_malformed_masks_say_what_is_wrong(rle, says):
    with pytest.raises(MaskError, match=says):
        decode_mask(rle)
