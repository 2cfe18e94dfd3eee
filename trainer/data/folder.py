"""A plain folder, as people sort pictures.

    good/*  scratch/*  hole/*        one product, called like the folder; or PRODUCT/good/*, PRODUCT/scratch/*, ...
    unlabelled/*                     frames nobody has looked at
    masks/scratch/STEM.png           optional: not 0 where the defect is

A frame's key is its path below the root.
"""

from __future__ import annotations

from pathlib import Path

from dapo.errors import SourceError
from trainer.data.dataset import ProductData, choose, find_images, masks_complete, subfolders
from trainer.data.masks import MaskFile
from trainer.data.reading import is_file, is_folder
from trainer.data.sample import GOOD, PictureFile, Region, Sample, State
from trainer.data.words import Words

MASKS = "masks"
_UNLABELLED = ("unlabelled", "unlabeled")
# Folders that are no type of defect, whatever else they are.
_UNCLEAR = (
    "mask",
    "ground_truth",
    "labels",
    "annotations",
    "images",
    "train",
    "test",
    "val",
    "ok",
    "nok",
    "ng",
    "normal",
)


class PlainFolder:
    """See `Dataset`.

    Raises:
        SourceError: neither it nor a folder in it has a folder "good".
    """

    expected = "good/*.png and TYPE/*.png, or PRODUCT/good/*.png and PRODUCT/TYPE/*.png"

    def __init__(self, root: Path, words: Words) -> None:
        self._root, self._words = root, words
        self._folders = {path.name: path for path in subfolders(root) if _has_good(path)}
        if _has_good(root):
            self._folders = {root.resolve().name: root}
        if not self._folders:
            raise SourceError(f"{root}: no product in it. Expected {self.expected}.")

    @staticmethod
    def fits(root: Path) -> bool:
        """Whether a folder looks like it."""
        return is_folder(root) and any(_has_good(path) for path in (root, *subfolders(root)))

    def products(self) -> list[str]:
        return sorted(self._folders)

    def product(self, name: str) -> ProductData:
        [name] = choose(self.products(), [name], str(self._root))
        base = self._folders[name]
        samples: list[Sample] = []
        for folder in subfolders(base):
            if folder.name != MASKS:
                samples += [self._sample(name, base, folder.name, path) for path in find_images(folder)]
        masks_complete(samples, lambda path: base / MASKS / path.parent.name / f"{path.stem}.png")
        return ProductData(name, tuple(samples))

    def _sample(self, product: str, base: Path, folder: str, path: Path) -> Sample:
        key, picture, word = (
            path.relative_to(self._root).as_posix(),
            PictureFile(path),
            self._words.word(product, folder),
        )
        if folder.casefold() in _UNLABELLED:
            return Sample(key, product, picture, State.UNLABELLED)
        if word == GOOD:
            return Sample(key, product, picture, State.GOOD)
        if word.casefold() in _UNCLEAR:
            raise SourceError(
                f"{path.parent}: is '{folder}' a type of defect? Call it by its type, '{GOOD}', 'unlabelled' or "
                f"'{MASKS}', or say what it means with --types."
            )
        masks = (base / MASKS / folder / f"{path.stem}.png", base / MASKS / folder / f"{path.stem}_mask.png")
        mask = next((MaskFile(mask) for mask in masks if is_file(mask)), None)
        return Sample(key, product, picture, State.DEFECTIVE, (Region(word, mask),))


def _has_good(folder: Path) -> bool:
    return any(path.name.casefold() == GOOD for path in subfolders(folder))
