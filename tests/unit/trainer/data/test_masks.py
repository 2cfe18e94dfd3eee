"""Masks in files."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from dapo.errors import SourceError
from tests.contract import dataset_trees as trees
from trainer.data.open import open_dataset


class TestMasks:
    @pytest.mark.parametrize("kind", ["16 bit", "palette", "grey as RGB"])
    def test_every_picture_with_one_number_a_pixel(self, root, kind):
        trees.folder(root)
        path = root / "lid" / "masks" / "scratch" / "0.png"
        drawn = trees.drawn()
        if kind == "16 bit":
            Image.fromarray(drawn.astype(np.uint16) * 200).save(path)
        elif kind == "palette":
            picture = Image.fromarray(drawn.astype(np.uint8), "L").convert("P")
            picture.putdata(drawn.astype(np.uint8).ravel().tolist())
            picture.putpalette([255, 255, 255, 0, 0, 0] + [0] * 750)  # its indices count, not its colours
            picture.save(path)
        else:
            Image.fromarray(np.repeat(drawn[..., None], 3, 2).astype(np.uint8) * 255).save(path)
        sample = next(
            s for s in open_dataset(str(root)).product("lid").samples if s.key == "lid/scratch/0.png"
        )
        other = next(
            s for s in open_dataset(str(root)).product("lid").samples if s.key == "lid/scratch/1.png"
        )
        np.testing.assert_array_equal(sample.mask_at(20), other.mask_at(20))

    def test_masks_that_are_none(self, root):
        trees.folder(root)
        path = root / "lid" / "masks" / "scratch" / "0.png"
        sample = next(
            s for s in open_dataset(str(root)).product("lid").samples if s.key == "lid/scratch/0.png"
        )
        cv2.imwrite(str(path), np.zeros((trees.HEIGHT, trees.WIDTH), np.uint8))
        with pytest.raises(SourceError, match=r"masks/scratch/0\.png: marks no pixel"):
            sample.mask_at(20)
        cv2.imwrite(str(path), np.full((trees.HEIGHT, trees.WIDTH, 3), (0, 0, 255), np.uint8))
        with pytest.raises(SourceError, match="the mask is in colour"):
            sample.mask_at(20)
        cv2.imwrite(str(path), np.full((trees.WIDTH, trees.HEIGHT), 255, np.uint8))
        with pytest.raises(SourceError, match="has 60 x 40 px, its mask 40 x 60"):
            sample.image()
        path.write_bytes(b"no picture")
        with pytest.raises(SourceError, match="the mask can't be read"):
            sample.mask_at(20)
