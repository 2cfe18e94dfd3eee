"""Defects of surfaces: (rng, image, inside, ground) -> (image, mask).

`inside` is the part's silhouette (all true on flat surfaces), `ground` the background behind it or None. The mask is
float32 0..1; the caller decides where it counts. Sizes in px of the 224 canvas are log-uniform and reach down to what a
camera barely resolves.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.encoder.generator.canvas import (
    SIZE,
    XS,
    YS,
    Field,
    Rng,
    bezier,
    blend,
    blob,
    blur,
    colour,
    fractal,
    gain,
    grain,
    hsv,
    local_axes,
    mean_colour,
    noise,
    shard,
    shifted,
    smoothstep,
    span,
    strokes,
)  # fmt: skip

Inside = NDArray[np.bool_]
Damage = tuple[Field, Field]
Defect = Callable[[Rng, Field, Inside, Field | None], Damage]
WHITE = np.ones(3, np.float32)


def place(rng: Rng, inside: Inside, inset: int = 0) -> tuple[float, float]:
    """A point of the part, `inset` px off its border where that is possible."""
    area = (
        cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=inset) if inset else inside
    )
    for _ in range(100):
        x, y = (int(v) for v in rng.integers(10, SIZE - 10, 2))
        if area[y, x]:
            return float(x), float(y)
    ys, xs = np.nonzero(inside)
    at = rng.integers(len(ys))
    return float(xs[at]), float(ys[at])


def contrasting(
    rng: Rng, image: Field, mask: Field, saturation: tuple[float, float], value: tuple[float, float]
) -> Field:
    """The one of four colours that differs most from what lies under `mask`."""
    under = mean_colour(image, mask)
    return max(
        (colour(rng, saturation, value) for _ in range(4)), key=lambda c: float(np.abs(c - under).sum())
    )


def scratch(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    x, y = place(rng, inside)
    angle, count = rng.uniform(0, 2 * math.pi), 1 if rng.random() < 0.6 else int(rng.integers(2, 5))
    width, bright = int(rng.choice([1, 1, 2, 2, 3])), rng.random() < 0.65
    side = np.array([1.0, 1.0]) * rng.choice([-1, 1]) * max(1.0, width * 0.7)
    line, lip = np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.float32)
    for _ in range(count):
        length, heading = span(rng, 24, 200), angle + rng.normal(0, 0.12)
        middle = np.array([x, y]) + rng.normal(0, 6, 2) * (count > 1)
        half = np.array([math.cos(heading), math.sin(heading)]) * length / 2
        path = bezier(middle - half, middle + rng.normal(0, length * 0.06, 2), middle + half)
        line, lip = np.maximum(line, strokes(path, width)), np.maximum(lip, strokes(path + side, width))
    line = line * inside
    lip = lip * inside * (1 - line)
    fade = np.clip(0.85 + 0.3 * noise(rng, 5, 5), 0.3, 1) * rng.uniform(0.3, 0.9)
    target = WHITE * rng.uniform(0.8, 1.0) if bright else image * rng.uniform(0.1, 0.4)
    out = blend(line * fade.astype(np.float32), image, target)
    return gain(out, 1 + lip * np.float32(rng.uniform(0.1, 0.35) * (-1 if bright else 1))), line


def crack(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    x, y = place(rng, inside)
    line = np.zeros((SIZE, SIZE), np.float32)

    def walk(point: NDArray[np.float64], angle: float, length: float, width: float, depth: int) -> None:
        path, heading = [point], angle
        for _ in range(max(3, int(length / 6))):
            heading = angle + (heading - angle) * 0.5 + rng.normal(0, 0.55)
            point = point + 6 * np.array([math.cos(heading), math.sin(heading)])
            path.append(point)
            if depth < 2 and rng.random() < 0.10:
                walk(
                    point,
                    heading + rng.choice([-1, 1]) * rng.uniform(0.4, 1.1),
                    length * rng.uniform(0.2, 0.5),
                    max(1.0, width - 1),
                    depth + 1,
                )
        np.maximum(line, strokes(np.array(path), width), out=line)
        np.maximum(
            line, strokes(np.array(path[: len(path) // 2 + 1]), width + (rng.random() < 0.4)), out=line
        )

    start, angle, length = np.array([x, y]), rng.uniform(0, 2 * math.pi), span(rng, 30, 180)
    width = float(rng.choice([1, 1, 2, 2, 3]))
    walk(start, angle, length * 0.6, width, 0)
    if rng.random() < 0.8:
        walk(start, angle + math.pi + rng.normal(0, 0.3), length * 0.4, width, 0)
    line *= inside
    lip = shifted(line, 1, 1) * (1 - line) * inside
    out = blend(line * np.float32(rng.uniform(0.45, 0.97)), image, image * rng.uniform(0.05, 0.4))
    return gain(out, 1 + 0.15 * lip), line


def hole(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    count = 1 if rng.random() < 0.8 else int(rng.integers(2, 5))
    mask, rim = np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.float32)
    for _ in range(count):
        x, y = place(rng, inside, 3)
        radius = span(rng, 4, 26)
        distance = blob(rng, x, y, radius, rng.uniform(0.02, 0.3), rng.uniform(0.7, 1))
        mask = np.maximum(mask, smoothstep(distance, 1 + 1.2 / radius, 1 - 1.2 / radius))
        rim = np.maximum(rim, np.exp(-(((distance - 1.12) / (2.0 / radius + 0.03)) ** 2)))
    mask = mask * inside
    deep = WHITE * rng.uniform(0.0, 0.12) if ground is None or rng.random() < 0.8 else ground * 0.7
    out = blend(mask, gain(image, 1 + np.float32(rng.uniform(-0.15, 0.35)) * rim * inside), deep)
    wall = np.where(mask > 0.5, 1 - shifted(mask, 2, 2), 0).astype(np.float32)
    return out + 0.12 * wall[..., None], mask


def dent(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    x, y = place(rng, inside, 4)
    radius = span(rng, 10, 40)
    distance = blob(rng, x, y, radius, rng.uniform(0, 0.12), rng.uniform(0.6, 1))
    height = -np.exp(-((np.clip(distance, 0, 4) / 0.75) ** 2) * 1.2)
    gy, gx = np.gradient(height)
    light = rng.uniform(0, 2 * math.pi)
    slope = (gx * math.cos(light) + gy * math.sin(light)) * radius * inside
    bent_ = warp_by(image, gx * radius * radius * 0.18, gy * radius * radius * 0.18)
    out = blend(inside.astype(np.float32), image, bent_)
    out = gain(out, np.clip(1 + rng.uniform(0.3, 0.95) * slope, 0.1, 2.2).astype(np.float32))
    glint = np.clip(slope, 0, 1) ** 3 * rng.uniform(0, 0.5)
    return out + glint[..., None].astype(np.float32), ((distance < 1.15) & inside).astype(np.float32)


def warp_by(image: Field, dx: Field, dy: Field) -> Field:
    out: Field = cv2.remap(
        np.ascontiguousarray(image, np.float32),
        (XS + dx).astype(np.float32),
        (YS + dy).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return out


def _puddle(
    rng: Rng, inside: Inside, low: float, high: float, scatter: float, soft: tuple[float, float]
) -> tuple[Field, Field]:
    """One to a few overlapping blobs: mask and the line of its border."""
    x, y = place(rng, inside)
    mask, edge = np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.float32)
    for index in range(1 if rng.random() < 0.6 else int(rng.integers(2, 6))):
        radius = span(rng, low, high) / (1 if index == 0 else 2)
        away = rng.normal(0, scatter, 2) * (index > 0)
        distance = blob(rng, x + away[0], y + away[1], radius, rng.uniform(0.1, 0.5))
        width = rng.uniform(*soft)
        mask = np.maximum(mask, smoothstep(distance, 1 + width, 1 - width))
        edge = np.maximum(edge, np.exp(-(((distance - 1) / 0.12) ** 2)))
    return mask * inside, edge * inside


def stain(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    mask, edge = _puddle(rng, inside, 8, 55, 25, (0.12, 0.4))
    strength = mask * np.float32(rng.uniform(0.3, 0.7))
    tint = colour(rng, (0.0, 0.6), (0.05, 0.45)) if rng.random() < 0.75 else colour(rng, (0, 0.35), (0.8, 1))
    out = image * blend(strength, WHITE, tint) if rng.random() < 0.6 else blend(strength, image, tint)
    if rng.random() < 0.5:
        out = gain(out, 1 - 0.15 * edge)
    return out, (mask > 0.4).astype(np.float32)


def liquid(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """A film or drops: darkens, sharp bright rim on one side, bends what lies under it."""
    mask, edge = _puddle(rng, inside, 7, 48, 28, (0.04, 0.12))
    gy, gx = np.gradient(blur(mask, 3))
    lens = warp_by(image, gx * rng.uniform(10, 40), gy * rng.uniform(10, 40))
    tint = np.clip(WHITE - rng.uniform(0.1, 0.5) * (1 - colour(rng, (0, 0.8), (0.3, 0.9))), 0, 1)
    light = rng.uniform(0, 2 * math.pi)
    glint = np.clip(gx * math.cos(light) + gy * math.sin(light), 0, 1) * rng.uniform(2, 6)
    out = blend(mask, image, lens * tint * np.float32(rng.uniform(0.5, 0.85)))
    return gain(out, 1 - 0.2 * edge) + (np.clip(glint, 0, 0.6) * mask)[..., None].astype(np.float32), mask


def glue(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """Translucent, whitish or amber, glossy: a bead or a strip."""
    x, y = place(rng, inside)
    u, v = local_axes(x, y, rng.uniform(0, math.pi))
    length, width = span(rng, 10, 80), span(rng, 4, 16)
    distance = np.hypot(np.maximum(np.abs(u) - length, 0), v) / width + 0.3 * fractal(rng, 8, 3)
    mask = smoothstep(distance, 1.05, 0.9) * inside
    gy, gx = np.gradient(blur(mask, 2.5))
    light = rng.uniform(0, 2 * math.pi)
    relief = (gx * math.cos(light) + gy * math.sin(light)) * rng.uniform(2, 5)
    body = hsv(rng.uniform(0.08, 0.16), rng.uniform(0, 0.6), rng.uniform(0.6, 1))
    out = blend(mask * np.float32(rng.uniform(0.3, 0.75)), image, body)
    return gain(out, np.clip(1 + relief, 0.5, 1.8).astype(np.float32)) + (
        np.clip(relief - 0.25, 0, 0.5) * mask
    )[..., None].astype(np.float32), mask


def rust(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    mask, _ = _puddle(rng, inside, 9, 60, 35, (0.2, 0.5))
    texture = np.clip(0.6 + 0.4 * fractal(rng, 40, 3, 0.8), 0, 1.3)
    core = mask * np.clip(texture * rng.uniform(0.7, 1.1), 0, 1)
    brown = hsv(rng.uniform(0.02, 0.09), rng.uniform(0.5, 0.9), rng.uniform(0.2, 0.6))
    out = blend(core.astype(np.float32), image, brown[None, None] * (0.6 + 0.4 * texture)[..., None])
    return out, (mask > 0.35).astype(np.float32)


def spot(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    mask, kind = np.zeros((SIZE, SIZE), np.float32), int(rng.integers(0, 3))
    x, y = place(rng, inside)
    for index in range(int(rng.choice([1, 1, 2, 4]))):
        at = np.array([x, y]) + (index > 0) * rng.normal(0, 22, 2)
        radius = span(rng, 5, 26)
        if kind == 0:
            one = smoothstep(blob(rng, at[0], at[1], radius, 0.05), 1.06, 0.94)
        elif kind == 1:
            one = shard(rng, at[0], at[1], radius)
        else:
            end = at + rng.normal(0, radius, 2)
            one = strokes(
                bezier(at - (end - at), at + rng.normal(0, radius, 2), end), float(rng.integers(5, 10))
            )
        mask = np.maximum(mask, one)
    mask = mask * inside
    paint = contrasting(rng, image, mask, (0.7, 1), (0.5, 1))
    light = image.mean(-1, keepdims=True) / (mean_colour(image, mask).mean() + 1e-3)
    return blend(
        mask * np.float32(rng.uniform(0.6, 0.97)), image, paint * (0.7 + 0.3 * np.clip(light, 0.3, 1.6))
    ), mask


def scuff(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    x, y = place(rng, inside)
    radius, heading = span(rng, 16, 55), rng.uniform(0, 2 * math.pi)
    area = smoothstep(blob(rng, x, y, radius, 0.35), 1.15, 0.7) * inside
    hairs = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(int(radius * rng.uniform(1.0, 2.2))):
        middle, turn = np.array([x, y]) + rng.normal(0, radius * 0.5, 2), heading + rng.normal(0, 0.35)
        half = np.array([math.cos(turn), math.sin(turn)]) * rng.uniform(4, max(5.0, radius * 0.7)) / 2
        ends = (middle - half).astype(int).tolist(), (middle + half).astype(int).tolist()
        cv2.line(hairs, ends[0], ends[1], int(rng.integers(70, 255)), 1, cv2.LINE_AA)
    texture = hairs.astype(np.float32) / 255 + 0.35 * np.abs(grain(rng))
    target = WHITE * 0.9 if rng.random() < 0.67 else image * 0.15
    out = gain(image, 1 - 0.1 * area)
    return blend(np.clip(area * texture, 0, 1) * np.float32(rng.uniform(0.35, 0.8)), out, target), (
        area > 0.35
    ).astype(np.float32)


def rough(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """Coarse granular relief where the surface should be smooth."""
    mask, _ = _puddle(rng, inside, 14, 55, 25, (0.1, 0.35))
    field = grain(rng, rng.uniform(0.7, 2.2))
    relief = field - shifted(field, 1, 1)
    relief = relief / (relief.std() + 1e-6)
    return gain(image, np.clip(1 + rng.uniform(0.12, 0.4) * relief * mask, 0.2, 2).astype(np.float32)), (
        mask > 0.4
    ).astype(np.float32)


def wear(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """A coat or grain rubbed away: structure fades to a plain, mostly lighter tone; or paint flakes off with a sharp edge."""
    flaking = rng.random() < 0.5
    mask, edge = _puddle(rng, inside, 14, 60, 30, (0.02, 0.08) if flaking else (0.2, 0.5))
    plain = blur(np.ascontiguousarray(image), 8)
    under = mean_colour(image, mask) * rng.uniform(0.5, 1.5) if flaking else plain * rng.uniform(1.1, 1.4)
    out = blend(
        mask * np.float32(rng.uniform(0.6, 1)),
        image,
        np.clip(under, 0, 1) * (1 + 0.05 * grain(rng, 0.8))[..., None],
    )
    return (gain(out, 1 - 0.3 * edge) if flaking else out), (mask > 0.4).astype(np.float32)


def particles(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    x, y = place(rng, inside)
    spread, mask, out = rng.uniform(8, 35), np.zeros((SIZE, SIZE), np.uint8), np.array(image, np.float32)
    tone = colour(rng, (0, 0.5), (0.0, 0.25)) if rng.random() < 0.6 else colour(rng, (0, 0.4), (0.75, 1))
    for _ in range(rng.integers(6, 45)):
        middle, radius, corners = (
            np.array([x, y]) + rng.normal(0, spread, 2),
            rng.uniform(0.8, 3.2),
            int(rng.integers(3, 7)),
        )
        angles = np.sort(rng.uniform(0, 2 * math.pi, corners))
        corners_at = middle + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
        points: Field = (corners_at * 8).astype(np.int32)
        shade_ = tuple(float(c) for c in np.clip(tone * rng.uniform(0.7, 1.3), 0, 1))
        if rng.random() < 0.3:
            cv2.fillPoly(out, [points + 10], (0.0, 0.0, 0.0), cv2.LINE_8, 3)
        cv2.fillPoly(out, [points], shade_, cv2.LINE_8, 3)
        cv2.fillPoly(mask, [points], 255, cv2.LINE_8, 3)
    merged = cv2.dilate(
        cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)), np.ones((3, 3), np.uint8)
    )
    return blend(inside.astype(np.float32), image, out), merged.astype(np.float32) / 255 * inside


def _winding(rng: Rng, x: float, y: float, steps: int, turn: float) -> NDArray[np.float64]:
    point, heading, bend, path = (
        np.array([x, y]),
        rng.uniform(0, 2 * math.pi),
        rng.normal(0, 0.1),
        [np.array([x, y])],
    )
    for _ in range(steps):
        bend = float(np.clip(bend + rng.normal(0, turn), -0.35, 0.35))
        heading += bend
        point = point + 5 * np.array([math.cos(heading), math.sin(heading)])
        path.append(point)
    return np.array(path)


def thread(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    path = _winding(rng, *place(rng, inside), int(span(rng, 8, 34)), 0.08)
    width = float(rng.choice([1, 2, 2, 3]))
    mask = strokes(path, width)
    shadow = strokes(path + 2, width) * (1 - mask)
    tone = contrasting(rng, image, mask, (0, 0.9), (0.1, 1))
    return blend(mask, gain(image, 1 - 0.35 * shadow), tone), mask


def burn(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    distance = blob(rng, *place(rng, inside), span(rng, 12, 50), 0.45)
    core, halo = smoothstep(distance, 0.8, 0.2) * inside, smoothstep(distance, 1.3, 0.6) * inside
    brown = np.array([0.45, 0.28, 0.12], np.float32) * np.float32(rng.uniform(0.7, 1.1))
    black = (rng.uniform(0.02, 0.1) * (1 + 0.4 * grain(rng, 1)))[..., None].astype(np.float32)
    out = image * blend(halo * 0.75, WHITE, brown)
    return blend(core * np.float32(rng.uniform(0.6, 0.95)), out, black), (halo > 0.4).astype(np.float32)


def cut(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    u, v = local_axes(*place(rng, inside, 2), rng.uniform(0, 2 * math.pi))
    length, width = span(rng, 24, 100), span(rng, 2, 7)
    v = v + np.float32(rng.uniform(-0.003, 0.003)) * u * u
    profile = np.clip(1 - (2 * u / length) ** 2, 0, 1)
    gap = np.abs(v) - width * profile
    mask = smoothstep(gap, 0.7, -0.7) * (profile > 0) * inside
    lip = np.exp(-(((gap - 2) / 2.0) ** 2)) * (profile > 0.02) * inside
    out = gain(image, 1 + lip * (0.25 + 0.25 * np.sign(v) * rng.choice([-1, 1]))) + 0.12 * lip[..., None]
    inner = np.clip(image * 0.15 + 0.04 * (v / (width + 1))[..., None], 0, 1)
    return blend(mask.astype(np.float32), out.astype(np.float32), inner), np.maximum(mask, lip > 0.5).astype(
        np.float32
    )


def fray(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """A band of torn, fibrous or granular texture with a ragged outline."""
    u, v = local_axes(*place(rng, inside), float(rng.choice([0, math.pi / 2, rng.uniform(0, math.pi)])))
    length, width = span(rng, 25, 75), span(rng, 8, 28)
    ragged = noise(rng, 90, 90) * width * 1.2 + fractal(rng, 20, 3, 0.8) * width * 0.4
    mask = (
        smoothstep(np.abs(v) + ragged, width, width * 0.6)
        * smoothstep(np.abs(u), length, length * 0.8)
        * inside
    )
    field = 0.5 * grain(rng, 0.7) if rng.random() < 0.5 else 0.5 * np.tanh(2 * fractal(rng, 40, 2))
    texture = np.clip(0.5 + field, 0, 1.5)
    target = (0.1 + 0.2 * texture) if rng.random() < 0.6 else (0.6 + 0.35 * texture)
    alpha = mask * np.float32(rng.uniform(0.5, 0.95)) * (0.4 + 0.6 * texture)
    return blend(alpha.astype(np.float32), image, target[..., None].astype(np.float32)), (
        blur(mask.astype(np.float32), 2) > 0.4
    ).astype(np.float32)


def burr(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """A thin raised ragged ridge: bright crest, dark foot."""
    path = _winding(rng, *place(rng, inside), int(span(rng, 5, 22)), 0.03)
    path = path + rng.normal(0, 1.2, path.shape)
    width = rng.uniform(2, 4.5)
    mask, foot = strokes(path, width), strokes(path + rng.choice([-1, 1], 2) * width * 0.8, width)
    torn = np.clip(0.7 + 0.5 * noise(rng, 80, 80) * 2, 0, 1)
    out = gain(image, 1 - 0.5 * foot * (1 - mask) * inside)
    crest = np.clip(image * rng.uniform(1.3, 1.8) + rng.uniform(0.05, 0.3), 0, 1)
    return blend((mask * torn * inside).astype(np.float32), out, crest), np.maximum(mask, foot * 0.8) * inside
