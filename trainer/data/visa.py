"""VisA's own layout, as it is distributed.

    PRODUCT/image_anno.csv                 image,label,mask: paths below the root; labels separated by commas, or "normal"
    PRODUCT/Data/Images/Normal, Anomaly    frames
    PRODUCT/Data/Masks/Anomaly             masks whose grey values are types (`masks` of the vocabulary)
    split_csv/1cls.csv                     object,split,label,image,mask: its own split, where it is there

A frame's key is its path below the root.
"""

from __future__ import annotations

from pathlib import Path

from dapo.errors import SourceError
from trainer.data.dataset import ProductData, choose, subfolders
from trainer.data.mvtec import regions_of_map
from trainer.data.reading import below, is_file, is_folder, read_rows
from trainer.data.sample import GOOD, PictureFile, Region, Sample, Split, State
from trainer.data.words import Words

NORMAL = "normal"
OTHER = "other"  # a label that says no type


class VisaLayout:
    """See `Dataset`.

    Raises:
        SourceError: no product is in it.
    """

    expected = "PRODUCT/image_anno.csv and PRODUCT/Data/Images"

    def __init__(self, root: Path, words: Words) -> None:
        self._root, self._words = root, words
        self._products = [path.name for path in subfolders(root) if is_file(path / "image_anno.csv")]
        if not self._products:
            raise SourceError(f"{root}: no product in it. Expected {self.expected}.")
        splits = root / "split_csv" / "1cls.csv"
        self._splits = _splits(splits) if is_file(splits) else {}

    @staticmethod
    def fits(root: Path) -> bool:
        """Whether a folder looks like it."""
        return is_folder(root) and any(is_file(path / "image_anno.csv") for path in subfolders(root))

    def products(self) -> list[str]:
        return list(self._products)

    def product(self, name: str) -> ProductData:
        [name] = choose(self._products, [name], str(self._root))
        table = self._root / name / "image_anno.csv"
        rows = read_rows(table, ("image", "label", "mask"))
        if not rows:
            raise SourceError(f"{table}: lists no image.")
        samples = [self._sample(name, f"{table}:{line}", row) for line, row in rows]
        return ProductData(name, tuple(samples), self._words.types(name))

    def _sample(self, product: str, where: str, row: dict[str, str]) -> Sample:
        key = row["image"]
        picture, split = PictureFile(below(self._root, key, where)), self._splits.get(key)
        labels = [label.strip().lower() for label in row["label"].split(",") if label.strip()]
        if labels == [NORMAL]:
            return Sample(key, product, picture, State.GOOD, split=split)
        if not labels or NORMAL in labels or GOOD in [self._word(product, label) for label in labels]:
            raise SourceError(
                f"{where}: label '{row['label']:.80}': expected '{NORMAL}', or types separated by commas."
            )
        regions = self._regions(product, labels, row, where)
        return Sample(key, product, picture, State.DEFECTIVE, regions, split=split)

    def _regions(
        self, product: str, labels: list[str], row: dict[str, str], where: str
    ) -> tuple[Region, ...]:
        if not row["mask"]:
            return tuple(Region(self._word(product, label)) for label in labels)
        names = {
            value: word
            for value, label in enumerate(self._words.mask_names(product), 1)
            if (word := self._word(product, label)) is not None
        }
        found = regions_of_map(below(self._root, row["mask"], where), names)
        if len(labels) == 1 and len(found) == 1:
            # One label, one value: the table's word counts where both differ, as it does for products without `masks`.
            return (Region(self._word(product, labels[0]), found[0].mask),)
        return found

    def _word(self, product: str, label: str) -> str | None:
        return None if label == OTHER else self._words.word(product, label)


def _splits(path: Path) -> dict[str, Split]:
    found: dict[str, Split] = {}
    for line, row in read_rows(path, ("image", "split")):
        if row["split"] not in ("train", "test"):
            raise SourceError(f"{path}:{line}: split '{row['split']:.40}': expected train or test.")
        found[row["image"]] = "train" if row["split"] == "train" else "test"
    return found
