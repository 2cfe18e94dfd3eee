"""Objects on a background: Rng -> (image, silhouette bool, background). Their outlines are normal."""

from __future__ import annotations

import math
import string

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.encoder.generator.canvas import (
    SIZE,
    XS,
    YS,
    Field,
    Rng,
    blend,
    blur,
    colour,
    fractal,
    gain,
    grain,
    hsv,
    local_axes,
    rotate,
    shade,
    shifted,
    smoothstep,
    text,
)  # fmt: skip
from trainer.encoder.generator.textures import brushed, casting, plastic, rubber

Part = tuple[Field, NDArray[np.bool_], Field]


def _background(rng: Rng) -> Field:
    kind = rng.random()
    if kind < 0.45:
        return shade(fractal(rng, 2, 2), colour(rng, (0, 0.3), (0.02, 0.25)), 0.08)
    if kind < 0.75:
        return shade(grain(rng, 1) + fractal(rng, 2, 2), colour(rng, (0, 0.3), (0.55, 0.98)), 0.02)
    makers = (plastic, casting, brushed, rubber)
    return makers[int(rng.integers(len(makers)))](rng)


def _place(rng: Rng, body: Field, mask: Field) -> Part:
    """Lay the part on a background with its shadow."""
    ground = _background(rng)
    shadow = shifted(blur(mask, 5), int(rng.integers(-4, 5)), int(rng.integers(-4, 5)))
    ground = gain(ground, 1 - np.float32(0.35) * shadow)
    return blend(blur(mask, 0.8), ground, body), mask > 0.5, ground


def _polar(rng: Rng) -> tuple[Field, Field, Field, Field]:
    """Radius, angle, x, y about a centre near the middle."""
    x, y = XS - np.float32(SIZE / 2 + rng.uniform(-12, 12)), YS - np.float32(SIZE / 2 + rng.uniform(-12, 12))
    return np.hypot(x, y), np.arctan2(y, x), x, y


def nut(rng: Rng) -> Part:
    _, angle, x, y = _polar(rng)
    theta, radius, flat = rng.uniform(0, 2 * math.pi), rng.uniform(60, 95), rng.uniform(0.75, 1)
    c, s = math.cos(theta), math.sin(theta)
    distance = np.hypot(x * c + y * s, (-x * s + y * c) / flat)
    outline = radius * (1 + 0.04 * np.sin(angle * 2 + 1) + 0.03 * np.sin(angle * 3 + rng.uniform(0, 6)))
    dome = np.sqrt(np.clip(1 - (distance / outline) ** 2, 0, 1))
    stripes = np.sin(angle * rng.integers(10, 30) + fractal(rng, 3, 2))
    body = shade(fractal(rng, 6, 4) * 0.5 + stripes * 0.4, colour(rng, (0.2, 0.8), (0.3, 0.75)), 0.12)
    return _place(rng, gain(body, 0.45 + 0.55 * dome), (distance < outline).astype(np.float32))


def washer(rng: Rng) -> Part:
    distance, angle, _, _ = _polar(rng)
    outer = rng.uniform(65, 98)
    inner = rng.uniform(0.25, 0.6) * outer
    mask = (distance < outer) & (distance > inner)
    holes = int(rng.integers(0, 7))
    for hole in range(holes):
        bearing, middle = 2 * math.pi * hole / holes, (outer + inner) / 2
        x, y = (
            distance * np.cos(angle) - middle * math.cos(bearing),
            distance * np.sin(angle) - middle * math.sin(bearing),
        )
        mask &= np.hypot(x, y) > (outer - inner) * 0.2
    relief = (
        np.sin(distance * rng.uniform(0.3, 2)) * 0.5 + grain(rng, 0.7) + rng.uniform(0, 1) * np.cos(2 * angle)
    )
    body = shade(relief.astype(np.float32), colour(rng, (0, 0.35), (0.3, 0.9)), rng.uniform(0.04, 0.12))
    return _place(rng, body, mask.astype(np.float32))


def _toothed(rng: Rng, teeth: int, depth: float, sharp: float) -> Part:
    distance, angle, _, _ = _polar(rng)
    outer = rng.uniform(65, 92)
    inner = rng.uniform(0.15, 0.45) * outer
    rim = outer + depth * outer * np.tanh(sharp * np.sin(angle * teeth + rng.uniform(0, 6)))
    relief = grain(rng, 0.7) + 0.6 * np.sin(distance * rng.uniform(0.1, 0.6))
    body = shade(relief.astype(np.float32), colour(rng, (0, 0.4), (0.25, 0.85)), 0.08)
    return _place(rng, body, ((distance < rim) & (distance > inner)).astype(np.float32))


def gear(rng: Rng) -> Part:
    return _toothed(rng, int(rng.integers(10, 30)), rng.uniform(0.06, 0.12), 4)


def sprocket(rng: Rng) -> Part:
    """Few deep round teeth, spokes: the trained cousin of the held-out gear."""
    image, mask, ground = _toothed(rng, int(rng.integers(4, 10)), rng.uniform(0.08, 0.2), rng.uniform(0.8, 2))
    return image, mask, ground


def rack(rng: Rng) -> Part:
    """A straight toothed edge: saw blade, comb, toothed rack."""
    angle = float(rng.choice([0, math.pi / 2, math.pi, rng.uniform(0, 2 * math.pi)]))
    u, v = local_axes(SIZE / 2, SIZE / 2 + rng.uniform(-30, 30), angle)
    pitch, depth = rng.uniform(12, 40), rng.uniform(8, 24)
    phase = (u / pitch) % 1
    tooth = np.abs(phase - 0.5) * 2 if rng.random() < 0.5 else smoothstep(np.abs(phase - 0.5), 0.32, 0.22)
    mask = (v > -depth * tooth).astype(np.float32)
    body = brushed(rng) if rng.random() < 0.5 else plastic(rng)
    return _place(rng, body, mask)


def screw(rng: Rng) -> Part:
    length, width, pitch = rng.uniform(150, 195), rng.uniform(9, 15), rng.uniform(6, 11)
    head_width, head = width * rng.uniform(1.6, 2.4), rng.uniform(14, 26)
    x, y = local_axes(
        SIZE / 2 + rng.uniform(-12, 12), SIZE / 2 + rng.uniform(-12, 12), rng.uniform(0, 2 * math.pi)
    )
    x = x + np.float32(length / 2)
    helix = np.sin((x + 0.35 * y) * 2 * math.pi / pitch)
    half = np.where(x > length * 0.35, width + 2.2 * helix, width)
    half = np.where(x > length - 18, half * np.clip((length - x) / 18, 0, 1), half)
    mask = ((np.abs(y) < half) & (x > head) & (x < length)) | (
        (np.abs(y) < head_width) & (x >= 0) & (x <= head)
    )
    round_ = np.cos(np.clip(y / np.maximum(half, 3), -1, 1) * 1.5) * 2 - 1
    relief = np.where(x > length * 0.35, helix, 0) + round_ + 0.3 * grain(rng, 0.6)
    return _place(
        rng,
        shade(relief.astype(np.float32), colour(rng, (0, 0.4), (0.3, 0.75)), 0.18),
        mask.astype(np.float32),
    )


def _tablet_shape(rng: Rng, low: float) -> tuple[Field, Field, Field]:
    _, _, dx, dy = _polar(rng)
    theta, long = rng.uniform(0, 2 * math.pi), rng.uniform(65, 95)
    c, s = math.cos(theta), math.sin(theta)
    x, y = dx * c + dy * s, -dx * s + dy * c
    short, power = long * rng.uniform(low, 1), int(rng.choice([2, 3, 4]))
    return np.abs(x / long) ** power + np.abs(y / short) ** power, x, y


def pill(rng: Rng) -> Part:
    level, x, _ = _tablet_shape(rng, 0.4)
    body = shade(fractal(rng, 8, 3), colour(rng, (0, 0.7), (0.4, 0.95)), 0.03)
    if rng.random() < 0.4:
        other = shade(fractal(rng, 8, 3), colour(rng, (0, 0.8), (0.3, 0.9)), 0.03)
        body = blend((x > 0).astype(np.float32), body, other)
    if rng.random() < 0.6:
        letters = "".join(rng.choice(list("ABDFX1247"), 2))
        body = gain(
            body, 1 - 0.35 * text(rng, letters, 85, 128, rng.uniform(0.8, 1.5), 3, rng.uniform(-40, 40))
        )
    dome = np.sqrt(np.clip(1 - level, 0, 1))
    return _place(rng, gain(body, 0.55 + 0.45 * dome), (level < 1).astype(np.float32))


def button(rng: Rng) -> Part:
    """A moulded cap with an embossed sign and a score line: the trained cousin of the held-out pill."""
    level, _, y = _tablet_shape(rng, 0.75)
    body = plastic(rng) if rng.random() < 0.6 else casting(rng)
    letters = "".join(rng.choice(list(string.ascii_uppercase + string.digits), int(rng.integers(1, 5))))
    relief = text(
        rng,
        letters,
        rng.uniform(55, 95),
        rng.uniform(105, 140),
        rng.uniform(0.8, 2.2),
        int(rng.integers(2, 6)),
        rng.uniform(-60, 60),
    )
    body = gain(body, 1 + rng.uniform(0.15, 0.5) * (shifted(relief, 2, 2) - relief))
    if rng.random() < 0.5:
        body = gain(body, 1 - rng.uniform(0.15, 0.5) * np.exp(-((y / rng.uniform(1.5, 4)) ** 2)))
    if rng.random() < 0.5:
        body = gain(
            body, 1 + rng.uniform(0.1, 0.4) * np.exp(-(((level - rng.uniform(0.5, 0.85)) / 0.06) ** 2))
        )
    return _place(
        rng, gain(body, 0.7 + 0.3 * np.sqrt(np.clip(1 - level, 0, 1))), (level < 1).astype(np.float32)
    )


def bottle(rng: Rng) -> Part:
    distance, angle, _, _ = _polar(rng)
    radius = rng.uniform(75, 105)
    relief = 0.1 * grain(rng)
    for _ in range(rng.integers(2, 6)):
        relief = relief + rng.uniform(-1, 1) * np.exp(
            -(((distance - rng.uniform(0.2, 0.95) * radius) / rng.uniform(2, 10)) ** 2)
        ) * (1 + 0.5 * np.cos(angle - rng.uniform(0, 6)))
    body = shade(relief.astype(np.float32), colour(rng, (0.1, 0.9), (0.1, 0.8)), 0.5)
    return _place(rng, body, (distance < radius).astype(np.float32))


def cable(rng: Rng) -> Part:
    distance, angle, _, _ = _polar(rng)
    radius, cores, start = rng.uniform(85, 105), int(rng.integers(2, 5)), rng.uniform(0, 2 * math.pi)
    body = shade(fractal(rng, 4, 3), colour(rng, (0, 0.6)), 0.04)
    x, y, core = distance * np.cos(angle), distance * np.sin(angle), radius * (0.44 if cores < 4 else 0.36)
    strands = np.sin(XS * 1.1) * np.sin(YS * 1.1 + 0.5 * XS)
    for index in range(cores):
        bearing = start + 2 * math.pi * index / cores
        away = np.hypot(x - radius * 0.5 * math.cos(bearing), y - radius * 0.5 * math.sin(bearing))
        body = blend(smoothstep(away, core, core - 2), body, colour(rng, (0.3, 0.9)))
        body = blend(
            smoothstep(away, core * 0.7, core * 0.7 - 2), body, shade(strands, hsv(0.07, 0.6, 0.75), 0.3)
        )
    return _place(rng, body, (distance < radius).astype(np.float32))


def chip(rng: Rng) -> Part:
    x, y = XS - np.float32(SIZE / 2 + rng.uniform(-12, 12)), YS - np.float32(SIZE / 2 + rng.uniform(-12, 12))
    wide, high, pitch = rng.uniform(40, 75), rng.uniform(35, 65), rng.uniform(10, 20)
    case = (np.abs(x) < wide) & (np.abs(y) < high)
    legs = (
        (np.abs(x) < wide - 4)
        & (np.abs(y) < high + rng.uniform(14, 30))
        & (((x + 100 * pitch) % pitch) < pitch * 0.45)
        & ~case
    )
    body = blend(
        legs.astype(np.float32),
        shade(grain(rng, 0.6), colour(rng, (0, 0.2), (0.08, 0.3)), 0.08),
        shade(grain(rng), colour(rng, (0, 0.3), (0.6, 0.95)), 0.05),
    )
    if rng.random() < 0.6:
        body = blend(
            text(rng, "".join(rng.choice(list("0123456789ABX"), 5)), 75, 115, 0.7, 1) * 0.6,
            body,
            colour(rng, (0, 0.1), (0.5, 0.9)),
        )
    angle = float(rng.choice([0, 90, rng.uniform(0, 180)]))
    mask = rotate((case | legs).astype(np.float32), angle)
    return _place(rng, rotate(np.ascontiguousarray(body), angle), (mask > 0.5).astype(np.float32))


def bracket(rng: Rng) -> Part:
    """A stamped or cast bracket: straight edges, round corners, drilled holes."""
    mask: Field = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(rng.integers(1, 4)):
        x0, y0 = (int(v) for v in rng.integers(15, 110, 2))
        x1, y1 = x0 + int(rng.integers(50, 140)), y0 + int(rng.integers(50, 140))
        cv2.rectangle(mask, (x0, y0), (min(x1, 212), min(y1, 212)), 1, -1)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15)))
    for x, y in rng.integers(30, SIZE - 30, (int(rng.integers(0, 5)), 2)):
        cv2.circle(mask, (int(x), int(y)), int(rng.integers(4, 14)), 0, -1)
    if mask.sum() < 3000:
        cv2.circle(mask, (SIZE // 2, SIZE // 2), 60, 1, -1)
    makers = (brushed, casting, plastic)
    body = makers[int(rng.integers(3))](rng)
    rim = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    return _place(
        rng, gain(body, 1 + rng.uniform(-0.3, 0.4) * np.exp(-((rim / 4) ** 2))), mask.astype(np.float32)
    )
