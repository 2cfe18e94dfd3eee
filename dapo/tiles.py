"""Cut large frames into overlapping windows, and merge what was said of them.

A 12 MP frame squashed to 256 px loses its scratches; tiles keep them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dapo.inspection import Prediction
from dapo.pack import Polygon, Tiles


@dataclass(frozen=True)
class Window:
    """A rectangle of a frame in px: left, top, width, height."""

    x: int
    y: int
    width: int
    height: int

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The window's pixels, a view of uint8 [H, W, 3]."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


def windows(width: int, height: int, tiles: Tiles | None = None, roi: Sequence[Polygon] = ()) -> list[Window]:
    """Windows of a frame, row by row: the bounding box of the regions of interest, cut into tiles.

    Tiles are never smaller than one pixel: a frame of 3 x 3 px cut into 8 x 8 gives 3 x 3.
    """
    left, top, right, bottom = 0, 0, width, height
    if roi:
        xs = [x for polygon in roi for x, _ in polygon]
        ys = [y for polygon in roi for _, y in polygon]
        left, top = min(int(min(xs) * width), width - 1), min(int(min(ys) * height), height - 1)
        right = max(left + 1, int(np.ceil(max(xs) * width)))
        bottom = max(top + 1, int(np.ceil(max(ys) * height)))
    if tiles is None:
        return [Window(left, top, right - left, bottom - top)]
    rows = _spans(top, bottom, tiles.rows, tiles.overlap)
    columns = _spans(left, right, tiles.columns, tiles.overlap)
    return [Window(x, y, w, h) for y, h in rows for x, w in columns]


def _spans(start: int, end: int, count: int, overlap: float) -> list[tuple[int, int]]:
    length = end - start
    count = max(1, min(count, length))
    side = length / (count - (count - 1) * overlap)
    spans = []
    for index in range(count):
        at = start + round(index * side * (1 - overlap))
        stop = end if index == count - 1 else min(end, start + round(index * side * (1 - overlap) + side))
        spans.append((at, max(1, stop - at)))
    return spans


def merge(predictions: Sequence[Prediction], parts: Sequence[Window], width: int, height: int) -> Prediction:
    """One prediction of the frame from those of its windows.

    Score: the highest (a part is as bad as its worst place). Map: each window's cells laid on a common grid whose cells
    are as fine as the finest window's, the higher value where windows overlap; type map: from the same window. Type
    scores: mean over windows weighted by score, so that the windows that saw something decide.

    Args:
        predictions: one per window.
        parts: from `windows`, in the same order.
        width: of the frame in px.
        height: of the frame in px.
    """
    if len(predictions) == 1 and parts[0] == Window(0, 0, width, height):
        return predictions[0]
    cell_w = min(part.width / p.map.shape[1] for p, part in zip(predictions, parts, strict=True))
    cell_h = min(part.height / p.map.shape[0] for p, part in zip(predictions, parts, strict=True))
    grid_w = max(1, min(round(width / cell_w), width, 32767))  # OpenCV resizes to at most 32,767 a side
    grid_h = max(1, min(round(height / cell_h), height, 32767))
    anomaly, types = np.zeros((grid_h, grid_w), np.float32), np.zeros((grid_h, grid_w), np.uint16)
    for prediction, part in zip(predictions, parts, strict=True):
        x0, y0 = int(part.x * grid_w / width), int(part.y * grid_h / height)
        x1 = min(grid_w, max(x0 + 1, round((part.x + part.width) * grid_w / width)))
        y1 = min(grid_h, max(y0 + 1, round((part.y + part.height) * grid_h / height)))
        size = (x1 - x0, y1 - y0)
        cells = cv2.resize(prediction.map.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        kinds = cv2.resize(prediction.type_map, size, interpolation=cv2.INTER_NEAREST)
        there = anomaly[y0:y1, x0:x1]
        higher = cells > there
        types[y0:y1, x0:x1][higher] = kinds[higher]
        there[higher] = cells[higher]
    scores = np.array([p.score for p in predictions], np.float64)
    weights = scores / scores.sum() if scores.sum() > 0 else np.full(len(scores), 1 / len(scores))
    mixed = weights @ np.stack([p.type_scores.astype(np.float64) for p in predictions])
    return Prediction(
        score=float(scores.max()),
        map=anomaly.astype(np.float16),
        type_map=types,
        type_scores=np.asarray(mixed, np.float32),
    )
