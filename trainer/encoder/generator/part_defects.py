"""Defects of castings, rolled steel, ceramics and assembled parts. Same contract as `defects`."""

from __future__ import annotations

import math
import string

import cv2
import numpy as np

from trainer.encoder.generator.canvas import (
    SIZE,
    XS,
    YS,
    Field,
    Rng,
    blend,
    blob,
    blur,
    colour,
    fractal,
    gain,
    grain,
    local_axes,
    mean_colour,
    noise,
    shard,
    shifted,
    smoothstep,
    span,
    strokes,
    text,
)  # fmt: skip
from trainer.encoder.generator.defects import (
    WHITE,
    Damage,
    Inside,
    _puddle,
    contrasting,
    crack,
    place,
    warp_by,
)  # fmt: skip


def blowhole(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """Gas pores: small dark round pits, one side of the wall lit."""
    x, y = place(rng, inside, 2)
    mask, out = np.zeros((SIZE, SIZE), np.float32), image
    for index in range(int(rng.choice([1, 1, 1, 2, 4]))):
        at = np.array([x, y]) + (index > 0) * rng.normal(0, 25, 2)
        radius = span(rng, 2.2, 12)
        distance = blob(rng, at[0], at[1], radius, 0.15, rng.uniform(0.6, 1))
        pit, rim = smoothstep(distance, 1.1, 0.7), np.exp(-(((distance - 1.15) / 0.2) ** 2))
        u, _ = local_axes(at[0], at[1], rng.uniform(0, 2 * math.pi))
        wall = u / np.float32(radius)
        out = gain(
            out, (1 - pit * rng.uniform(0.4, 0.9) * np.clip(0.8 + 0.3 * wall, 0.3, 1)).astype(np.float32)
        )
        out = out + (rim * inside * rng.uniform(0, 0.25) * np.clip(wall, 0, 1))[..., None].astype(np.float32)
        mask = np.maximum(mask, pit * inside)
    return blend(inside.astype(np.float32), image, out), mask


def inclusion(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """Slag rolled out along the strip: dark slim broken streaks."""
    x, y = place(rng, inside)
    angle = float(rng.choice([0, math.pi / 2, rng.uniform(0, math.pi)]))
    c, s = math.cos(angle), math.sin(angle)
    mask = np.zeros((SIZE, SIZE), np.float32)
    for index in range(int(rng.integers(1, 6))):
        along, across = rng.normal(0, 35) * (index > 0), rng.normal(0, 6) * (index > 0)
        u, v = local_axes(x + along * c - across * s, y + along * s + across * c, angle)
        streak = (u / span(rng, 10, 65)) ** 2 + (v / rng.uniform(1.2, 6)) ** 2 + 0.6 * fractal(rng, 18, 2)
        mask = np.maximum(mask, smoothstep(streak, 1.2, 0.6))
    mask = mask * inside
    dark = rng.uniform(0.3, 0.75) * mask * (0.8 + 0.2 * noise(rng, 40, 40))
    return gain(image, (1 - dark).astype(np.float32)), mask


def patches(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """Irregular bright or dark blotches with a grain of their own."""
    mask, (x, y) = np.zeros((SIZE, SIZE), np.float32), place(rng, inside)
    for index in range(int(rng.integers(1, 5))):
        at = np.array([x, y]) + (index > 0) * rng.normal(0, 45, 2)
        one = blob(rng, at[0], at[1], span(rng, 16, 60), rng.uniform(0.5, 1.2), rng.uniform(0.4, 1))
        mask = np.maximum(mask, smoothstep(one, 1.05, 0.9))
    mask = mask * inside
    level = (
        1
        + rng.choice([-1, -1, 1]) * rng.uniform(0.2, 0.55)
        + rng.uniform(0.04, 0.15) * fractal(rng, 30, 3, 0.8)
    )
    return blend(
        mask * np.float32(rng.uniform(0.6, 1)), image, np.clip(gain(image, level.astype(np.float32)), 0, 1)
    ), mask


def uneven(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """A broad soft change of brightness: uneven grinding or coating."""
    distance = blob(rng, *place(rng, inside), span(rng, 32, 105), 0.5, rng.uniform(0.25, 1))
    mask = blur(smoothstep(distance, 1.2, rng.uniform(0.4, 0.9)), rng.uniform(2, 8)) * inside
    level = 1 + rng.choice([-1, 1]) * rng.uniform(0.22, 0.6) * mask * (1 + 0.3 * fractal(rng, 6, 3))
    return np.clip(gain(image, level.astype(np.float32)), 0, 1), (mask > 0.35).astype(np.float32)


def missing(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """Material that is not there: a bite out of the part, or a patch that shows what lies beneath."""
    if ground is not None:
        inner = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=3).astype(bool)
        ys, xs = np.nonzero(inside & ~inner)
        at = rng.integers(len(ys))
        mask = shard(rng, float(xs[at]), float(ys[at]), span(rng, 14, 46)) * inside
        out = blend(mask, image, ground)
        return gain(out, 1 - 0.3 * np.clip(blur(mask, 2) - mask, 0, 1) * inside), mask
    x, y = place(rng, inside)
    mask = shard(rng, x, y, span(rng, 14, 45))
    if rng.random() < 0.3:
        mask = smoothstep(blob(rng, x, y, span(rng, 12, 38), 0.3), 1.04, 0.96)
    level = rng.uniform(0.4, 0.7) if rng.random() < 0.5 else rng.uniform(1.2, 1.5)
    beneath = np.clip(mean_colour(image, np.ones((SIZE, SIZE), np.float32)) * level, 0, 1)
    out = blend(mask, image, gain(beneath[None, None], 1 + 0.06 * grain(rng, 1.2)))
    return gain(out, np.clip(1 - 0.45 * (mask - shifted(mask, 2, 2)), 0.4, 1.5)), mask


def break_(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """A large piece broken off an edge or corner: a bright or dark conchoidal face with a jagged outline."""
    if ground is not None:
        edge = inside & ~cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2).astype(
            bool
        )
        ys, xs = np.nonzero(edge)
        at = rng.integers(len(ys))
        x, y = float(xs[at]), float(ys[at])
    else:
        x, y = rng.uniform(0, SIZE, 2)
        if rng.random() < 0.75:
            x = float(rng.choice([rng.uniform(-4, 10), SIZE - rng.uniform(-4, 10)]))
            if rng.random() < 0.5:
                x, y = y, x
    distance = blob(rng, x, y, span(rng, 14, 62), rng.uniform(0.5, 1.1), rng.uniform(0.4, 1))
    mask = smoothstep(distance, 1.03, 0.95) * inside
    facets = fractal(rng, rng.uniform(6, 18), 4, 0.7)
    gy, gx = np.gradient(facets)
    light = rng.uniform(0, 2 * math.pi)
    relief = np.tanh((gx * math.cos(light) + gy * math.sin(light)) * rng.uniform(2, 6))
    tone = np.clip(
        mean_colour(image, mask) * (rng.uniform(0.2, 0.7) if rng.random() < 0.5 else rng.uniform(1.3, 2.2)),
        0.02,
        1,
    )
    face = gain(tone[None, None], (1 + 0.5 * relief).astype(np.float32))
    return blend(mask * np.float32(rng.uniform(0.7, 1)), image, np.clip(face, 0, 1)), mask


def broken(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """A shattered place: pieces pushed apart along cracks."""
    x, y = place(rng, inside)
    out, mask = np.array(image), np.zeros((SIZE, SIZE), np.float32)
    for _ in range(rng.integers(2, 5)):
        angle, offset = rng.uniform(0, 2 * math.pi), rng.normal(0, 6, 2)
        piece = shard(rng, x + rng.normal(0, 16), y + rng.normal(0, 16), span(rng, 12, 32))
        moved = warp_by(out, np.full_like(XS, offset[0]), np.full_like(YS, offset[1]))
        u, _ = local_axes(x, y, angle)
        moved = gain(
            moved, np.clip(1 + 0.01 * u * rng.uniform(-1, 1), 0.5, 1.5) * np.float32(rng.uniform(0.6, 1.3))
        )
        out = blend(piece, out, moved)
        border = np.clip(blur(piece, 1.2) * (1 - piece) * 3, 0, 1)
        out = gain(out, 1 - 0.8 * border)
        mask = np.maximum(mask, np.maximum(piece, (border > 0.2).astype(np.float32)))
    cracked, line = crack(rng, out, (mask > 0.3) & inside if (mask[inside] > 0.3).any() else inside, ground)
    mask = np.maximum(mask, line) * inside
    return blend(inside.astype(np.float32), image, cracked), mask


def _local_warp(rng: Rng, image: Field, inside: Inside, ground: Field | None, kind: int) -> Damage:
    x, y = place(rng, inside)
    radius = span(rng, 20, 48)
    bump = np.exp(-(((XS - x) ** 2 + (YS - y) ** 2) / radius**2) * 1.3).astype(np.float32)
    if kind == 0:
        angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(0.35, 0.7) * radius
        dx, dy = far * bump * math.cos(angle), far * bump * math.sin(angle)
    elif kind == 1:
        turn = rng.choice([-1, 1]) * rng.uniform(0.7, 1.6) * bump
        c, s = np.cos(turn), np.sin(turn)
        dx, dy = (XS - x) * (c - 1) - (YS - y) * s, (XS - x) * s + (YS - y) * (c - 1)
    else:
        pinch = rng.choice([-0.6, 0.55]) if kind == 2 else rng.uniform(0.6, 1.4)
        if kind == 3:  # squeezed along one direction only
            angle = rng.uniform(0, math.pi)
            _u, v = local_axes(x, y, angle)
            dx, dy = -math.sin(angle) * v * bump * pinch, math.cos(angle) * v * bump * pinch
        else:
            dx, dy = (XS - x) * bump * pinch, (YS - y) * bump * pinch
    out = warp_by(image, dx, dy)
    if kind == 3:
        out = gain(out, 1 - np.float32(rng.uniform(0.1, 0.35)) * bump)
    area: Field = np.ones((SIZE, SIZE), np.float32)
    if ground is not None:  # only where the part was or is now
        moved = warp_by(inside.astype(np.float32), dx, dy)
        area = cv2.dilate(np.maximum(moved, inside.astype(np.float32)), np.ones((3, 3), np.uint8))
    return out, ((bump > 0.3) * area).astype(np.float32)


def bent(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    return _local_warp(rng, image, inside, ground, int(rng.integers(0, 3)))


def squeeze(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    return _local_warp(rng, image, inside, ground, 3)


def misplaced(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """A piece of the structure shifted, flipped or turned: every pixel is of the part, the order is not."""
    x, y = place(rng, inside)
    half_w, half_h = int(span(rng, 14, 50)), int(span(rng, 14, 50))
    x0, x1 = max(0, int(x) - half_w), min(SIZE, int(x) + half_w)
    y0, y1 = max(0, int(y) - half_h), min(SIZE, int(y) + half_h)
    out, kind = np.array(image), int(rng.integers(0, 3))
    piece = image[y0:y1, x0:x1]
    if kind == 0:
        out[y0:y1, x0:x1] = piece[::-1] if rng.random() < 0.5 else piece[:, ::-1]
    elif kind == 1:
        sx, sy = (int(v) for v in rng.integers(6, 22, 2) * rng.choice([-1, 1], 2))
        out[y0:y1, x0:x1] = np.roll(image, (sy, sx), (0, 1))[y0:y1, x0:x1]
    else:
        tx, ty = int(rng.integers(0, SIZE - (x1 - x0))), int(rng.integers(0, SIZE - (y1 - y0)))
        out[y0:y1, x0:x1] = image[ty : ty + y1 - y0, tx : tx + x1 - x0]
    mask = np.zeros((SIZE, SIZE), np.float32)
    mask[y0:y1, x0:x1] = 1
    changed = np.abs(out - image).mean(-1)
    return out, mask * (blur(changed, 3) > 0.01)


def imprint(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """Letters printed twice, smeared, torn or at the wrong place."""
    x, y = place(rng, inside)
    letters = "".join(rng.choice(list(string.ascii_uppercase + string.digits), int(rng.integers(1, 5))))
    scale, thick = rng.uniform(0.6, 1.8), int(rng.integers(2, 5))
    print_ = text(
        rng, letters, max(2, x - 12 * len(letters) * scale), min(SIZE - 4, y + 12 * scale), scale, thick
    )
    kind = int(rng.integers(0, 3))
    if kind == 0:
        print_ = np.maximum(print_, 0.7 * shifted(print_, int(rng.integers(3, 9)), int(rng.integers(3, 9))))
    elif kind == 1:
        print_ = np.clip(cv2.blur(print_, (int(rng.integers(9, 25)), 1)) * 1.6, 0, 1)
    else:
        print_ = print_ * (fractal(rng, 14, 2) > -0.3)
    print_ = (print_ * inside).astype(np.float32)
    ink = contrasting(rng, image, print_ + 1e-4, (0, 0.9), (0.05, 0.95))
    out = blend(print_ * np.float32(rng.uniform(0.5, 0.95)), image, ink)
    return out, cv2.dilate((print_ > 0.25).astype(np.float32), np.ones((5, 5), np.uint8)) * inside


def bubble(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """Raised blisters: a lit side, a shaded side, a small highlight."""
    x, y = place(rng, inside, 3)
    mask, out = np.zeros((SIZE, SIZE), np.float32), image
    light = rng.uniform(0, 2 * math.pi)
    for index in range(int(rng.choice([1, 2, 3, 6]))):
        at = np.array([x, y]) + (index > 0) * rng.normal(0, 26, 2)
        radius = span(rng, 4, 18)
        u, v = local_axes(at[0], at[1], light)
        distance = np.hypot(u, v) / radius
        dome = smoothstep(distance, 1.05, 0.9)
        out = gain(out, (1 + dome * rng.uniform(0.25, 0.6) * np.clip(u / radius, -1, 1)).astype(np.float32))
        spark = np.exp(-(((u / radius - 0.45) ** 2 + (v / radius) ** 2) / 0.03)) * rng.uniform(0.1, 0.6)
        out = out + (spark * inside)[..., None].astype(np.float32)
        mask = np.maximum(mask, dome)
    return blend(inside.astype(np.float32), image, out), (mask * inside).astype(np.float32)


def foreign(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """A thing that does not belong: a chip, a washer, a screw, a scrap; it casts a shadow."""
    x, y = place(rng, inside)
    radius, kind = span(rng, 7, 24), int(rng.integers(0, 3))
    u, v = local_axes(x, y, rng.uniform(0, 2 * math.pi))
    if kind == 0:
        mask = shard(rng, x, y, radius)
    elif kind == 1:
        mask = smoothstep(np.hypot(u, v), radius, radius - 1.5) * smoothstep(
            np.hypot(u, v), radius * 0.4, radius * 0.4 + 1.5
        )
    else:
        mask = smoothstep(np.maximum(np.abs(u) - radius, np.abs(v) - radius * rng.uniform(0.2, 0.5)), 1, -1)
    mask = (mask * inside).astype(np.float32)
    shadow = shifted(blur(mask, 2.5), 4, 3) * (1 - mask)
    tone = contrasting(rng, image, mask + 1e-4, (0, 0.9), (0.1, 0.95))
    body = gain(
        tone[None, None], (1 + 0.25 * np.clip(u / radius, -1, 1) + 0.06 * grain(rng, 0.8)).astype(np.float32)
    )
    return blend(mask, gain(image, 1 - 0.45 * shadow), np.clip(body, 0, 1)), mask


def melt(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """Texture smeared and rounded as if molten."""
    mask, edge = _puddle(rng, inside, 14, 50, 22, (0.08, 0.2))
    flow = warp_by(image, 14 * fractal(rng, 4, 2) * mask, 14 * fractal(rng, 4, 2) * mask)
    flow = blur(np.ascontiguousarray(flow), rng.uniform(2, 4))
    relief = fractal(rng, 6, 2)
    shine = np.clip(relief - shifted(relief, 3, 3), -1, 1) * rng.uniform(0.3, 1.2)
    out = blend(mask, image, gain(flow, np.clip(1 + shine, 0.5, 1.8)) * np.float32(rng.uniform(0.7, 1.15)))
    return gain(out, 1 - 0.25 * edge), (mask > 0.4).astype(np.float32)


def dark_area(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """An inactive area of a cell: dark, one straight border (a crack or a finger), soft elsewhere. A form of `crack`."""
    out, line = crack(rng, image, inside, ground)
    u, v = local_axes(*place(rng, inside), float(rng.choice([0, math.pi / 2, rng.uniform(0, math.pi)])))
    wide = span(rng, 10, 60)
    area = (
        smoothstep(u, -1, 1)
        * smoothstep(u, span(rng, 20, 110), 10)
        * smoothstep(np.abs(v), wide, wide * 0.85)
        * inside
    )
    dark = gain(out, (1 - rng.uniform(0.35, 0.85) * area).astype(np.float32))
    return dark, np.maximum(line, (area > 0.4)).astype(np.float32)


def strand(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """Several long parallel lines, bright or dark: scratches as rolled steel shows them."""
    x, y = place(rng, inside)
    angle = float(rng.choice([0, math.pi / 2, rng.uniform(0, math.pi)]))
    mask, bright = np.zeros((SIZE, SIZE), np.float32), rng.random() < 0.7
    for _ in range(rng.integers(1, 5)):
        middle = np.array([x, y]) + rng.normal(0, 14, 2)
        half = np.array([math.cos(angle), math.sin(angle)]) * span(rng, 50, 260) / 2
        bow = rng.normal(0, 2, 2)
        path = np.stack([middle - half, middle + bow, middle + half])
        mask = np.maximum(
            mask, strokes(path, float(rng.choice([2, 3, 4, 6]))) * np.float32(rng.uniform(0.6, 1))
        )
    mask = blur(mask, 0.7) * inside * np.clip(0.8 + 0.6 * noise(rng, 12, 12), 0.2, 1)
    out = blend(
        (mask * rng.uniform(0.35, 0.9)).astype(np.float32),
        image,
        WHITE * rng.uniform(0.75, 1) if bright else image * 0.2,
    )
    return out, (mask > 0.25).astype(np.float32)


def tinted(rng: Rng, image: Field, inside: Inside, ground: Field | None) -> Damage:
    """A whole region in another colour."""
    mask, _ = _puddle(rng, inside, 18, 60, 30, (0.05, 0.3))
    tone = colour(rng, (0.4, 1), (0.4, 1))
    out = image * blend(mask * np.float32(rng.uniform(0.5, 0.9)), WHITE, tone)
    return out, (mask > 0.4).astype(np.float32)
