"""Noise, coordinates and drawing on the generator's canvas: float32 [224, 224] fields, images [224, 224, 3] in 0..1."""

from __future__ import annotations

import colorsys
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = 224
_ROTATED = 320  # a square that still covers the canvas after any rotation
Field = NDArray[Any]  # float32 by convention; OpenCV and numpy give wider types back
Rng = np.random.Generator
Number = float | np.floating[Any] | np.integer[Any]

YS, XS = (grid.astype(np.float32) for grid in np.mgrid[0:SIZE, 0:SIZE])
_SHIFT = 3  # OpenCV draws at an eighth of a pixel


def span(rng: Rng, low: float, high: float) -> float:
    """Log-uniform: sizes of defects differ by factors, not by differences."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def noise(rng: Rng, rows: Number, columns: Number) -> Field:
    """Smooth noise with about rows x columns bumps, in -0.5..0.5."""
    coarse = rng.random((max(2, int(rows)), max(2, int(columns))), dtype=np.float32) - np.float32(0.5)
    out: Field = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return out


def fractal(rng: Rng, base: Number = 4, octaves: int = 4, persistence: float = 0.5) -> Field:
    """Fractal noise, mean 0, spread 1."""
    total, weight = np.zeros((SIZE, SIZE), np.float32), 1.0
    for octave in range(octaves):
        total += np.float32(weight) * noise(rng, base * 2**octave, base * 2**octave)
        weight *= persistence
    total -= total.mean()
    out: Field = total / (total.std() + np.float32(1e-6))
    return out


def grain(rng: Rng, sigma: float = 0.0) -> Field:
    """White noise, blurred by `sigma`, spread 1."""
    out: Field = rng.standard_normal((SIZE, SIZE), dtype=np.float32)
    if sigma > 0:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), sigma), np.float32)
        out /= out.std() + np.float32(1e-6)
    return out


def streaks(rng: Rng, length: int, width: int, angle: float) -> Field:
    """Noise drawn out along `angle` (degrees): brushing, rolling, grinding. Spread 1."""
    field = cv2.blur(
        rng.standard_normal((_ROTATED, _ROTATED), dtype=np.float32), (max(1, length), max(1, width))
    )
    turned = rotate(field, angle)
    out: Field = turned / (turned.std() + np.float32(1e-6))
    return out


def rotate(field: Field, angle: float) -> Field:
    """Rotate about the centre by `angle` degrees and cut the canvas out of it."""
    side = field.shape[0]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.0)
    matrix[:, 2] += SIZE / 2 - side / 2
    out: Field = cv2.warpAffine(
        field, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return out


def any_angle(rng: Rng) -> float:
    """Radians; parts mostly lie straight before a camera."""
    return float(rng.choice([0.0, math.pi / 2, rng.uniform(0, math.pi), rng.normal(0, 0.05)]))


def rotated_axes(rng: Rng, angle: float | None = None, wobble: float = 0.0) -> tuple[Field, Field]:
    """Two perpendicular coordinates in px with a random origin; `wobble` bends them."""
    theta = rng.uniform(0, math.pi) if angle is None else angle
    c, s = np.float32(math.cos(theta)), np.float32(math.sin(theta))
    u, v = XS * c + YS * s, -XS * s + YS * c
    if wobble > 0:
        u = u + np.float32(wobble) * fractal(rng, 3, 2)
        v = v + np.float32(wobble) * fractal(rng, 3, 2)
    return u + np.float32(rng.uniform(0, 100)), v + np.float32(rng.uniform(0, 100))


def local_axes(x: float, y: float, angle: float) -> tuple[Field, Field]:
    """Coordinates along and across `angle` (radians) with the origin at (x, y)."""
    c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    dx, dy = XS - np.float32(x), YS - np.float32(y)
    return dx * c + dy * s, -dx * s + dy * c


def colour(
    rng: Rng, saturation: tuple[float, float] = (0, 0.6), value: tuple[float, float] = (0.25, 0.9)
) -> Field:
    return np.array(
        colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value)), np.float32
    )


def hsv(hue: float, saturation: float, value: float) -> Field:
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)


def grey(value: float) -> Field:
    return np.full(3, value, np.float32)


def shade(relief: Field, base: Field, contrast: float) -> Field:
    """A surface of colour `base` whose brightness follows `relief`."""
    out: Field = base[None, None] * (1 + np.float32(contrast) * relief)[..., None]
    return out


def blend(alpha: Field, under: Field, over: Field) -> Field:
    """`over` laid on `under` where `alpha` is 1. Colours [3] and images [S, S, 3] mix freely."""
    alpha = alpha[..., None] if alpha.ndim == 2 else alpha
    out: Field = (under * (1 - alpha) + over * alpha).astype(np.float32)
    return out


def gain(image: Field, factor: Field) -> Field:
    """Brightness times a field."""
    out: Field = image * factor[..., None]
    return out


def smoothstep(field: Field, start: float | Field, end: float | Field) -> Field:
    """0 before `start`, 1 after `end`, smooth between; falls where `end` < `start`."""
    t = np.clip((field - start) / (end - start), 0, 1).astype(np.float32)
    out: Field = t * t * (3 - 2 * t)
    return out


def blob(
    rng: Rng, x: float, y: float, radius: float, rough: float = 0.25, flat: float | None = None
) -> Field:
    """Distance from a rough ellipse: < 1 inside."""
    u, v = local_axes(x, y, rng.uniform(0, 2 * math.pi))
    flat = float(rng.uniform(0.5, 1)) if flat is None else flat
    return np.hypot(u, v / np.float32(flat)) / np.float32(radius) + np.float32(rough * 0.5) * fractal(
        rng, max(3.0, SIZE / radius * 0.8), 3
    )


def strokes(points: NDArray[np.float64], width: float) -> Field:
    """An antialiased polyline, 0..1."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    fixed = np.round(np.asarray(points) * 2**_SHIFT).astype(np.int32)
    cv2.polylines(mask, [fixed], False, 255, max(1, round(width)), cv2.LINE_AA, _SHIFT)
    return mask.astype(np.float32) / np.float32(255)


def polygon(points: NDArray[np.float64]) -> Field:
    """A filled antialiased polygon, 0..1."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mask, [np.round(np.asarray(points) * 2**_SHIFT).astype(np.int32)], 255, cv2.LINE_AA, _SHIFT)
    return mask.astype(np.float32) / np.float32(255)


def shard(rng: Rng, x: float, y: float, radius: float) -> Field:
    """A filled irregular polygon around (x, y)."""
    corners = int(rng.integers(4, 8))
    angles = np.sort(rng.uniform(0, 2 * math.pi, corners))
    reach = radius * rng.uniform(0.6, 1.1, corners)
    return polygon(np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], 1))


def bezier(
    start: NDArray[np.float64], middle: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    t = np.linspace(0, 1, 24)[:, None]
    return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end)


def text(
    rng: Rng, letters: str, x: float, y: float, scale: float, thickness: int, angle: float = 0.0
) -> Field:
    """Letters as an alpha mask, 0..1, rotated about the centre by `angle` degrees."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.putText(
        mask, letters, (int(x), int(y)), int(rng.choice([0, 2, 3])), scale, 255, thickness, cv2.LINE_AA
    )
    field = mask.astype(np.float32) / np.float32(255)
    return rotate(field, angle) if angle else field


def blur(field: Field, sigma: float) -> Field:
    out: Field = cv2.GaussianBlur(field, (0, 0), sigma)
    return out


def mean_colour(image: Field, mask: Field) -> Field:
    """Mean colour of `image` under `mask`."""
    out: Field = (image * mask[..., None]).sum((0, 1)) / (mask.sum() + np.float32(1e-6))
    return out


def shifted(field: Field, down: int, right: int) -> Field:
    return np.roll(field, (down, right), (0, 1))
