"""Real-IAD's layout, as it is distributed.

    realiad_1024/PRODUCT/OK|NG/...              frames (or realiad_512, realiad_256: the largest that is there)
    realiad_jsons/realiad_jsons/PRODUCT.json    meta, train and test: image_path, anomaly_class (a code), mask_path

Products whose frames are not there are left out. Frames of one folder S0001 show one part from five sides: they are a group.
A frame's key is its path below the root.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dapo.errors import SourceError
from trainer.data.dataset import ProductData, choose
from trainer.data.masks import MaskFile
from trainer.data.reading import Fields, below, inside, is_folder, read_json, readable
from trainer.data.sample import GOOD, PictureFile, Region, Sample, Split, State
from trainer.data.words import Words

SIZES = ("realiad_1024", "realiad_512", "realiad_256")
_PART = re.compile(r"S\d+")


class RealIadLayout:
    """See `Dataset`.

    Raises:
        SourceError: no product is in it.
    """

    expected = "realiad_jsons/realiad_jsons/PRODUCT.json and realiad_1024/PRODUCT"

    def __init__(self, root: Path, words: Words) -> None:
        self._root, self._words = root, words
        images = next((root / size for size in SIZES if is_folder(root / size)), None)
        lists = root / "realiad_jsons"
        self._lists = lists / "realiad_jsons" if is_folder(lists / "realiad_jsons") else lists
        self._products: list[str] = []
        if images is not None and is_folder(self._lists):
            with readable(self._lists):
                names = sorted(path.stem for path in self._lists.glob("*.json"))
            self._products = [name for name in names if is_folder(images / name)]
        if images is None or not self._products:
            raise SourceError(f"{root}: no product in it. Expected {self.expected}.")
        self._images = images

    @staticmethod
    def fits(root: Path) -> bool:
        """Whether a folder looks like it."""
        return is_folder(root / "realiad_jsons")

    def products(self) -> list[str]:
        return list(self._products)

    def product(self, name: str) -> ProductData:
        [name] = choose(self._products, [name], str(self._root))
        file = self._lists / f"{name}.json"
        document = Fields(read_json(file), str(file))
        meta = document.inner("meta")
        good, base = meta.text("normal_class"), inside(self._images, meta.text("prefix"), meta.where)
        parts: tuple[Split, ...] = ("train", "test")
        samples = [
            self._sample(name, base, entry, good, split, f"{file}: {split}[{number}]")
            for split in parts
            for number, entry in enumerate(document.items(split))
        ]
        if not samples:
            raise SourceError(f"{file}: lists no image.")
        return ProductData(name, tuple(samples), self._words.types(name))

    def _sample(self, product: str, base: Path, entry: Any, good: str, split: Split, where: str) -> Sample:
        fields = Fields(entry, where)
        kind, image = fields.text("anomaly_class"), fields.text("image_path")
        path = below(base, image, where)
        key, group = path.relative_to(self._root).as_posix(), _part(product, image)
        if kind == good:
            return Sample(key, product, PictureFile(path), State.GOOD, group=group, split=split)
        word = self._words.word(product, kind)
        if word == GOOD:
            raise SourceError(f"{where}: anomaly_class {kind} means '{GOOD}', but the good class is {good}.")
        mask = MaskFile(below(base, fields.text("mask_path"), where)) if "mask_path" in fields else None
        regions = (Region(word, mask),)
        return Sample(key, product, PictureFile(path), State.DEFECTIVE, regions, group=group, split=split)


def _part(product: str, image: str) -> str:
    folders = image.split("/")[:-1]
    last = next((n for n in range(len(folders), 0, -1) if _PART.fullmatch(folders[n - 1])), len(folders))
    return "/".join([product, *folders[:last]])
