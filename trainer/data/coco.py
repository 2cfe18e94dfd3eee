"""COCO's JSON for detection: images, categories, annotations with boxes, polygons or run lengths.

    https://cocodataset.org/#format-data

`file_name` is looked for beside the JSON file, in the folder above, in a folder `images` of either, and in a folder above
that the file's name ends with (annotations/instances_train2017.json: train2017). The product is the image's own field
`product`, else the first folder of `file_name` (but "images"), else the JSON file's name; `part_id` and `day` are taken
where they are. A frame's key is its `file_name`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dapo.errors import SourceError
from trainer.data.dataset import ProductData, choose
from trainer.data.masks import RunLengths
from trainer.data.reading import Fields, checked_product, inside, is_file, read_json
from trainer.data.sample import GOOD, PictureFile, Region, Sample, State
from trainer.data.words import Words

Unannotated = Literal["good", "unlabelled"]


class CocoFile:
    """See `Dataset`.

    Args:
        file: the JSON file.
        words: what its categories mean.
        unannotated: what an image without annotation is. The format does not say whether nothing was found on it or
            nobody looked: so it is unlabelled, unless one says otherwise.

    Raises:
        SourceError: it is no such file; names the entry.
    """

    expected = "an object with images, annotations and categories"

    def __init__(self, file: Path, words: Words, *, unannotated: Unannotated = "unlabelled") -> None:
        self._file, self._words, self._unannotated = file, words, unannotated
        document = read_json(file)
        if not self.fits(document):
            raise SourceError(f"{file}: expected {self.expected}.")
        lists = Fields(document, str(file))
        categories = {k: one.text("name") for k, one in self._by_id(lists, "categories", "category").items()}
        images = self._by_id(lists, "images", "image")
        notes: dict[str | int, list[Fields]] = defaultdict(list)
        for note in self._by_id(lists, "annotations", "annotation").values():
            image = note.identity("image_id")
            if image not in images:
                raise SourceError(f"{note.where}: names the image {image!r:.40}, which is not among images.")
            if note.identity("category_id") not in categories:
                raise SourceError(
                    f"{note.where}: category {note.raw('category_id')!r:.40} is not among categories."
                )
            notes[image].append(note)
        self._samples: dict[str, list[Sample]] = defaultdict(list)
        for key, image_fields in images.items():
            sample = self._sample(image_fields, notes.get(key, []), categories)
            self._samples[sample.product].append(sample)
        if not self._samples:
            raise SourceError(f"{file}: lists no image.")

    @staticmethod
    def fits(document: Any) -> bool:
        """Whether a JSON document looks like it."""
        return isinstance(document, dict) and {"images", "annotations", "categories"} <= set(document)

    def products(self) -> list[str]:
        return sorted(self._samples)

    def product(self, name: str) -> ProductData:
        [name] = choose(self.products(), [name], str(self._file))
        return ProductData(name, tuple(sorted(self._samples[name], key=lambda sample: sample.key)))

    def _by_id(self, lists: Fields, name: str, one: str) -> dict[str | int, Fields]:
        found: dict[str | int, Fields] = {}
        for number, entry in enumerate(lists.items(name)):
            key = Fields(entry, f"{self._file}: {name}[{number}]").identity("id")
            if key in found:
                raise SourceError(f"{self._file}: {one} {key!r:.40} is listed twice. Give each its own id.")
            found[key] = Fields(entry, f"{self._file}: {one} {key!r:.40}")
        return found

    def _sample(self, image: Fields, notes: Sequence[Fields], categories: Mapping[str | int, str]) -> Sample:
        name = image.text("file_name")
        path = beside(self._file, name, image.where)
        folders = [folder for folder in Path(name).parts[:-1] if folder != "images"]
        product = image.product("product") or checked_product(
            folders[0] if folders else self._file.stem, image.where
        )
        words = [self._words.word(product, categories[note.identity("category_id")]) for note in notes]
        if GOOD in words and any(word != GOOD for word in words):
            raise SourceError(f"{image.where}: is said to be good and has a defect. Correct one of them.")
        regions = tuple(
            Region(word, _mask(note, image)) for note, word in zip(notes, words, strict=True) if word != GOOD
        )
        good = State.GOOD if notes else State(self._unannotated)
        return Sample(
            name,
            product,
            PictureFile(path),
            State.DEFECTIVE if regions else good,
            regions,
            group=image.text_or_none("part_id"),
            day=image.day(),
        )


def _mask(note: Fields, image: Fields) -> RunLengths | None:
    width, height = image.side("width"), image.side("height")
    drawn = note.raw("segmentation")
    if isinstance(drawn, dict):
        return RunLengths.of(drawn, note.where)
    if isinstance(drawn, list) and drawn:
        return RunLengths.outlined(width, height, drawn, note.where)
    if "bbox" in note:
        return RunLengths.boxed(width, height, note.raw("bbox"), note.where)
    return None


def beside(file: Path, name: str, where: str) -> Path:
    """A picture that a file names, near it; never outside of where it is looked for.

    Raises:
        SourceError: no such file.
    """
    above = file.parent.parent
    roots = (
        file.parent,
        file.parent / "images",
        above,
        above / "images",
        above / file.stem.rpartition("_")[2],
    )
    found = next((path for root in roots if is_file(path := inside(root, name, where))), None)
    if found is None:
        raise SourceError(f"{where}: no file {name:.200} in {', '.join(map(str, roots))}.")
    return found
