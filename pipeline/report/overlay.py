"""A frame with its defects outlined and named."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from dapo.inspection import Defect, Verdict

MAX_SIDE = 1600  # px; what a screen shows
# Okabe and Ito's colour-blind-safe palette (jfly.uni-koeln.de/color), without black and yellow, which white parts swallow.
_FIRST = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_GOLDEN = 0.618034  # of a turn: each further hue falls into the widest gap that is left
OTHER = (150, 150, 150)  # grey: of a region that no word fits

Colour = tuple[int, int, int]


def colours(types: Iterable[str]) -> dict[str, Colour]:
    """RGB per defect type, by its place in the product's list: no two alike, and the same in every run of a pack.

    >>> colours(["scratch", "hole"])
    {'scratch': (230, 159, 0), 'hole': (86, 180, 233)}
    """
    return {slug: _colour(place) for place, slug in enumerate(types)}


def _colour(place: int) -> Colour:
    if place < len(_FIRST):
        return _FIRST[place]
    further = place - len(_FIRST)
    lightness = (0.72, 0.45, 0.6)[further % 3]
    red, green, blue = colorsys.hls_to_rgb(further * _GOLDEN % 1, lightness, 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_overlay(
    pixels: NDArray[np.uint8], verdict: Verdict, palette: Mapping[str, Colour] | None = None
) -> NDArray[np.uint8]:
    """Outline and label every defect.

    Args:
        pixels: uint8 [H, W, 3] RGB, left as it is.
        verdict: of this frame.
        palette: RGB per type; others are grey. Without it, the types of this frame get the first colours.

    Returns:
        uint8 [h, w, 3], the frame reduced to at most 1600 px a side (small frames are enlarged to 480 px, or labels would
        not be readable).
    """
    if palette is None:
        palette = colours(sorted({defect.type for defect in verdict.defects}))
    height, width = pixels.shape[:2]
    scale = min(MAX_SIDE / max(height, width), max(1.0, 480 / max(height, width)))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = np.array(cv2.resize(pixels, size, interpolation=method), np.uint8)
    line = max(1, round(max(size) / 400))
    for defect in reversed(verdict.defects):  # the worst on top
        _outline(canvas, defect, scale, line, palette.get(defect.type, OTHER))
    for defect in verdict.defects:
        _label(canvas, defect, scale, line, palette.get(defect.type, OTHER))
    return canvas


def _ink(ground: Colour) -> Colour:
    """Black or white, whichever can be read on `ground`."""
    red, green, blue = ground
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else (255, 255, 255)


def _outline(canvas: NDArray[np.uint8], defect: Defect, scale: float, line: int, colour: Colour) -> None:
    contours, _ = cv2.findContours(defect.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    corner = np.array(defect.bbox[:2])
    scaled = [np.round((contour + corner + 0.5) * scale - 0.5).astype(np.int32) for contour in contours]
    cv2.polylines(canvas, scaled, True, (0, 0, 0), line + 2, cv2.LINE_AA)
    cv2.polylines(canvas, scaled, True, colour, line, cv2.LINE_AA)


def _label(canvas: NDArray[np.uint8], defect: Defect, scale: float, line: int, colour: Colour) -> None:
    text = f"{defect.type} {defect.score:.2f}"
    font, thick = max(0.4, max(canvas.shape[:2]) / 1200), max(1, line - 1)
    (wide, high), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, font, thick)
    x, y, _, h = (round(v * scale) for v in defect.bbox)
    x = max(0, min(x, canvas.shape[1] - wide - 4))
    y = y - 3 if y - high - base - 3 > 0 else min(y + h + high + 3, canvas.shape[0] - base - 1)
    cv2.rectangle(canvas, (x, y - high - 2), (x + wide + 4, y + base), colour, -1)
    cv2.putText(
        canvas,
        text,
        (x + 2, y),
        cv2.FONT_HERSHEY_SIMPLEX,
        font,
        _ink(colour),
        thick,
        cv2.LINE_AA,
    )
