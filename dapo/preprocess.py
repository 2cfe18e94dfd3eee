"""From a frame's pixels to the model's input: one resize, one normalisation, the same in training and on the line.

Pillow's antialiased bicubic is the one resize (parity with the reference rests on it).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Squash a whole frame to the model's square; the aspect ratio is not kept, as the paper does.

    Args:
        image: uint8 [H, W, 3] RGB.
        size: side of the model's input in px.

    Returns:
        uint8 [size, size, 3].

    Raises:
        ValueError: `image` is not uint8 [H, W, 3] with at least one pixel.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f"expected uint8 [H, W, 3] with at least one pixel, found {image.dtype} {list(image.shape)}"
        )
    if image.shape[:2] == (size, size):
        return np.ascontiguousarray(image)
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))


def normalise(
    batch: NDArray[np.uint8], mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
) -> NDArray[np.float32]:
    """uint8 [B, S, S, 3] -> float32 [B, 3, S, S], scaled to 0..1 and standardised per channel."""
    scaled = batch.astype(np.float32) / np.float32(255)
    standard = (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(standard.transpose(0, 3, 1, 2))
