"""A JSON export of Label Studio: a list of tasks with their annotations.

    https://labelstud.io/guide/export#Label-Studio-JSON-format-of-annotated-tasks

Rectangles, polygons and brushes become masks; choices are labels of the whole frame, "good" among them. A task nobody has
annotated, or whose annotation was skipped, is unlabelled; one that was submitted with nothing marked is good. Of several
annotations the last counts. Pictures are looked for by the end of their path, the longest that is there, beside the export
and where COCO's are. `product`, `part_id` and `day` are taken from the task's data. A frame's key is that end of its path.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from dapo.errors import SourceError
from schemas.rle import encode_mask
from trainer.data.coco import beside
from trainer.data.dataset import ProductData, choose
from trainer.data.masks import RunLengths
from trainer.data.reading import Fields, checked_product, read_json
from trainer.data.sample import GOOD, PictureFile, Region, Sample, State
from trainer.data.words import Words

_IMAGE_FIELDS = ("image", "img", "picture", "photo")
_NO_DEFECTS = ("textarea", "rating", "number", "datetime", "relation", "pairwise")  # say nothing of them


class LabelStudioExport:
    """See `Dataset`.

    Raises:
        SourceError: it is no such file, or holds what is not understood; names the task.
    """

    expected = "a list of tasks with data and annotations"

    def __init__(self, file: Path, words: Words) -> None:
        self._file, self._words = file, words
        tasks = read_json(file)
        if not self.fits(tasks):
            raise SourceError(f"{file}: expected {self.expected}. Export as 'JSON', not as 'JSON-MIN'.")
        self._samples: dict[str, list[Sample]] = defaultdict(list)
        for number, task in enumerate(tasks):
            sample = self._sample(Fields(task, f"{file}: task {task.get('id', f'number {number}')!r:.40}"))
            self._samples[sample.product].append(sample)

    @staticmethod
    def fits(document: Any) -> bool:
        """Whether a JSON document looks like it."""
        tasks = document if isinstance(document, list) else []
        return bool(tasks) and all(
            isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks
        )

    def products(self) -> list[str]:
        return sorted(self._samples)

    def product(self, name: str) -> ProductData:
        [name] = choose(self.products(), [name], str(self._file))
        return ProductData(name, tuple(sorted(self._samples[name], key=lambda sample: sample.key)))

    def _sample(self, task: Fields) -> Sample:
        data = Fields(task.raw("data"), task.where)
        key, path = self._picture(data)
        product = data.product("product") or checked_product(self._file.stem, task.where)
        given = _last([Fields(one, task.where) for one in task.items("annotations", missing=True)])
        regions = () if given is None else self._regions(product, given)
        good = State.UNLABELLED if given is None else State.GOOD
        return Sample(
            key,
            product,
            PictureFile(path),
            State.DEFECTIVE if regions else good,
            regions,
            group=data.text_or_none("part_id"),
            day=data.day(),
        )

    def _picture(self, data: Fields) -> tuple[str, Path]:
        """The end of the path that a task gives (of an upload, a local file, a bucket, an address), and the file."""
        told = next((data.text(name) for name in _IMAGE_FIELDS if name in data), None)
        if told is None:
            raise SourceError(f"{data.where}: its data has none of {', '.join(_IMAGE_FIELDS)}.")
        try:
            parts = urlsplit(told)
        except ValueError as error:
            raise SourceError(f"{data.where}: {told:.80} is no address of a picture: {error}.") from error
        path = parse_qs(parts.query).get("d", [unquote(parts.path)])[0]  # /data/local-files/?d=line1/7.png
        names = [name for name in PurePosixPath(path).parts if name not in ("/", "..")]
        if not names:
            raise SourceError(f"{data.where}: {told:.80} names no file.")
        for first in range(len(names)):
            end = "/".join(names[first:])
            try:
                return end, beside(self._file, end, data.where)
            except SourceError:
                if first == len(names) - 1:
                    raise
        raise AssertionError("the last end is found, or raises")

    def _regions(self, product: str, annotation: Fields) -> tuple[Region, ...]:
        drawn: list[Region] = []
        said: list[str] = []
        for entry in annotation.items("result", missing=True):
            result = Fields(entry, annotation.where)
            kind = result.text("type")
            if kind in _NO_DEFECTS:
                continue
            value = result.inner("value")
            labels = value.items(kind, missing=True)
            if not labels or not all(isinstance(label, str) and label for label in labels):
                raise SourceError(
                    f"{result.where}: a {kind} without label is not understood. Give each defect its type."
                )
            words = [self._words.word(product, label) for label in labels]
            if kind == "choices":
                said += words
            elif len(words) != 1 or words[0] == GOOD:
                raise SourceError(
                    f"{result.where}: a mark is called {', '.join(words)}. Give each defect one type."
                )
            else:
                drawn.append(Region(words[0], _mask(kind, value, result)))
        types = [word for word in dict.fromkeys(said) if word != GOOD]
        if (drawn or types) and GOOD in said:
            raise SourceError(
                f"{annotation.where}: is said to be good and has a defect. Correct one of them."
            )
        # A choice that is drawn too says nothing more.
        return (*drawn, *(Region(word) for word in types if word not in [region.word for region in drawn]))


def _last(annotations: Sequence[Fields]) -> Fields | None:
    """The one that counts: submitted, and the last; of those with one time, the last in the list."""
    submitted = [one for one in annotations if not one.raw("was_cancelled")]
    ordered = sorted(submitted, key=lambda one: str(one.raw("updated_at") or one.raw("created_at") or ""))
    return ordered[-1] if ordered else None


def _mask(kind: str, value: Fields, result: Fields) -> RunLengths:
    width, height = result.side("original_width"), result.side("original_height")
    if result.raw("image_rotation"):
        raise SourceError(
            f"{result.where}: was drawn on a rotated picture. Rotate the file itself, and draw again."
        )
    if kind == "rectanglelabels":
        return RunLengths.outlined(width, height, [_rectangle(value, width, height)], result.where)
    if kind == "polygonlabels":
        points = value.items("points")
        if not all(isinstance(point, list) and len(point) == 2 for point in points):
            raise SourceError(f"{result.where}: points: expected pairs of numbers.")
        corners = [Fields({"x": x, "y": y}, f"{result.where}: points") for x, y in points]
        ring = [c for one in corners for c in (one.number("x") * width / 100, one.number("y") * height / 100)]
        return RunLengths.outlined(width, height, [ring], result.where)
    if kind == "brushlabels":
        packed = value.items("rle")
        if not all(
            isinstance(byte, int) and not isinstance(byte, bool) and 0 <= byte <= 255 for byte in packed
        ):
            raise SourceError(f"{result.where}: rle: expected bytes.")
        try:
            marked = decode_brush(bytes(packed), width, height)
        except ValueError as error:
            raise SourceError(f"{result.where}: the brush can't be read: {error}.") from error
        return RunLengths.of(encode_mask(marked), result.where)
    raise SourceError(
        f"{result.where}: {kind:.40} is not understood. Mark defects by rectangle, polygon or brush."
    )


def _rectangle(value: Fields, width: int, height: int) -> list[float]:
    """Corners in px; all is in percent, and turned clockwise about the first corner."""
    x, w = (value.number(name) * width / 100 for name in ("x", "width"))
    y, h = (value.number(name) * height / 100 for name in ("y", "height"))
    angle = math.radians(value.number("rotation", 0.0))
    cos, sin = math.cos(angle), math.sin(angle)
    corners = ((0.0, 0.0), (w, 0.0), (w, h), (0.0, h))
    return [c for dx, dy in corners for c in (x + dx * cos - dy * sin, y + dx * sin + dy * cos)]


def decode_brush(data: bytes, width: int, height: int) -> NDArray[np.bool_]:
    """Label Studio's brush: the alpha of an RGBA picture, packed by @thi.ng/rle-pack, to bool [height, width].

    https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack: 32 bits number of values, 5 bits width of a value less
    one, four times 4 bits width of a count less one; then runs of 1 bit (repeated or not), 2 bits which of the four widths,
    the count less one, and one value or so many.

    Raises:
        ValueError: it does not hold the values of such a picture.
    """
    expected = width * height * 4
    bits = _Bits(data)
    count, size = bits.take(32), bits.take(5) + 1
    widths = [bits.take(4) + 1 for _ in range(4)]
    if count != expected:
        raise ValueError(f"{count} values, expected {expected} for {width} x {height} px")
    out = np.zeros(expected, np.uint8)
    at = 0
    while at < expected:
        repeated, length = bits.take(1), bits.take(widths[bits.take(2)]) + 1
        if at + length > expected:
            raise ValueError(f"runs hold more than {expected} values")
        if repeated:
            out[at : at + length] = min(255, bits.take(size))
        else:
            out[at : at + length] = [min(255, bits.take(size)) for _ in range(length)]
        at += length
    return np.asarray(out.reshape(height, width, 4)[..., 3] > 0)


class _Bits:
    """Bits of bytes, the highest first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> int:
        first, self._at = self._at, self._at + count
        if self._at > 8 * len(self._data):
            raise ValueError("the run lengths end too early")
        some = int.from_bytes(self._data[first // 8 : (self._at + 7) // 8])
        return (some >> (-self._at % 8)) & ((1 << count) - 1)
