"""The port of labelled data. Its adapters lie beside it, and all pass one suite (tests/contract/test_dataset.py).

mvtec   PRODUCT/train/good, PRODUCT/test/TYPE, PRODUCT/ground_truth/TYPE     mpdd, mad: the same, with their words
visa    PRODUCT/image_anno.csv, PRODUCT/Data/Images, PRODUCT/Data/Masks
real-iad   realiad_1024/PRODUCT, realiad_jsons/realiad_jsons/PRODUCT.json
folder  PRODUCT/good, PRODUCT/TYPE, or one product's good and types
coco    annotations in COCO's JSON: boxes, polygons, run lengths
label-studio   a JSON export of Label Studio
archive        the project's own: the manifest in the bucket, joined with what people said of results
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Protocol

from dapo.errors import SourceError
from dapo.vocabulary import nearest
from trainer.data.reading import a_day, is_folder, read_rows, readable
from trainer.data.sample import Sample, State

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ProductData:
    """The frames of one product.

    Attributes:
        samples: in a stable order; no two have one key.
        listed: words that the literature lists for it, whether a frame shows them or not.

    Raises:
        SourceError: two frames have one key.
    """

    name: str
    samples: tuple[Sample, ...]
    listed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        twice = [key for key, count in Counter(sample.key for sample in self.samples).items() if count > 1]
        if twice:
            raise SourceError(f"product {self.name}: {twice[0]} is listed twice. Keep one of its entries.")

    @property
    def words(self) -> tuple[str, ...]:
        """Types that occur, in the order of the frames."""
        return tuple(dict.fromkeys(word for sample in self.samples for word in sample.words))

    @property
    def absent(self) -> tuple[str, ...]:
        """Words that are listed and that no frame shows."""
        return tuple(word for word in self.listed if word not in self.words)

    @property
    def has_good(self) -> bool:
        return any(sample.state is State.GOOD for sample in self.samples)

    @property
    def has_masks(self) -> bool:
        return any(sample.drawn for sample in self.samples)

    @property
    def unlabelled(self) -> int:
        """How many frames nobody has looked at."""
        return sum(sample.state is State.UNLABELLED for sample in self.samples)

    @property
    def test(self) -> ProductData:
        """What an evaluation looks at: labelled, and not in the data set's own training split."""
        kept = [s for s in self.samples if s.split != "train" and s.state is not State.UNLABELLED]
        return replace(self, samples=tuple(kept))


class Dataset(Protocol):
    """Labelled frames of one product or more.

    No frame is decoded before it is asked for. What is wrong with a tree or a file is told when it is read, as
    `SourceError`, with the file and what was expected of it.
    """

    def products(self) -> list[str]:
        """Names, sorted; at least one."""
        ...

    def product(self, name: str) -> ProductData:
        """All frames of a product.

        Raises:
            SourceError: no such product, or something in it is not as expected.
        """
        ...


def choose(known: Sequence[str], wanted: Sequence[str], where: str) -> list[str]:
    """The products that are wanted; all where none is named.

    Raises:
        SourceError: one is not there.
    """
    for name in wanted:
        if name not in known:
            near = nearest(name, known)
            raise SourceError(f"{where}: no product '{name}'." + (f" Did you mean '{near}'?" if near else ""))
    return [name for name in known if not wanted or name in wanted]


def find_images(folder: Path) -> list[Path]:
    """Pictures of a folder, by name; `_` and `.` in front hide a file.

    Raises:
        SourceError: it can't be read, or holds no picture.
    """
    with readable(folder):
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGES and p.name[0] not in "._")
    if not found:
        raise SourceError(f"{folder}: no images in it. Expected {', '.join(IMAGES)}.")
    return found


def subfolders(folder: Path) -> list[Path]:
    """Folders of a folder, by name; hidden ones are none.

    Raises:
        SourceError: it can't be read.
    """
    with readable(folder):
        return sorted(path for path in folder.iterdir() if path.name[0] not in "._" and is_folder(path))


def masks_complete(samples: Sequence[Sample], expected: Callable[[Path], Path]) -> None:
    """See that all defective frames have masks, or none: one that is lost would count its defect as background.

    Args:
        expected: a frame's path -> its mask's, for the message.

    Raises:
        SourceError: names the first without.
    """
    defective = [sample for sample in samples if sample.defective]
    missing = [sample for sample in defective if not sample.drawn]
    if missing and len(missing) < len(defective):
        path = Path(missing[0].picture.name)
        raise SourceError(
            f"{path}: has no mask, though others of {missing[0].product} have. Expected {expected(path)}."
        )


@dataclass(frozen=True)
class Groups:
    """Which frames show one part, and when they were taken: a CSV file with the columns file, group and (optional) day.

    `file` is a sample's key; a path relative to the root of the tree.
    """

    path: Path
    rows: Mapping[str, tuple[str, date | None]]

    @classmethod
    def read(cls, path: Path) -> Groups:
        """Read a file.

        Raises:
            SourceError: it can't be read, lacks a column, names a frame twice, or has a day that is none; names the line.
        """
        rows: dict[str, tuple[str, date | None]] = {}
        for line, row in read_rows(path, ("file", "group"), ("day",)):
            where = f"{path}:{line}"
            if not row["file"] or not row["group"]:
                raise SourceError(f"{where}: file and group must be given.")
            if row["file"] in rows:
                raise SourceError(f"{where}: {row['file']} is listed twice. Keep one of its rows.")
            rows[row["file"]] = (row["group"], a_day(row["day"], where))
        return cls(path, rows)

    def applied(self, data: ProductData) -> ProductData:
        """The frames with their groups.

        Raises:
            SourceError: a frame has no row: half a grouping would split parts in two.
        """
        found = []
        for sample in data.samples:
            row = self.rows.get(sample.key)
            if row is None:
                raise SourceError(
                    f"{self.path}: has no row for {sample.key} of {data.name}. Give every frame its group."
                )
            found.append(replace(sample, group=row[0], day=row[1] or sample.day))
        return replace(data, samples=tuple(found))
