"""Masks as COCO compressed run lengths: column-major, counts as text, size [height, width].

Format: https://github.com/cocodataset/cocoapi (common/maskApi). pycocotools encodes; what comes from outside is checked and
expanded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

MAX_PIXELS = 400_000_000  # a frame of 20,000 x 20,000; decoding allocates one byte a pixel
MAX_COUNTS = 16 * 2**20  # characters


class MaskError(ValueError):
    """A run-length mask is malformed; the message says how."""


def encode_mask(
    mask: NDArray[np.bool_], corner: tuple[int, int] = (0, 0), size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Encode a mask, or a region's mask inside its frame.

    Args:
        mask: bool [h, w].
        corner: x, y of the region in the frame, px.
        size: height, width of the frame; None: the mask is the frame.

    Returns:
        {"size": [height, width], "counts": text}.

    Raises:
        MaskError: the region does not lie inside the frame.

    Example:
        >>> encode_mask(np.array([[False, True]]))
        {'size': [1, 2], 'counts': '11'}
    """
    height, width = size or mask.shape
    x, y = corner
    h, w = mask.shape
    if x < 0 or y < 0 or x + w > width or y + h > height:
        raise MaskError(
            f"region of {w} x {h} px at {x}, {y} does not lie inside a frame of {width} x {height} px"
        )
    full = np.zeros((height, width), np.uint8, order="F")
    full[y : y + h, x : x + w] = mask
    counts: bytes = coco.encode(full)["counts"]
    return {"size": [int(height), int(width)], "counts": counts.decode("ascii")}


def decode_mask(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Decode {"size", "counts"} to bool [height, width].

    Raises:
        MaskError: malformed, too large, or its runs do not add up to its size.
    """
    try:
        height, width = (int(v) for v in rle["size"])
        counts = rle["counts"]
        data = counts.encode("ascii") if isinstance(counts, str) else bytes(counts)
    except (KeyError, TypeError, ValueError) as error:
        raise MaskError(
            f"a mask needs size [height, width] and counts, found {type(error).__name__}: {error}"
        ) from error
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise MaskError(f"a mask of {height} x {width} px; limits are 1 and {MAX_PIXELS} px in all")
    if len(data) > MAX_COUNTS:
        raise MaskError(f"counts of {len(data)} characters; the limit is {MAX_COUNTS}")
    # The runs are expanded here, not by pycocotools, which writes past its buffer where runs and size disagree.
    runs = _runs(data)
    if (total := sum(runs)) != height * width:
        raise MaskError(f"runs add up to {total} px, the size is {height} x {width} = {height * width} px")
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height)
    return np.ascontiguousarray(columns.T)


def _runs(data: bytes) -> list[int]:
    """Run lengths of compressed counts: five bits a character, sign-extended, differences from the run before last."""
    runs: list[int] = []
    value = shift = 0
    for character in data:
        bits = character - 48
        if not 0 <= bits < 64:
            raise MaskError(f"counts hold the byte {character}, which is no run-length character")
        value |= (bits & 0x1F) << shift
        shift += 5
        if shift > 60:
            raise MaskError("counts hold a run that never ends")
        if not bits & 0x20:
            if bits & 0x10:
                value |= -1 << shift
            if len(runs) > 2:
                value += runs[-2]
            if value < 0:
                raise MaskError("counts hold a negative run")
            runs.append(value)
            value = shift = 0
    if shift:
        raise MaskError("counts end inside a run")
    return runs
