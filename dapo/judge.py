"""From a prediction to a verdict: thresholds decide, regions say where and what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from dapo.inspection import Defect, Evaluation, Prediction, Verdict
from dapo.pack import Polygon, Product
from dapo.vocabulary import UNKNOWN_SLUG

MAX_MAP_SIDE = (
    1024  # a map cell is 16 px of 256: more pixels than this say nothing new, and cost 16 times the memory
)
_TYPE_MARGIN = 1.2  # a type must stand out: 1.2 times the share that pure chance would give it
# Of the map's peak: the region shown for a frame that is NotOK though no pixel clears the mask threshold.
_FALLBACK_FRACTION = 0.9


def judge(prediction: Prediction, product: Product, width: int, height: int) -> Verdict:
    """Judge one frame.

    score < threshold_ok: OK, no defects. score >= threshold_notok: NotOK. Between: NotDecidable, defects listed. No
    thresholds: Undefined, defects listed. Thresholds of the frame's likeliest type go before those of the product. A frame
    that is NotOK or NotDecidable lists at least the place that decided, even where no pixel reaches `mask_threshold` or the
    region is smaller than `min_area_px`.

    Where the product has `roi` or `ignore` polygons, only what lies in them counts: `looked_at`.

    Args:
        prediction: of the whole frame (tiles merged).
        product: thresholds, regions, types in the order of `prediction.type_scores`.
        width: of the frame in px.
        height: of the frame in px.

    Example:
        verdict = judge(prediction, pack.product("bottle"), 640, 480)
    """
    prediction = looked_at(prediction, product)
    cells, score = prediction.map.astype(np.float32), float(prediction.score)
    ok, notok = _thresholds(prediction, product)
    evaluation, code, reason = _evaluate(score, ok, notok)
    defects: tuple[Defect, ...] = ()
    if evaluation is not Evaluation.OK:
        certain = evaluation in (Evaluation.NOT_OK, Evaluation.NOT_DECIDABLE)
        defects = _regions(prediction, cells, product, width, height, certain)
    return Verdict(evaluation, code, reason, score, ok, notok, defects)


def looked_at(prediction: Prediction, product: Product) -> Prediction:
    """What is left of a prediction where the product has `roi` or `ignore` polygons.

    Cells outside are set to zero, and the score is scaled by what the map's peak lost: an ignored place must not make a part
    NotOK.
    """
    if not (product.roi or product.ignore):
        return prediction
    cells = prediction.map.astype(np.float32)
    kept = np.where(_covers(cells.shape, product.roi, product.ignore), cells, 0)
    peak = float(cells.max())
    score = float(prediction.score) * (float(kept.max()) / peak if peak > 0 else 1.0)
    return replace(prediction, score=score, map=kept.astype(prediction.map.dtype))


def _thresholds(prediction: Prediction, product: Product) -> tuple[float | None, float | None]:
    """Those of the frame's likeliest type, where it has its own."""
    if product.type_thresholds:
        likeliest = product.types[int(prediction.type_scores.argmax())]
        if likeliest in product.type_thresholds:
            return product.type_thresholds[likeliest]
    return product.threshold_ok, product.threshold_notok


def _evaluate(score: float, ok: float | None, notok: float | None) -> tuple[Evaluation, str, str]:
    if ok is None or notok is None:
        return (
            Evaluation.UNDEFINED,
            "uncalibrated",
            "no thresholds are set for this product: run 'dapo calibrate'",
        )
    if score < ok:
        return Evaluation.OK, "", ""
    if score >= notok:
        return Evaluation.NOT_OK, "", ""
    return (
        Evaluation.NOT_DECIDABLE,
        "between-thresholds",
        f"score {score:.3f} lies between {ok:.3f} and {notok:.3f}",
    )


def upsample(cells: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Bilinear with aligned corners: the first and last cell centres lie on the first and last pixels."""
    rows, columns = cells.shape
    xs = np.linspace(0, columns - 1, width, dtype=np.float32)
    ys = np.linspace(0, rows - 1, height, dtype=np.float32)
    to_x, to_y = np.meshgrid(xs, ys)
    out = cv2.remap(cells, to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out, np.float32)


def _covers(shape: tuple[int, ...], roi: Sequence[Polygon], ignore: Sequence[Polygon]) -> NDArray[np.bool_]:
    """Cells that a region of interest touches, however small it is, and that are not mostly ignored."""
    looked = _covered(shape, roi) > 0 if roi else np.ones(shape, bool)
    return np.asarray(looked & (_covered(shape, ignore) < 0.5))


def _covered(shape: tuple[int, ...], polygons: Sequence[Polygon]) -> NDArray[np.float64]:
    """Share of each cell that lies in one of the polygons."""
    scale = 16  # polygons are drawn finer than the cells
    rows, columns = shape
    canvas = np.zeros((rows * scale, columns * scale), np.uint8)
    for polygon in polygons:
        points = np.round(np.array(polygon) * (columns * scale, rows * scale)).astype(np.int32)
        # A corner at 1.0 lies on the last pixel, not behind it.
        cv2.fillPoly(canvas, [np.minimum(points, (columns * scale - 1, rows * scale - 1))], 1)
    return np.asarray(canvas.reshape(rows, scale, columns, scale).mean((1, 3)))


def _regions(
    prediction: Prediction,
    cells: NDArray[np.float32],
    product: Product,
    width: int,
    height: int,
    certain: bool,
) -> tuple[Defect, ...]:
    scale = min(1.0, MAX_MAP_SIDE / max(width, height))
    map_w, map_h = max(1, round(width * scale)), max(1, round(height * scale))
    anomaly = upsample(cells, map_w, map_h)
    mask = anomaly >= product.mask_threshold
    if not mask.any() and certain and cells.max() > 0:
        # A verdict without a place helps nobody: show where the map is highest.
        mask = anomaly >= _FALLBACK_FRACTION * float(anomaly.max())
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count == 1:
        return ()
    areas = stats[1:, cv2.CC_STAT_AREA] * (width * height / (map_w * map_h))
    peaks = np.zeros(count, np.float32)
    np.maximum.at(peaks, np.asarray(labels, np.intp).ravel(), anomaly.ravel())
    order = np.argsort(-(peaks[1:] * areas), kind="stable") + 1
    large = order[areas[order - 1] >= product.min_area_px]
    if not len(large) and certain:
        large = order[:1]  # however small: the place that decided
    found = []
    for label in large[: product.max_regions]:
        x, y, w, h = (int(v) for v in stats[label, :4])
        small = labels[y : y + h, x : x + w] == label
        found.append(
            _defect(prediction, product, small, (x, y), float(peaks[label]), scale, anomaly, width, height)
        )
    return tuple(found)


def _defect(
    prediction: Prediction,
    product: Product,
    small: NDArray[np.bool_],
    corner: tuple[int, int],
    peak: float,
    scale: float,
    anomaly: NDArray[np.float32],
    width: int,
    height: int,
) -> Defect:
    """One region of the map as a defect of the frame: nearest-neighbour from map to frame."""
    (x, y), (h, w) = corner, small.shape
    map_h, map_w = anomaly.shape
    x0, y0 = x * width // map_w, y * height // map_h
    x1, y1 = max(x0 + 1, (x + w) * width // map_w), max(y0 + 1, (y + h) * height // map_h)
    if scale == 1.0:
        mask = small
    else:
        mask = cv2.resize(small.astype(np.uint8), (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST).astype(
            bool
        )
        if not mask.any():
            mask[mask.shape[0] // 2, mask.shape[1] // 2] = True
    rows, columns = np.nonzero(mask)
    area = len(rows)
    mm2 = None if product.mm_per_px is None else area * product.mm_per_px**2
    return Defect(
        type=_type(prediction, product.types, small, corner, anomaly),
        score=min(1.0, peak),
        bbox=(x0, y0, mask.shape[1], mask.shape[0]),
        area_px=area,
        area_mm2=mm2,
        area_fraction=area / (width * height),
        centroid=(x0 + float(columns.mean()), y0 + float(rows.mean())),
        mask=mask,
    )


def _type(
    prediction: Prediction,
    types: Sequence[str],
    small: NDArray[np.bool_],
    corner: tuple[int, int],
    anomaly: NDArray[np.float32],
) -> str:
    """The region's type: its cells vote, weighted by their anomaly, half and half with the image's type scores."""
    if not types:
        return UNKNOWN_SLUG
    (x, y), (h, w) = corner, small.shape
    rows, columns = prediction.type_map.shape
    map_h, map_w = anomaly.shape
    at_row = np.minimum((np.arange(y, y + h) * rows) // map_h, rows - 1)
    at_column = np.minimum((np.arange(x, x + w) * columns) // map_w, columns - 1)
    votes = prediction.type_map[np.ix_(at_row, at_column)][small]
    weights = anomaly[y : y + h, x : x + w][small]
    local = np.bincount(votes, weights, len(types))[: len(types)]
    local = local / local.sum() if local.sum() > 0 else np.full(len(types), 1 / len(types))
    share = np.sqrt((local + 1e-3) * (prediction.type_scores + 1e-3))
    share = share / share.sum()
    best = int(share.argmax())
    if len(types) > 1 and share[best] < _TYPE_MARGIN / len(types):
        return UNKNOWN_SLUG
    return types[best]
