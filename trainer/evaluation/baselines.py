"""Training-free saliency: what a page of OpenCV does. An encoder that does not beat it is not worth its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

_TOP = 0.03  # the score is the mean of the highest 3 %, as the head's


def _smooth(field: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma), np.float32)


def local_contrast(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Difference of a small and a large neighbourhood. uint8 [H, W, 3] -> float32 [H, W]."""
    field = image.astype(np.float32)
    size = max(image.shape[:2])
    return _smooth(np.abs(_smooth(field, size / 128) - _smooth(field, size / 16)).mean(-1), size / 64)


def gradient(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Length of the brightness gradient, smoothed. uint8 [H, W, 3] -> float32 [H, W]."""
    grey = _smooth(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), 1.0)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    return _smooth(np.hypot(dx, dy).astype(np.float32), max(image.shape[:2]) / 64)


def median_deviation(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Distance of each pixel from the image's own median colour. uint8 [H, W, 3] -> float32 [H, W]."""
    field = image.astype(np.float32)
    return _smooth(np.abs(field - np.median(field, (0, 1))).mean(-1), max(image.shape[:2]) / 64)


BASELINES: Mapping[str, Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {
    "local contrast": local_contrast,
    "gradient": gradient,
    "median deviation": median_deviation,
}


def score(saliency: NDArray[np.float32]) -> float:
    """Image score of a saliency map: the mean of its highest 3 %."""
    flat = np.sort(saliency.ravel())
    return float(flat[-max(1, round(_TOP * len(flat))) :].mean())
