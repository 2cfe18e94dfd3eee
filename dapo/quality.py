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
# Saturation: 98 % of the pixels at full scale, and nothing dark is left. A small black defect on a white part is a
# picture with something in it (12 binarised circuit boards of 1,303 photographs were refused without the second rule).
_WHITE_LEVEL, _WHITE_SHARE = 254, 0.98
_DARK_LEVEL, _DARK_QUANTILE = 128, 0.1
# Blur: a sharp picture of anything with structure has energy at 1 to 2 px too, not only at 4 to 8 px. The ratio does not
# depend on contrast. 100 sharp inspection photographs gave 0.066 and more, blurred by 8 px a median of 0.010. Pictures with
# little structure at 4 to 8 px (smooth plastic, a lamp's gradient) have none to lose, and pass.
_BLUR_RATIO, _BLUR_STRUCTURE = 0.02, 4.0
_SIDE = 512  # px; larger frames are reduced first, so that the limits do not depend on the camera
FROZEN_AFTER = 5  # the same bytes of pixels this many times in a row: sensor noise never repeats


def defects_of_picture(pixels: NDArray[np.uint8]) -> tuple[str, str] | None:
    """What is wrong with a picture: (reason code, reason), or None.

    Args:
        pixels: uint8 [H, W, 3] RGB.
    """
    grey = np.asarray(cv2.cvtColor(_reduced(pixels), cv2.COLOR_RGB2GRAY), np.uint8)
    if np.percentile(grey, _BLACK_QUANTILE) < _BLACK_LEVEL:
        return "black", "the picture is black: is the lens covered, or the light off?"
    white = (grey >= _WHITE_LEVEL).mean() > _WHITE_SHARE
    if white and np.percentile(grey, _DARK_QUANTILE) > _DARK_LEVEL:
        return "over-exposed", "the picture is white: exposure too long, or a lamp in the view?"
    if min(grey.shape) >= 32 and _blurred(grey):
        return "blurred", "the picture is out of focus or moved"
    return None


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = _SIDE / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _blurred(grey: NDArray[np.uint8]) -> bool:
    field = grey.astype(np.float32)
    at = {sigma: cv2.GaussianBlur(field, (0, 0), sigma) for sigma in (1.0, 2.0, 4.0, 8.0)}
    fine, coarse = float(((at[1.0] - at[2.0]) ** 2).mean()), float(((at[4.0] - at[8.0]) ** 2).mean())
    return coarse > _BLUR_STRUCTURE and fine < _BLUR_RATIO * coarse


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
        return (
            "frozen",
            f"the same picture came more than {FROZEN_AFTER} times in a row: is the camera stuck?",
        )
