"""Masks as data sets have them: picture files, and run lengths, which polygons and boxes become."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as coco

from dapo.errors import SourceError
from pipeline.decode import Limits
from schemas.rle import MaskError, decode_mask
from trainer.data.reading import MAX_SIDE, file_version, is_number, readable

_WHOLE = (
    "1",
    "L",
    "P",
    "I;16",
    "I;16B",
    "I",
)  # one number a pixel; a palette's are its indices, not its colours
_LIMITS = Limits()


@dataclass(frozen=True)
class MaskFile:
    """A picture with one number a pixel.

    Attributes:
        values: numbers that are this defect; none: all but 0.
    """

    path: Path
    values: tuple[int, ...] = ()

    def shape(self) -> tuple[int, int]:
        height, width = read_numbers(self.path).shape
        return height, width

    def at(self, size: int) -> NDArray[np.bool_]:
        """See `Mask`.

        Raises:
            SourceError: it can't be read, or marks nothing.
        """
        return squash(self.marked(), size)

    def marked(self) -> NDArray[np.bool_]:
        """See `Mask`; raises as `at`."""
        numbers = read_numbers(self.path)
        marked = np.isin(numbers, self.values) if self.values else numbers != 0
        if not marked.any():
            raise SourceError(f"{self.path}: marks no pixel, though its frame is defective. Draw the defect.")
        return marked

    def version(self) -> str:
        return f"{file_version(self.path)} {self.values}"


@dataclass(frozen=True)
class RunLengths:
    """COCO's compressed run lengths, as in `schemas.rle`; at least one pixel is marked."""

    height: int
    width: int
    counts: str

    @classmethod
    def outlined(cls, width: int, height: int, rings: Sequence[Any], where: str) -> RunLengths:
        """Filled polygons, drawn as COCO draws them.

        Args:
            width, height: of the frame, px.
            rings: each x, y, x, y, ... in px of the frame, at least three corners.
            where: for the message.

        Raises:
            SourceError: a ring is no polygon, or nothing of it lies in the frame.
        """
        for ring in rings:
            whole = isinstance(ring, list | tuple) and len(ring) >= 6 and len(ring) % 2 == 0
            if not whole or not all(is_number(value) for value in ring):
                raise SourceError(
                    f"{where}: a polygon needs x, y of three corners or more, found {ring!r:.60}."
                )
        drawn = coco.merge(coco.frPyObjects([[float(v) for v in ring] for ring in rings], height, width))
        if not coco.area(drawn):
            raise SourceError(f"{where}: no pixel of the polygon lies in the frame of {width} x {height} px.")
        return cls(height, width, drawn["counts"].decode("ascii"))

    @classmethod
    def boxed(cls, width: int, height: int, xywh: object, where: str) -> RunLengths:
        """A whole rectangle x, y, width, height in px: coarse, as boxes are; see `outlined`."""
        if not isinstance(xywh, list) or len(xywh) != 4 or not all(is_number(value) for value in xywh):
            raise SourceError(f"{where}: a box needs x, y, width, height, found {xywh!r:.60}.")
        x, y, w, h = (float(value) for value in xywh)
        return cls.outlined(width, height, [[x, y, x + w, y, x + w, y + h, x, y + h]], where)

    @classmethod
    def of(cls, rle: Mapping[str, Any], where: str) -> RunLengths:
        """COCO's run lengths, compressed or as a list of numbers.

        Args:
            where: for the message.

        Raises:
            SourceError: they are malformed, or mark nothing.
        """
        height, width = _size(rle.get("size"), where)
        counts = rle.get("counts")
        if isinstance(counts, list):
            whole = all(isinstance(run, int) and not isinstance(run, bool) and run >= 0 for run in counts)
            if not whole or sum(counts) != height * width:
                raise SourceError(
                    f"{where}: run lengths must be whole numbers that add up to {height} x {width} px."
                )
            counts = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
            counts = counts.decode("ascii")
        if not isinstance(counts, str):
            raise SourceError(f"{where}: run lengths need counts, found {counts!r:.60}.")
        try:
            marked = decode_mask({"size": [height, width], "counts": counts}).any()
        except (MaskError, UnicodeEncodeError, MemoryError, OverflowError) as error:
            raise SourceError(f"{where}: {error or 'the run lengths are too long'}.") from error
        if not marked:
            raise SourceError(
                f"{where}: the run lengths mark no pixel. Draw the defect, or take the mark away."
            )
        return cls(height, width, counts)

    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    def at(self, size: int) -> NDArray[np.bool_]:
        return squash(self.marked(), size)

    def marked(self) -> NDArray[np.bool_]:
        return decode_mask({"size": [self.height, self.width], "counts": self.counts})

    def version(self) -> str:
        return hashlib.sha256(f"{self.height} {self.width} {self.counts}".encode()).hexdigest()[:16]


def squash(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Nearest neighbour to [size, size]; the aspect ratio is not kept, as that of frames is not."""
    return np.asarray(cv2.resize(mask.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST) > 0)


def read_numbers(path: Path) -> NDArray[np.int32]:
    """A picture of labels, one number a pixel: [H, W].

    Raises:
        SourceError: it can't be read, is too large, or is in colour.
    """
    return _numbers(path, file_version(path))


@lru_cache(maxsize=4)  # the regions of one frame share their file
def _numbers(path: Path, version: str) -> NDArray[np.int32]:
    with readable(path):
        data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            if len(data) > _LIMITS.max_bytes or width * height > _LIMITS.max_pixels:
                raise SourceError(f"{path}: {width} x {height} px, {len(data)} bytes: too large for a mask.")
            grey = picture.mode in _WHOLE
            numbers = np.asarray(picture if grey else picture.convert("RGB")).astype(np.int32)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SourceError(
            f"{path}: the mask can't be read ({error}). Expected a picture of grey values."
        ) from error
    if numbers.ndim == 3:
        if (numbers != numbers[..., :1]).any():
            raise SourceError(
                f"{path}: the mask is in colour. Expected grey values, 0 where the frame is good."
            )
        numbers = numbers[..., 0]
    return np.ascontiguousarray(numbers)


def _size(size: object, where: str) -> tuple[int, int]:
    sides = size if isinstance(size, list) else []
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
        raise SourceError(
            f"{where}: run lengths need size [height, width] of 1 to {MAX_SIDE} px, found {size!r:.60}."
        )
    return sides[0], sides[1]
