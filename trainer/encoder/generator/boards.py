"""Circuit tracks with the defects that only tracks have: the copper itself is changed before it is rendered.

One polarity only (copper dark on light, or a coloured pair): with both, a mouse bite and a spur, an open and a short are
mirror images of each other.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.encoder.generator.canvas import (
    SIZE,
    Field,
    Rng,
    blend,
    blob,
    blur,
    colour,
    grain,
    grey,
    polygon,
    shade,
    shard,
)

Mask = NDArray[np.bool_]
TRACK_DEFECTS = ("mouse-bite", "open-circuit", "short-circuit", "spur", "spurious-copper", "hole")
_MARGIN = 12  # defects keep off the canvas border, where augmentation may cut them


@dataclass
class Tracks:
    """Copper as drawn, and where its segments run."""

    copper: Mask
    segments: list[tuple[NDArray[np.float64], NDArray[np.float64]]]
    width: int


def draw_tracks(rng: Rng) -> Tracks:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    pitch = int(rng.integers(18, 42))
    width = int(rng.integers(6, max(8, int(pitch * 0.55))))
    upright, first = rng.random() < 0.5, int(rng.integers(0, pitch))
    segments: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for lane in range(-1, SIZE // pitch + 2):
        at = first + lane * pitch
        if rng.random() < 0.2:
            continue
        start, end = (
            (-5, SIZE + 5) if rng.random() < 0.6 else sorted(int(v) for v in rng.integers(0, SIZE, 2))
        )
        if end - start < 30:
            continue
        points = [(start, at)]
        if rng.random() < 0.5:  # a jog to the neighbouring lane
            x, step = (
                int(rng.integers(start + 5, end - 5)),
                int(rng.choice([-pitch, pitch])) // (1 if rng.random() < 0.6 else 2),
            )
            points += [(x, at), (x + abs(step), at + step), (end, at + step)]
        else:
            points.append((end, at))
        if not upright:
            points = [(y, x) for x, y in points]
        cv2.polylines(mask, [np.asarray(points, np.int32)], False, 255, width, cv2.LINE_8)
        floats = [np.array(p, float) for p in points]
        segments += list(itertools.pairwise(floats))
        for pad in (points[0], points[-1]):
            if rng.random() < 0.6:
                cv2.circle(mask, pad, int(width * rng.uniform(0.8, 1.5)), 255, -1)
            if rng.random() < 0.4:
                cv2.circle(mask, pad, max(2, int(width * 0.35)), 0, -1)
    for x, y in rng.integers(0, SIZE, (int(rng.integers(0, 5)), 2)):
        cv2.circle(mask, (int(x), int(y)), int(rng.integers(6, 20)), 255, -1)
    if rng.random() < 0.3:
        x, y, wide, high = (int(v) for v in (*rng.integers(0, SIZE, 2), *rng.integers(30, 90, 2)))
        cv2.rectangle(mask, (x, y), (x + wide, y + high), 255, -1)
    long = [s for s in segments if np.hypot(*(s[1] - s[0])) > 12]
    return Tracks(mask > 0, long, width)


def render_tracks(rng: Rng, copper: Mask) -> Field:
    kind = rng.random()
    if kind < 0.55:
        metal, ground = grey(0.0), grey(1.0)
    elif kind < 0.8:
        level = rng.uniform(0.05, 0.4)
        metal, ground = grey(level), grey(level + rng.uniform(0.25, 0.55))
    else:
        metal, ground = colour(rng, (0.3, 1), (0.1, 0.4)), colour(rng, (0.2, 0.9), (0.5, 0.95))
    rough = 0.0 if kind < 0.5 else rng.uniform(0, 0.05)
    soft = rng.uniform(0, 1.0)
    alpha = blur(copper.astype(np.float32), soft) if soft > 0.2 else copper.astype(np.float32)
    return blend(alpha, shade(grain(rng, 0.7), ground, rough), shade(grain(rng, 0.7), metal, rough))


def damage_tracks(rng: Rng, tracks: Tracks, copper: Mask, defect: str) -> Mask | None:
    """Change `copper` in place; returns the changed pixels, None where the defect finds no place."""
    solid = tracks.copper.astype(np.uint8)
    changed: Mask | None = None
    if defect in ("mouse-bite", "spur", "short-circuit"):
        changed = _edge_defect(rng, tracks, copper, defect, solid)
    elif defect == "open-circuit":
        changed = _cut_segment(rng, tracks, copper)
    elif defect == "hole":
        depth = cv2.distanceTransform(solid, cv2.DIST_L2, 3)
        ys, xs = np.nonzero(depth > max(2.5, tracks.width * 0.3))
        if len(ys):
            at = rng.integers(len(ys))
            radius = rng.uniform(1.8, max(2.2, float(depth[ys[at], xs[at]]) * 0.7))
            changed = (blob(rng, xs[at], ys[at], radius, 0.2) < 1) & copper
            copper &= ~changed
    elif defect == "spurious-copper":
        radius = rng.uniform(4, 12)
        ys, xs = np.nonzero(cv2.distanceTransform(1 - solid, cv2.DIST_L2, 3) > radius * 0.9 + 2)
        if len(ys):
            at = rng.integers(len(ys))
            shape = (
                blob(rng, xs[at], ys[at], radius, 0.4) < 1
                if rng.random() < 0.7
                else shard(rng, xs[at], ys[at], radius) > 0.5
            )
            changed = shape & ~copper
            copper |= changed
    return changed if changed is not None and changed.sum() > 8 else None


def _edge_defect(
    rng: Rng, tracks: Tracks, copper: Mask, defect: str, solid: NDArray[np.uint8]
) -> Mask | None:
    inner = cv2.erode(solid, np.ones((3, 3), np.uint8))
    inner[:_MARGIN], inner[-_MARGIN:], inner[:, :_MARGIN], inner[:, -_MARGIN:] = 1, 1, 1, 1
    ys, xs = np.nonzero((solid > 0) & (inner == 0))
    if not len(ys):
        return None
    at = rng.integers(len(ys))
    x, y = int(xs[at]), int(ys[at])
    if defect == "mouse-bite":
        bite: Mask = (blob(rng, x, y, min(tracks.width * 0.75, rng.uniform(4, 10)), 0.3) < 1) & copper
        copper &= ~bite
        return bite
    outward = _outward(solid, x, y)
    if defect == "spur":
        base = np.array([x, y], float)
        length, half = rng.uniform(6, 15), rng.uniform(2, 5)
        side, tip = np.array([-outward[1], outward[0]]) * half, base + outward * length
        taper = rng.uniform(0.1, 0.8)
        root = base - outward * 2
        spur: Mask = (
            polygon(np.stack([root - side, root + side, tip + side * taper, tip - side * taper])) > 0.5
        ) & ~copper
        copper |= spur
        return spur
    for reach in range(5, 60):  # a short: walk outward until the next track
        tx, ty = int(x + outward[0] * reach), int(y + outward[1] * reach)
        if not (0 <= tx < SIZE and 0 <= ty < SIZE):
            return None
        if tracks.copper[ty, tx]:
            line = np.zeros((SIZE, SIZE), np.uint8)
            cv2.line(line, (x, y), (tx, ty), 1, int(rng.integers(4, 12)))
            bridge: Mask = (line > 0) & ~copper
            copper |= bridge
            return bridge
    return None


def _outward(solid: NDArray[np.uint8], x: int, y: int) -> NDArray[np.float64]:
    """Unit vector from the copper into the gap at an edge pixel."""
    window = solid[y - 4 : y + 5, x - 4 : x + 5].astype(float)
    gy, gx = np.mgrid[-4:5, -4:5]
    vector = np.array([(gx * (1 - 2 * window)).sum(), (gy * (1 - 2 * window)).sum()])
    return np.asarray(vector / (np.linalg.norm(vector) + 1e-6))


def _cut_segment(rng: Rng, tracks: Tracks, copper: Mask) -> Mask | None:
    for _ in range(8 if tracks.segments else 0):
        start, end = tracks.segments[int(rng.integers(len(tracks.segments)))]
        along = rng.uniform(0.1, 0.9)
        point = start * (1 - along) + end * along
        if not (point.min() > _MARGIN and point.max() < SIZE - _MARGIN):
            continue
        direction = (end - start) / np.linalg.norm(end - start)
        side = np.array([-direction[1], direction[0]]) * (tracks.width / 2 + 2)
        gap = rng.uniform(2.5, 8)
        skew = rng.uniform(-0.5, 0.5) * gap
        corners = [
            point - direction * gap - side,
            point + direction * (gap + skew) - side,
            point + direction * (gap - skew) + side,
            point - direction * gap + side,
        ]
        cut: Mask = polygon(np.stack(corners)) > 0.5
        copper &= ~cut
        return cut
    return None
