"""Structured normals: seams, imprints, teeth, veins, slots and welds that belong to the part.

Without them an encoder calls every edge and every letter a defect.
"""

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
    any_angle,
    blend,
    blur,
    colour,
    fractal,
    gain,
    grain,
    hsv,
    local_axes,
    noise,
    rotate,
    rotated_axes,
    shade,
    smoothstep,
    streaks,
    strokes,
    text,
)  # fmt: skip
from trainer.encoder.generator.textures import brushed, casting, ceramic, leather, painted, plastic, rubber


def any_surface(rng: Rng) -> Field:
    """A plain ground for structure to sit on."""
    makers = (plastic, painted, brushed, casting, ceramic, rubber)
    return makers[int(rng.integers(len(makers)))](rng)


def bricktile(rng: Rng) -> Field:
    u, v = rotated_axes(rng, any_angle(rng))
    width = rng.uniform(25, 80)
    height = width * rng.uniform(0.5, 1)
    row = np.floor(v / height)
    u = u + (row % 2) * width * rng.choice([0, 0.5])
    joint = rng.uniform(1.5, 4)
    edge = np.minimum(np.minimum(u % width, width - u % width), np.minimum(v % height, height - v % height))
    hashed = np.sin(np.floor(u / width) * 12.99 + row * 78.2) * 43758.5
    hashed = hashed - np.floor(hashed)
    base = colour(rng, (0, 0.6))
    tile = gain(base[None, None], 1 + rng.uniform(0, 0.2) * (hashed - 0.5) + 0.06 * fractal(rng, 4, 4))
    mortar = shade(grain(rng, 0.8), colour(rng, (0, 0.2), (0.3, 0.8)), 0.08)
    return blend(smoothstep(edge, joint * 0.5, joint), mortar, tile)


def perforated(rng: Rng) -> Field:
    u, v = rotated_axes(rng, any_angle(rng))
    pitch = rng.uniform(16, 40)
    radius = pitch * rng.uniform(0.18, 0.36)
    stagger = (np.floor(v / pitch) % 2) * pitch * rng.choice([0, 0.5])
    distance = np.hypot((u + stagger) % pitch - pitch / 2, v % pitch - pitch / 2)
    plate = shade(grain(rng, 0.7) + fractal(rng, 3, 3), colour(rng, (0, 0.3), (0.4, 0.9)), 0.04)
    return blend(smoothstep(distance, radius - 1, radius + 1), colour(rng, (0, 0.3), (0.02, 0.3)), plate)


def circuit(rng: Rng) -> Field:
    """A green board with thin routes and pads."""
    base = colour(rng, (0.4, 1), (0.15, 0.6))
    image = np.ascontiguousarray(shade(grain(rng, 0.6), base, 0.05), dtype=np.float32)
    copper = tuple(float(c) for c in np.clip(base * rng.uniform(1.2, 1.7) + 0.03, 0, 1))
    pad = tuple(float(c) for c in colour(rng, (0, 0.5), (0.6, 0.95)))
    steps = np.array([[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]])
    for _ in range(rng.integers(8, 22)):
        at = rng.integers(0, SIZE, 2).astype(float)
        heading, route = int(rng.integers(0, 8)), [at.copy()]
        for _ in range(rng.integers(2, 5)):
            at = at + steps[heading % 8] * rng.uniform(15, 70)
            route.append(at.copy())
            heading += int(rng.choice([-1, 1]))
        cv2.polylines(
            image, [np.asarray(route, np.int32)], False, copper, int(rng.integers(2, 5)), cv2.LINE_8
        )
        for end in (route[0], route[-1]):
            centre = (int(end[0]), int(end[1]))
            cv2.circle(image, centre, 6, pad, -1)
            cv2.circle(image, centre, 2, (0.1, 0.1, 0.1), -1)
    return image


def zipper(rng: Rng) -> Field:
    wide, pitch = rng.uniform(16, 30), rng.uniform(9, 16)
    across = XS - np.float32(SIZE / 2 + rng.uniform(-10, 10))
    teeth = (np.abs(across) < wide) & (((YS + np.where(across > 0, pitch / 2, 0)) % pitch) < pitch * 0.55)
    weave = np.sin(XS * 1.3) * np.sin(YS * 1.3) + 0.5 * grain(rng)
    metal = shade(grain(rng) * 0.3 + np.cos(across / wide * 1.5), colour(rng, (0, 0.5), (0.3, 0.9)), 0.2)
    image = blend(
        blur(teeth.astype(np.float32), 0.8), shade(weave, colour(rng, (0, 0.7), (0.1, 0.7)), 0.12), metal
    )
    padded = np.ascontiguousarray(np.pad(image, ((48, 48), (48, 48), (0, 0)), mode="reflect"), np.float32)
    return rotate(padded, float(rng.choice([0, 90, rng.uniform(0, 180)])))


def stitched(rng: Rng) -> Field:
    """Leather or cloth with straight seams and their stitches."""
    image = leather(rng)
    for _ in range(rng.integers(1, 3)):
        u, v = local_axes(rng.uniform(40, SIZE - 40), rng.uniform(40, SIZE - 40), any_angle(rng))
        pitch, thick = rng.uniform(8, 18), rng.uniform(1.2, 2.6)
        image = gain(image, 1 - rng.uniform(0.2, 0.5) * np.exp(-((v / rng.uniform(2, 5)) ** 2)))
        stitch = smoothstep(np.abs(v), thick + 0.8, thick) * ((u % pitch) < pitch * 0.7)
        image = blend(stitch.astype(np.float32), image, colour(rng, (0, 0.7), (0.3, 0.95)))
    return image


def _word(rng: Rng, low: int, high: int) -> str:
    return "".join(rng.choice(list(string.ascii_uppercase + string.digits), int(rng.integers(low, high))))


def label(rng: Rng) -> Field:
    """Printed matter: lines of text, a barcode, frames, logos."""
    image = (
        any_surface(rng)
        if rng.random() < 0.4
        else shade(grain(rng, 0.8), colour(rng, (0, 0.3), (0.7, 0.98)), 0.01)
    )
    ink = colour(rng, (0, 0.9), (0.02, 0.4)) if image.mean() > 0.45 else colour(rng, (0, 0.6), (0.7, 1))
    print_ = np.zeros((SIZE, SIZE), np.float32)
    y = rng.uniform(15, 50)
    while y < SIZE - 10:
        scale = rng.uniform(0.4, 1.5)
        print_ = np.maximum(
            print_, text(rng, _word(rng, 3, 14), rng.uniform(4, 60), y, scale, int(rng.integers(1, 4)))
        )
        y += scale * rng.uniform(26, 60)
    if rng.random() < 0.5:
        x0, y0, bars = int(rng.integers(10, 100)), int(rng.integers(10, 150)), int(rng.integers(20, 45))
        widths = rng.integers(1, 4, bars)
        for at, wide in zip(x0 + np.cumsum(widths + 1), widths, strict=True):
            print_[y0 : y0 + 45, at : at + wide] = 1
    if rng.random() < 0.4:
        x0, y0 = (int(v) for v in rng.integers(5, 60, 2))
        cv2.rectangle(print_, (x0, y0), (SIZE - x0, SIZE - y0), 1.0, int(rng.integers(1, 4)))
    print_ = rotate(print_, float(rng.choice([0, 0, 90, rng.normal(0, 5)])))
    return blend(print_ * np.float32(rng.uniform(0.7, 1)), image, ink)


def keycaps(rng: Rng) -> Field:
    """A grid of buttons with embossed or printed characters."""
    u, v = rotated_axes(rng, float(rng.choice([0, 0, math.pi / 2])))
    pitch = rng.uniform(34, 75)
    across, along = np.abs(u % pitch - pitch / 2), np.abs(v % pitch - pitch / 2)
    box = (across**4 + along**4) ** 0.25
    cap = smoothstep(box, pitch * 0.46, pitch * 0.42)
    top = smoothstep(box, pitch * 0.36, pitch * 0.32)
    image = blend(cap, colour(rng, (0, 0.4), (0.03, 0.5)), gain(any_surface(rng), 0.75 + 0.35 * top))
    ink = np.zeros((SIZE, SIZE), np.float32)
    rows, cols = np.meshgrid(np.arange(0, SIZE, pitch), np.arange(0, SIZE, pitch))
    offset_u, offset_v = float(u[0, 0]) % pitch, float(v[0, 0]) % pitch
    for x, y in zip(
        cols.ravel() - offset_u + pitch * 0.35, rows.ravel() - offset_v + pitch * 0.62, strict=True
    ):
        ink = np.maximum(ink, text(rng, _word(rng, 1, 2), x, y, pitch / 60, int(rng.integers(1, 3))))
    return blend(ink * np.float32(rng.uniform(0.5, 1)), image, colour(rng, (0, 0.3), (0.02, 0.98)))


def fins(rng: Rng) -> Field:
    """Heat-sink fins, corrugated sheet, louvres: parallel relief with hard light."""
    u, v = rotated_axes(rng, any_angle(rng))
    pitch, duty = rng.uniform(9, 42), rng.uniform(0.3, 0.7)
    phase = (u / pitch) % 1
    if rng.random() < 0.5:
        relief = np.sin(phase * 2 * math.pi) + 0.25 * np.sin(phase * 4 * math.pi + 1)
    else:
        relief = 2 * smoothstep(np.abs(phase - 0.5), duty / 2 + 1 / pitch, duty / 2 - 1 / pitch) - 1
        relief = relief - 0.8 * np.exp(-(((phase - 0.5 - duty / 2) * pitch / 2) ** 2))
    relief = relief + 0.15 * grain(rng, 0.7) + 0.1 * np.sin(v / 40)
    return shade(relief.astype(np.float32), colour(rng, (0, 0.4), (0.25, 0.75)), rng.uniform(0.12, 0.45))


def wicker(rng: Rng) -> Field:
    """Cane or basket weave: wide ribbons over and under."""
    u, v = rotated_axes(rng, any_angle(rng), rng.uniform(0, 1.5))
    pitch = rng.uniform(18, 46)
    over = ((np.floor(u / pitch) + np.floor(v / pitch)) % 2).astype(np.float32)
    round_u, round_v = np.cos(((u % pitch) / pitch - 0.5) * 2.6), np.cos(((v % pitch) / pitch - 0.5) * 2.6)
    relief = (
        over * round_u + (1 - over) * round_v + 0.15 * np.where(over > 0, np.sin(v * 1.4), np.sin(u * 1.4))
    )
    return shade(
        relief - 0.6 + 0.1 * grain(rng, 0.6),
        hsv(rng.uniform(0.05, 0.14), rng.uniform(0.1, 0.6), rng.uniform(0.4, 0.85)),
        0.45,
    )


def onyx(rng: Rng) -> Field:
    """Banded and veined stone: the veins are normal."""
    bands = np.sin(fractal(rng, 2, 3, 0.55) * rng.uniform(2, 6) + rng.uniform(0, 6))
    first, second = colour(rng, (0, 0.5), (0.35, 0.95)), colour(rng, (0, 0.6), (0.15, 0.8))
    image = blend(smoothstep(bands, -0.9, 0.9), first, second)
    veins = np.exp(-np.abs(fractal(rng, 3, 4, 0.6)) * rng.uniform(12, 30))
    return gain(
        blend(veins * np.float32(rng.uniform(0.2, 0.7)), image, colour(rng, (0, 0.3), (0.1, 0.95))),
        1 + 0.03 * grain(rng, 0.7),
    )


def moulding(rng: Rng) -> Field:
    """Wafer, chocolate or tread: bevelled blocks in rows."""
    u, v = rotated_axes(rng, any_angle(rng))
    width, height = rng.uniform(26, 70), rng.uniform(26, 70)
    edge = np.minimum(width / 2 - np.abs(u % width - width / 2), height / 2 - np.abs(v % height - height / 2))
    bevel = rng.uniform(4, 9)
    slope = np.where(
        edge < bevel,
        np.where(
            np.abs(u % width - width / 2) / width > np.abs(v % height - height / 2) / height,
            np.sign(u % width - width / 2),
            np.sign(v % height - height / 2),
        ),
        0,
    )
    groove = smoothstep(edge, 1.5, 0.0)
    relief = slope.astype(np.float32) * 0.8 - 1.5 * groove + 0.2 * grain(rng, 0.8) + 0.2 * fractal(rng, 4, 3)
    return shade(relief, colour(rng, (0, 0.7), (0.2, 0.8)), rng.uniform(0.1, 0.3))


def pins(rng: Rng) -> Field:
    """Connector pins, ball grids, bristle tufts: rows of small bright or dark parts."""
    u, v = rotated_axes(rng, float(rng.choice([0, math.pi / 2, rng.normal(0, 0.05)])))
    pitch_u, pitch_v = rng.uniform(12, 36), rng.uniform(12, 36)
    x, y = u % pitch_u - pitch_u / 2, v % pitch_v - pitch_v / 2
    size = min(pitch_u, pitch_v) * rng.uniform(0.2, 0.38)
    distance = np.hypot(x, y) if rng.random() < 0.5 else np.maximum(np.abs(x), np.abs(y))
    head = smoothstep(distance, size + 0.8, size - 0.8)
    light = np.clip(1 + 0.5 * (x + y) / size, 0.4, 1.6)
    return blend(
        head, any_surface(rng), gain(colour(rng, (0, 0.5), (0.3, 0.95))[None, None], light.astype(np.float32))
    )


def weld(rng: Rng) -> Field:
    """A weld bead with its regular ripples between two sheets."""
    image = brushed(rng) if rng.random() < 0.6 else casting(rng)
    u, v = local_axes(SIZE / 2 + rng.uniform(-30, 30), SIZE / 2 + rng.uniform(-30, 30), any_angle(rng))
    half, pitch = rng.uniform(10, 28), rng.uniform(4, 10)
    edge = half + 1.2 * noise(rng, 12, 12)
    bead = smoothstep(np.abs(v), edge + 1.5, edge - 1.5)
    ripple = (
        np.sin((u + (v / half) ** 2 * pitch * 1.2) * 2 * math.pi / pitch) * 0.6 + np.cos(v / half * 1.5) * 0.8
    )
    heat = np.exp(-((np.abs(v) / (half * 2.2)) ** 4)) * rng.uniform(0, 0.35)
    image = gain(image, (1 - heat).astype(np.float32))
    return blend(
        bead,
        image,
        shade(ripple + 0.3 * grain(rng, 0.7), colour(rng, (0, 0.15), (0.35, 0.75)), rng.uniform(0.12, 0.3)),
    )


def panel(rng: Rng) -> Field:
    """An assembled panel: screws, slots, seams, drilled holes, an embossed mark."""
    image = any_surface(rng)
    for _ in range(rng.integers(1, 4)):  # seams between sheets
        _, v = local_axes(
            rng.uniform(20, SIZE - 20), rng.uniform(20, SIZE - 20), float(rng.choice([0, math.pi / 2]))
        )
        image = gain(image, 1 - rng.uniform(0.3, 0.8) * np.exp(-((v / rng.uniform(1, 2.5)) ** 2)))
        image = gain(image, 1 + rng.uniform(0, 0.3) * np.exp(-(((v - 3) / 1.5) ** 2)))
    for x, y in rng.uniform(15, SIZE - 15, (int(rng.integers(2, 9)), 2)):
        u, v = local_axes(x, y, rng.uniform(0, 3.14))
        radius = rng.uniform(4, 13)
        disc = smoothstep(np.hypot(u, v), radius + 0.8, radius - 0.8)
        if rng.random() < 0.5:  # a drilled hole with a chamfer
            rim = np.exp(-(((np.hypot(u, v) - radius) / 1.2) ** 2))
            image = gain(blend(disc, image, colour(rng, (0, 0.2), (0.02, 0.15))), 1 + 0.3 * rim)
        else:  # a screw head
            slot = (np.abs(v) < radius * 0.15) | (
                (np.abs(u) < radius * 0.15) if rng.random() < 0.5 else False
            )
            head = gain(colour(rng, (0, 0.2), (0.4, 0.85))[None, None], 1 + 0.3 * np.clip(u / radius, -1, 1))
            image = blend(
                disc, image, gain(head, 1 - 0.7 * (slot & (np.hypot(u, v) < radius * 0.8)).astype(np.float32))
            )
    if rng.random() < 0.4:
        mark = text(
            rng, _word(rng, 2, 6), rng.uniform(10, 80), rng.uniform(50, 200), rng.uniform(0.7, 1.6), 2
        )
        image = gain(image, 1 + 0.35 * (np.roll(mark, 1, 0) - np.roll(mark, -1, 0)))
    return image


def ribbon(rng: Rng) -> Field:
    """Cable harness, hoses or rods side by side: cylinders with highlights."""
    u, v = rotated_axes(rng, any_angle(rng), rng.uniform(0, 3))
    pitch = rng.uniform(14, 48)
    phase = (v / pitch) % 1
    index = np.floor(v / pitch).astype(int)
    palette = np.stack([colour(rng, (0, 0.9), (0.15, 0.95)) for _ in range(7)])
    light = (
        0.35
        + 0.75 * np.sin(np.clip(phase, 0.02, 0.98) * math.pi)
        + rng.uniform(0, 0.5) * np.exp(-(((phase - 0.35) / 0.06) ** 2))
    )
    lay = 1 + rng.uniform(0, 0.15) * np.sin((u + v) * 2 * math.pi / rng.uniform(5, 14))
    return gain(palette[index % len(palette)], (light * lay).astype(np.float32))


def crossing(rng: Rng) -> Field:
    """Wires or ribs drawn over a ground: dark and bright lines that are part of the design."""
    image = any_surface(rng)
    tone = colour(rng, (0, 0.5), (0.02, 0.98))
    for _ in range(rng.integers(3, 10)):
        start, end = rng.uniform(-20, SIZE + 20, (2, 2))
        if rng.random() < 0.7:
            end[int(rng.integers(2))] = start[int(rng.integers(2))]
        image = blend(
            strokes(np.stack([start, end]), rng.uniform(2, 9)) * np.float32(rng.uniform(0.5, 1)), image, tone
        )
    return image


def ground_edge(rng: Rng) -> Field:
    """A part that fills one side of the picture only: its border, shadow and chamfer are normal."""
    part, table = any_surface(rng), any_surface(rng)
    u, _ = local_axes(SIZE / 2 + rng.uniform(-70, 70), SIZE / 2 + rng.uniform(-70, 70), any_angle(rng))
    inside = smoothstep(u, -1.0, 1.0)
    shadow = 1 - rng.uniform(0.2, 0.7) * np.exp(-((np.minimum(u, 0) / rng.uniform(4, 20)) ** 2)) * (u < 0)
    chamfer = 1 + rng.uniform(-0.3, 0.5) * np.exp(-(((u - rng.uniform(3, 9)) / 2.5) ** 2))
    return blend(
        inside,
        gain(table, (shadow * rng.uniform(0.2, 0.9)).astype(np.float32)),
        gain(part, chamfer.astype(np.float32)),
    )


def bands(rng: Rng) -> Field:
    """Brightness bands of illumination and rolling on a plain sheet: no defect, however strong."""
    image = any_surface(rng)
    u, _ = rotated_axes(rng, any_angle(rng))
    profile = np.zeros_like(u)
    for _ in range(rng.integers(1, 6)):
        profile += np.float32(rng.normal(0, 0.25)) * np.exp(
            -(((u - rng.uniform(u.min(), u.max())) / rng.uniform(6, 60)) ** 2)
        )
    return gain(image + 0.02 * streaks(rng, 60, 2, 0)[..., None], np.clip(1 + profile, 0.3, 1.8))
