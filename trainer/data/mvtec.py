"""MVTec AD's layout, which MPDD and MAD have too, each with its own words.

    PRODUCT/train/good/*                          good frames for training
    PRODUCT/test/TYPE/*                           frames to test on; "good" is a type
    PRODUCT/ground_truth/TYPE/STEM_mask.png       not 0 where the defect is (STEM.png will do)
    PRODUCT/ground_truth_types/TYPE/STEM_types.png    a label map, for frames with several types
    PRODUCT/types.json                            names of its values

A frame's key is its path below the root.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dapo.errors import SourceError
from trainer.data.dataset import ProductData, choose, find_images, masks_complete, subfolders
from trainer.data.masks import MaskFile, read_numbers
from trainer.data.reading import is_file, is_folder, read_json
from trainer.data.sample import GOOD, PictureFile, Region, Sample, State
from trainer.data.words import Words


class MvtecLayout:
    """See `Dataset`.

    Args:
        root: the folder of the products.
        words: what the folders of types mean.

    Raises:
        SourceError: no product is in it.
    """

    expected = "PRODUCT/test/good/*.png and PRODUCT/test/TYPE/*.png"

    def __init__(self, root: Path, words: Words) -> None:
        self._root, self._words = root, words
        self._products = [path.name for path in subfolders(root) if is_folder(path / "test")]
        if not self._products:
            hint = f" Give {root.resolve().parent}, the folder above." if is_folder(root / "test") else ""
            raise SourceError(f"{root}: no product in it. Expected {self.expected}.{hint}")

    @staticmethod
    def fits(root: Path) -> bool:
        """Whether a folder looks like it, or like one product of it."""
        return is_folder(root) and any(is_folder(path / "test") for path in (root, *subfolders(root)))

    def products(self) -> list[str]:
        return list(self._products)

    def product(self, name: str) -> ProductData:
        [name] = choose(self._products, [name], str(self._root))
        base = self._root / name
        labels = _labels(base / "types.json", name, self._words)
        samples: list[Sample] = []
        for folder in subfolders(base / "test"):
            samples += [self._sample(name, path, labels) for path in find_images(folder)]
        masks_complete(
            samples, lambda path: base / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        )
        good = base / "train" / GOOD
        if is_folder(good):
            samples += [
                Sample(self._key(path), name, PictureFile(path), State.GOOD, split="train")
                for path in find_images(good)
            ]
        listed = dict.fromkeys([*self._words.types(name), *labels.values()])
        return ProductData(name, tuple(samples), tuple(listed))

    def _key(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _sample(self, product: str, path: Path, labels: dict[int, str]) -> Sample:
        folder, key, picture = path.parent.name, self._key(path), PictureFile(path)
        word = self._words.word(product, folder)
        if word == GOOD:
            return Sample(key, product, picture, State.GOOD, split="test")
        base = self._root / product
        types = base / "ground_truth_types" / folder / f"{path.stem}_types.png"
        if labels and is_file(types):
            regions = regions_of_map(types, labels)
        else:
            truth = base / "ground_truth" / folder
            masks = (truth / f"{path.stem}_mask.png", truth / f"{path.stem}.png")
            mask = next((MaskFile(mask) for mask in masks if is_file(mask)), None)
            regions = (Region(word, mask),)
        return Sample(key, product, picture, State.DEFECTIVE, regions, split="test")


def regions_of_map(path: Path, names: dict[int, str]) -> tuple[Region, ...]:
    """A region for each number of a label map that is not 0; one without a name is a defect of no said type.

    Raises:
        SourceError: the map can't be read or is empty.
    """
    values = [int(value) for value in np.unique(read_numbers(path)) if value]
    if not values:
        raise SourceError(f"{path}: marks no pixel, though its frame is defective. Draw the defect.")
    unnamed = tuple(value for value in values if value not in names)
    regions = [Region(names[value], MaskFile(path, (value,))) for value in values if value in names]
    return (*regions, *([Region(None, MaskFile(path, unnamed))] if unnamed else []))


def _labels(path: Path, product: str, words: Words) -> dict[int, str]:
    """types.json, either way round: name -> value or value -> name."""
    if not is_file(path):
        return {}
    document = read_json(path)
    try:
        pairs = [(str(k), str(v)) if str(k).isdigit() else (str(v), str(k)) for k, v in document.items()]
        found = {int(value): words.word(product, name) for value, name in pairs if name != "background"}
    except (ValueError, TypeError, AttributeError) as error:
        raise SourceError(f"{path}: expected an object of type name -> value. {error}") from error
    if GOOD in found.values():
        raise SourceError(f"{path}: names a type '{GOOD}'. What is good has no value but 0.")
    return found
