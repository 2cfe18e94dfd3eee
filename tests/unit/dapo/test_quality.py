from __future__ import annotations

import cv2
import numpy as np
import pytest

from dapo.quality import FROZEN_AFTER, FrozenDetector, defects_of_picture

RNG = np.random.default_rng(5)


def textured(side=300):
    field = RNG.integers(0, 255, (side // 4, side // 4, 3), dtype=np.uint8)
    field[side // 16 :, side // 16 :] //= 4  # a part before a background: structure at every scale
    return cv2.resize(field, (side, side), interpolation=cv2.INTER_CUBIC)


def code(pixels):
    found = defects_of_picture(pixels)
    return found and found[0]


def test_black_white_and_blurred_pictures_are_not_decidable():
    assert code(np.zeros((100, 80, 3), np.uint8)) == "black"
    assert code(np.full((100, 80, 3), 255, np.uint8)) == "over-exposed"
    assert code(cv2.GaussianBlur(textured(), (0, 0), 6)) == "blurred"


@pytest.mark.parametrize("level", [15, 60, 128, 200, 240])
def test_plain_surfaces_pass(level):
    plain = np.clip(level + RNG.normal(0, 2, (200, 200, 3)), 0, 255).astype(np.uint8)
    assert code(plain) is None


def test_sharp_pictures_pass_at_any_size():
    for side in (40, 300, 1500):
        assert code(textured(side)) is None
    binary = np.zeros((300, 300, 3), np.uint8)
    binary[100:140] = 255  # a binarised scan
    assert code(binary) is None


def test_one_pixel_of_light_is_no_picture():
    almost = np.zeros((400, 400, 3), np.uint8)
    almost[5, 5] = 255
    assert code(almost) == "black"


def test_a_repeating_camera_is_noticed_and_forgiven():
    camera, one, other = FrozenDetector(), textured(), textured()
    said = [camera.check(one) for _ in range(FROZEN_AFTER + 1)]
    assert said[:-1] == [None] * FROZEN_AFTER
    assert said[-1] is not None
    assert said[-1][0] == "frozen"
    assert camera.check(other) is None
