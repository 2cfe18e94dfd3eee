"""Is the picture itself usable? Black, over-exposed, blurred and frozen frames are NotDecidable, never OK.

Limits are conservative: a plain white plastic cover or a black rubber mat must pass.
"""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

# A covered lens or a dead lamp: 99.9 % of the pixels below 10 of 255. Black rubber under light reaches 20 and more.
_BLACK_LEVEL, _BLACK_QUANTILE = 10, 99.9
# Saturation: 98 % of the pixels at full scale. A binarised scan or a white background stays under that.
_WHITE_LEVEL, _WHITE_SHARE = 254, 0.98
# Blur: detail that a sharp picture of anything has (edges, grain, sensor noise) is gone. Measured as the energy of the
# finest scale over that of the next coarser one, which does not depend on contrast; only where there is contrast at all
# (smooth plastic has none to lose, and passes).
_BLUR_RATIO, _BLUR_CONTRAST = 0.012, 12.0
_SIDE = 512  # px; larger frames are reduced first, so that the limits do not depend on the camera
FROZEN_AFTER = 5  # the same bytes of pixels this many times in a row: sensor noise never repeats


def defects_of_picture(pixels: NDArray[np.uint8]) -> tuple[str, str] | None:
    """What is wrong with a picture: (reason code, reason), or None.

    Args:
        pixels: uint8 [H, W, 3] RGB.
    """
    grey = cv2.cvtColor(_reduced(pixels), cv2.COLOR_RGB2GRAY)
    if np.percentile(grey, _BLACK_QUANTILE) < _BLACK_LEVEL:
        return "black", "the picture is black: is the lens covered, or the light off?"
    if (grey >= _WHITE_LEVEL).mean() > _WHITE_SHARE:
        return "over-exposed", "the picture is white: exposure too long, or a lamp in the view?"
    if grey.std() > _BLUR_CONTRAST and min(grey.shape) >= 32 and _sharpness(grey) < _BLUR_RATIO:
        return "blurred", "the picture is out of focus or moved"
    return None


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = _SIDE / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _sharpness(grey: NDArray[np.uint8]) -> float:
    """Energy of the finest octave over that of the third: about 0.25 and more when sharp, near 0 when blurred."""
    field = grey.astype(np.float32)
    fine = field - cv2.GaussianBlur(field, (0, 0), 1.0)
    coarse = cv2.GaussianBlur(field, (0, 0), 2.0) - cv2.GaussianBlur(field, (0, 0), 4.0)
    return float((fine**2).mean() / ((coarse**2).mean() + 1e-6))


class FrozenDetector:
    """Notices a camera that repeats itself: one object per camera.

    A folder of copies looks the same; that is why it takes `FROZEN_AFTER` repetitions.
    """

    def __init__(self) -> None:
        self._last = b""
        self._repeats = 0

    def check(self, pixels: NDArray[np.uint8]) -> tuple[str, str] | None:
        """(reason code, reason) once the same picture came `FROZEN_AFTER` times in a row, else None."""
        digest = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()
        self._repeats = self._repeats + 1 if digest == self._last else 0
        self._last = digest
        if self._repeats < FROZEN_AFTER:
            return None
        return "frozen", f"the same picture came {self._repeats + 1} times in a row: is the camera stuck?"
