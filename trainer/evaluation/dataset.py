"""MVTec-AD layout: product/test/<type>/*, product/ground_truth/<type>/<stem>_mask.png, product/train/good/*.

Optional: product/ground_truth_types/<type>/<stem>_types.png, a label map for images with several types, and
product/types.json, which names its values.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dapo.errors import FrameError, SourceError
from dapo.vocabulary import nearest
from pipeline.decode import decode

GOOD = "good"
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Item:
    """One test image.

    Attributes:
        path: of the image.
        word: defect word, "good", or None where the image holds several types.
        mask: path of its binary mask, None where there is none.
        types: path of its label map, None where there is none.
    """

    path: Path
    word: str | None
    mask: Path | None = None
    types: Path | None = None

    @property
    def defective(self) -> bool:
        return self.word != GOOD

    def image(self) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] RGB.

        Raises:
            SourceError: it can't be read or decoded.
        """
        with _readable(self.path):
            data = self.path.read_bytes()
        try:
            return decode(data).pixels
        except FrameError as error:
            raise SourceError(f"{self.path}: {error} Or take the image out of the test set.") from error

    def mask_at(self, size: int) -> NDArray[np.bool_] | None:
        """Defect pixels squashed (nearest) to [size, size], as the frame is; good images have an empty mask."""
        if not self.defective:
            return np.zeros((size, size), bool)
        if self.mask is None:
            return None
        return _squashed(self.mask, size) > 0


@dataclass(frozen=True)
class ProductData:
    """Test images of one product.

    Attributes:
        words: defect words in a fixed order; `labels` maps values of its label maps to them.
    """

    name: str
    items: tuple[Item, ...]
    words: tuple[str, ...]
    labels: Mapping[int, str]

    @property
    def has_good(self) -> bool:
        return any(not item.defective for item in self.items)

    @property
    def has_masks(self) -> bool:
        return any(item.mask is not None for item in self.items)


def _squashed(path: Path, size: int) -> NDArray[np.uint8]:
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise SourceError(f"{path}: the mask can't be read. Expected an 8-bit picture.")
    return np.asarray(cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST), np.uint8)


class Words:
    """Folder name -> defect word; a user's file wins over the built-in map."""

    def __init__(self, file: Path | None = None) -> None:
        built_in = (resources.files("trainer.evaluation") / "words.toml").read_text(encoding="utf-8")
        self._any: dict[str, str] = tomllib.loads(built_in)["words"]
        self._product: dict[str, dict[str, str]] = {}
        if file is None:
            return
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise SourceError(f"{file}: can't be read: {error.strerror}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SourceError(f"{file}: not valid TOML: {error}.") from error
        for key in document:
            if key not in ("words", "product"):
                raise SourceError(f"{file}: unknown table '{key}'. Expected [words] or [product.NAME.words].")
        self._any |= _table_of_words(document, file, "words")
        products = document.get("product", {})
        if not isinstance(products, dict):
            raise SourceError(f"{file}: 'product': expected tables [product.NAME.words].")
        self._product = {
            name: _table_of_words(body, file, f"product.{name}.words") for name, body in products.items()
        }

    def word(self, product: str, folder: str) -> str:
        """The word of a folder; underscores become spaces where no map names it."""
        own = self._product.get(product, {})
        return own.get(folder) or self._any.get(folder) or folder.replace("_", " ")


def _table_of_words(body: object, file: Path, name: str) -> dict[str, str]:
    """`words` of a table: folder name -> word."""
    words = body.get("words", {}) if isinstance(body, dict) else None
    if not isinstance(words, dict) or not all(
        isinstance(word, str) and word.strip() for word in words.values()
    ):
        raise SourceError(f"{file}: [{name}]: expected lines such as broken_large = 'broken'.")
    return words


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = path if error.filename is None else error.filename
        raise SourceError(
            f"{where}: can't be read: {error.strerror}. Check the path and its permissions."
        ) from error


def find_products(root: Path, wanted: Sequence[str] = ()) -> list[str]:
    """Products below `root`: folders with a test folder.

    Raises:
        SourceError: no such tree, it can't be read, or a wanted product is not in it.
    """
    with _readable(root):
        if not root.is_dir():
            raise SourceError(
                f"{root}: no such folder. Expected a tree in MVTec-AD layout: PRODUCT/test/TYPE/*.png."
            )
        found = sorted(path.name for path in root.iterdir() if (path / "test").is_dir())
    if not found:
        raise SourceError(
            f"{root}: no product in it. Expected PRODUCT/test/good/*.png and PRODUCT/test/TYPE/*.png."
        )
    for name in wanted:
        if name not in found:
            near = nearest(name, found)
            raise SourceError(f"{root}: no product '{name}'." + (f" Did you mean '{near}'?" if near else ""))
    return [name for name in found if not wanted or name in wanted]


def read_product(root: Path, name: str, words: Words) -> ProductData:
    """The test images of one product.

    Raises:
        SourceError: a folder can't be read, a mask is missing beside others, or a label map has no names; names file
            and expectation.
    """
    with _readable(root / name):
        return _read_product(root / name, name, words)


def _read_product(base: Path, name: str, words: Words) -> ProductData:
    folders = sorted(path for path in (base / "test").iterdir() if path.is_dir())
    names_file = base / "types.json"
    labels: dict[int, str] = {}
    if names_file.exists():
        try:
            labels = {
                int(value): word.replace("_", " ")
                for word, value in _types(json.loads(names_file.read_text()))
            }
        except (ValueError, TypeError, AttributeError) as error:
            raise SourceError(f"{names_file}: expected an object of type name -> value. {error}") from error
    items: list[Item] = []
    for folder in folders:
        images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)
        if not images:
            raise SourceError(f"{folder}: no images in it. Expected {', '.join(IMAGES)}.")
        items += [_item(base, name, folder.name, path, words, bool(labels)) for path in images]
    _masks_complete(base, items)
    own = dict.fromkeys(item.word for item in items if item.word not in (GOOD, None))
    several = sorted(labels.values()) if any(item.types for item in items) else []
    return ProductData(
        name, tuple(items), tuple(word for word in dict.fromkeys([*own, *several]) if word), labels
    )


def _types(document: dict[str, object]) -> list[tuple[str, int]]:
    """types.json either way round: name -> value or value -> name."""
    pairs = []
    for key, value in document.items():
        name, number = (str(value), key) if str(key).isdigit() else (key, value)
        if name != "background":
            pairs.append((name, int(str(number))))
    return pairs


def _item(base: Path, product: str, folder: str, path: Path, words: Words, labelled: bool) -> Item:
    if folder == GOOD:
        return Item(path, GOOD)
    truth = base / "ground_truth" / folder
    mask = next(
        (p for p in (truth / f"{path.stem}_mask.png", truth / f"{path.stem}.png") if p.exists()), None
    )
    types = base / "ground_truth_types" / folder / f"{path.stem}_types.png"
    several = labelled and types.exists()
    return Item(path, None if several else words.word(product, folder), mask, types if several else None)


def _masks_complete(base: Path, items: Sequence[Item]) -> None:
    """All defective images have masks, or none: a lost mask would count its defect as background."""
    defective = [item for item in items if item.defective]
    missing = [item for item in defective if item.mask is None]
    if missing and len(missing) < len(defective):
        item = missing[0]
        expected = base / "ground_truth" / item.path.parent.name / f"{item.path.stem}_mask.png"
        raise SourceError(
            f"{item.path}: has no mask, though others of {base.name} have. Expected {expected}."
        )


def type_labels(item: Item, product: ProductData, size: int) -> NDArray[np.int64] | None:
    """State per pixel [size, size], 0 good, 1 + index into the product's words; None without masks."""
    index = {word: i + 1 for i, word in enumerate(product.words)}
    if item.types is not None:
        values = _squashed(item.types, size)
        out = np.zeros((size, size), np.int64)
        for value, word in product.labels.items():
            out[values == value] = index.get(word, 0)
        return out
    mask = item.mask_at(size)
    if mask is None:
        return None
    return mask.astype(np.int64) * index.get(item.word or "", 0)
