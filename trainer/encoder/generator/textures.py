"""Flat surfaces: one function a family, Rng -> image float32 [224, 224, 3]."""

from __future__ import annotations

import math

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
    colour,
    fractal,
    gain,
    grain,
    grey,
    hsv,
    noise,
    rotated_axes,
    shade,
    smoothstep,
    streaks,
)  # fmt: skip


def brushed(rng: Rng) -> Field:
    relief = streaks(
        rng, int(rng.integers(15, 70)), int(rng.integers(1, 3)), rng.uniform(0, 180)
    ) + 0.4 * fractal(rng, 2, 2)
    return shade(relief, colour(rng, (0, 0.15), (0.35, 0.85)), rng.uniform(0.03, 0.12))


def casting(rng: Rng) -> Field:
    relief = fractal(rng, rng.integers(5, 20), 4, 0.75) + 0.5 * grain(rng)
    return shade(relief, colour(rng, (0, 0.2), (0.2, 0.7)), rng.uniform(0.05, 0.15))


def concrete(rng: Rng) -> Field:
    image = shade(
        fractal(rng, 3, 6, rng.uniform(0.55, 0.8)),
        colour(rng, (0, 0.2), (0.4, 0.85)),
        rng.uniform(0.04, 0.12),
    )
    return gain(image, 1 - 0.4 * _dots(rng, int(rng.integers(0, 70))))


def _dots(rng: Rng, count: int) -> Field:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for x, y in rng.integers(0, SIZE, (count, 2)):
        cv2.circle(
            mask, (int(x), int(y)), int(rng.integers(0, 2)), int(rng.integers(60, 255)), -1, cv2.LINE_AA
        )
    return mask.astype(np.float32) / np.float32(255)


def wood(rng: Rng) -> Field:
    _, v = rotated_axes(rng, any_angle(rng))
    rings = np.sin((v * rng.uniform(0.02, 0.09) + rng.uniform(0.3, 1.2) * fractal(rng, 2, 3)) * math.pi)
    fibre = streaks(rng, 1, 40, rng.uniform(0, 180)) if rng.random() < 0.3 else noise(rng, 150, 6) * 3
    base = hsv(rng.uniform(0.03, 0.12), rng.uniform(0.25, 0.75), rng.uniform(0.3, 0.85))
    return shade(rings + np.float32(rng.uniform(0.2, 0.8)) * fibre, base, rng.uniform(0.05, 0.16))


def leather(rng: Rng) -> Field:
    field, sigma = grain(rng), rng.uniform(1.2, 3.2)
    pores = cv2.GaussianBlur(field, (0, 0), sigma) - cv2.GaussianBlur(field, (0, 0), sigma * 2)
    relief = np.tanh(pores / pores.std() * 1.5) + 0.3 * fractal(rng, 3, 2)
    return shade(relief, colour(rng, (0.1, 0.8), (0.2, 0.75)), rng.uniform(0.06, 0.2))


def fabric(rng: Rng) -> Field:
    u, v = rotated_axes(rng, any_angle(rng), rng.uniform(0, 2))
    pitch = rng.uniform(5, 13)
    over = ((np.floor(u / pitch) + np.floor(v / pitch)) % 2).astype(np.float32)
    warp_thread, weft = np.abs(np.sin(u * np.pi / pitch)), np.abs(np.sin(v * np.pi / pitch))
    first = colour(rng, (0, 0.7))
    second = np.clip(first * rng.uniform(0.5, 1.4), 0, 1) if rng.random() < 0.6 else colour(rng, (0, 0.7))
    relief = over * (0.55 + 0.45 * warp_thread) + (1 - over) * (0.55 + 0.45 * weft) + 0.06 * grain(rng)
    return gain(blend(over, first, second), relief)


def twill(rng: Rng) -> Field:
    u, v = rotated_axes(rng, any_angle(rng), rng.uniform(0, 1))
    pitch = rng.uniform(8, 22)
    over = (((np.floor(u / pitch) + np.floor(v / pitch)) % 4) < 2).astype(np.float32)
    fibres = np.sin(np.where(over > 0, u, v) * 2 * math.pi / rng.uniform(3, 5))
    return shade(
        fibres * 0.4 + (over - 0.5) * 1.5, colour(rng, (0, 0.3), (0.15, 0.5)), rng.uniform(0.15, 0.4)
    )


def knit(rng: Rng) -> Field:
    u, v = rotated_axes(rng, any_angle(rng), rng.uniform(0, 2))
    pitch = rng.uniform(7, 16)
    wale = np.abs(((u / pitch) % 1) - 0.5) * 2
    phase = (v / (pitch * rng.uniform(0.6, 1)) + wale * 0.8) % 1
    relief = np.sin(phase * 2 * math.pi) + 0.5 * (wale - 0.5) + 0.25 * grain(rng)
    return shade(relief, colour(rng, (0, 0.8)), rng.uniform(0.12, 0.3))


def mesh(rng: Rng) -> Field:
    u, v = rotated_axes(rng, any_angle(rng), rng.uniform(0, 1))
    pitch = rng.uniform(12, 32)
    wire = rng.uniform(0.1, 0.3) * pitch
    if rng.random() < 0.3:
        u, v = (u + v) * 0.7, (v - u) * 0.7
    across, along = np.abs((u % pitch) - pitch / 2), np.abs((v % pitch) - pitch / 2)
    edge = pitch / 2 - wire
    wires = np.maximum(smoothstep(across, edge, edge + 2), smoothstep(along, edge, edge + 2))
    ground = gain(colour(rng, (0, 0.4), (0.05, 0.95))[None, None], 1 + 0.05 * fractal(rng, 3, 3))
    return blend(wires, ground, shade(grain(rng, 1), colour(rng, (0, 0.4), (0.2, 0.9)), 0.06))


def speckle(rng: Rng) -> Field:
    grains = smoothstep(fractal(rng, rng.uniform(8, 24), 3, 0.6), 0.2, 0.5)
    base = shade(grain(rng), colour(rng, (0, 0.3), (0.5, 0.95)), 0.04)
    return blend(grains * np.float32(rng.uniform(0.4, 1)), base, colour(rng, (0, 0.4), (0.1, 0.6)))


def carpet(rng: Rng) -> Field:
    u, v = rotated_axes(rng, any_angle(rng), 1.0)
    period = 2 * math.pi / rng.uniform(3, 7)
    pile = np.sin(u * period) * np.sin(v * period) * rng.uniform(0.3, 1)
    return shade(
        pile + grain(rng, 0.7) + 0.4 * fractal(rng, 3, 3),
        colour(rng, (0, 0.5), (0.25, 0.7)),
        rng.uniform(0.08, 0.2),
    )


def rubber(rng: Rng) -> Field:
    relief = grain(rng, rng.uniform(0.5, 1.2)) * 0.6 + fractal(rng, 3, 3) * 0.5
    if rng.random() < 0.4:
        u, _ = rotated_axes(rng, any_angle(rng))
        relief = relief + 2 * np.sin(u * 2 * math.pi / rng.uniform(10, 30))
    return shade(relief, colour(rng, (0, 0.2), (0.08, 0.35)), rng.uniform(0.05, 0.15))


def marble(rng: Rng) -> Field:
    cloud = fractal(rng, 2, 5, 0.6)
    vein = np.exp(-np.abs(fractal(rng, 2, 4, 0.6) + 0.6 * cloud) * rng.uniform(4, 14)) * smoothstep(
        cloud, -1, 1
    )
    base = shade(cloud, colour(rng, (0, 0.25), (0.5, 0.95)), 0.05)
    return blend(vein * np.float32(rng.uniform(0.3, 0.9)), base, colour(rng, (0, 0.3), (0.15, 0.6)))


def glass(rng: Rng) -> Field:
    u, _ = rotated_axes(rng)
    low, high = float(u.min()), float(u.max())
    image = blend(smoothstep(u, low, high), colour(rng, (0, 0.5)), colour(rng, (0, 0.5)))
    if rng.random() < 0.5:
        band = np.exp(-(((u - rng.uniform(low, high)) / rng.uniform(8, 40)) ** 2))
        image = image + (np.float32(rng.uniform(0.03, 0.15)) * band)[..., None]
    return image


def plastic(rng: Rng) -> Field:
    relief = fractal(rng, 2, 2) * 0.6 + grain(rng, rng.uniform(0.4, 1.2)) * 0.4
    return shade(relief, colour(rng, (0, 0.95), (0.15, 0.95)), rng.uniform(0.02, 0.06))


def painted(rng: Rng) -> Field:
    return shade(grain(rng, rng.uniform(1.5, 5)), colour(rng, (0.2, 1), (0.2, 0.95)), rng.uniform(0.01, 0.06))


def cardboard(rng: Rng) -> Field:
    u, _ = rotated_axes(rng, any_angle(rng))
    flutes = np.sin(u * 2 * math.pi / rng.uniform(6, 16)) * rng.uniform(0, 1)
    base = hsv(rng.uniform(0.06, 0.13), rng.uniform(0.1, 0.55), rng.uniform(0.5, 0.9))
    return shade(flutes + grain(rng, 0.8) * 0.8 + fractal(rng, 4, 4) * 0.5, base, rng.uniform(0.03, 0.08))


def terrazzo(rng: Rng) -> Field:
    image = np.ascontiguousarray(shade(fractal(rng, 4, 3), colour(rng, (0, 0.3), (0.5, 0.9)), 0.03))
    for _ in range(rng.integers(40, 160)):
        corners = int(rng.integers(3, 7))
        angles = np.sort(rng.uniform(0, 2 * math.pi, corners))
        chip = rng.uniform(0, SIZE, 2) + rng.uniform(2, 9) * np.stack([np.cos(angles), np.sin(angles)], 1)
        cv2.fillPoly(
            image,
            [np.asarray(chip, np.int32)],
            tuple(float(c) for c in colour(rng, (0, 0.5), (0.2, 0.95))),
            cv2.LINE_8,
        )
    return image


def solar(rng: Rng) -> Field:
    """A cell in electroluminescence: dark grey, busbars, fingers; polycrystalline grain is normal."""
    mono = rng.random() < 0.5
    relief = 0.4 * fractal(rng, 2, 3) + 0.2 * grain(rng, 0.7)
    if not mono:
        grains = fractal(rng, rng.integers(4, 9), 2)
        dark = smoothstep(fractal(rng, 14, 2), 0.6, 1.6)
        relief = (
            relief + 0.9 * np.tanh(3 * grains) * (grains > -0.2) - np.float32(rng.uniform(0.3, 1.2)) * dark
        )
    image = shade(relief, grey(rng.uniform(0.2, 0.65)), rng.uniform(0.05, 0.22))
    bars = int(rng.integers(2, 6))
    for bar in range(bars):
        centre = SIZE * (bar + 1) / (bars + 1) + rng.normal(0, 2)
        image = gain(
            image, 1 - rng.uniform(0.4, 0.85) * np.exp(-(((YS - centre) / rng.uniform(1.5, 4)) ** 4))
        )
    if rng.random() < 0.6:
        image = gain(
            image, 1 + np.float32(rng.uniform(0.01, 0.06)) * np.sin(XS * 2 * math.pi / rng.uniform(3, 6))
        )
    edge = np.maximum(np.abs(XS - SIZE / 2), np.abs(YS - SIZE / 2))
    image = gain(image, 1 - rng.uniform(0.2, 0.7) * smoothstep(edge, SIZE / 2 - rng.uniform(4, 22), SIZE / 2))
    if mono:
        corner = np.abs(XS - SIZE / 2) + np.abs(YS - SIZE / 2)
        image = gain(image, 1 - 0.85 * smoothstep(corner, SIZE * rng.uniform(0.82, 0.95), SIZE * 0.97))
    return image if rng.random() < 0.5 else np.ascontiguousarray(image.transpose(1, 0, 2))


def strip(rng: Rng) -> Field:
    """Hot-rolled steel: scale mottling and rolling streaks."""
    rolled = streaks(rng, 1, int(rng.integers(8, 60)), float(rng.choice([0, 0, 90, rng.normal(0, 4)])))
    mottle = fractal(rng, rng.integers(3, 30), 4, 0.7)
    relief = (
        rng.uniform(0, 0.7) * rolled + rng.uniform(0.2, 1) * mottle + 0.5 * grain(rng, rng.uniform(0, 1.2))
    )
    return shade(relief.astype(np.float32), grey(rng.uniform(0.3, 0.8)), rng.uniform(0.03, 0.12))


def ferrite(rng: Rng) -> Field:
    """Ground ferrite or dark ceramic: fine grinding marks under a falling light."""
    ground = streaks(rng, int(rng.integers(8, 50)), 1, float(rng.choice([0, 90, rng.normal(0, 5)])))
    u, _ = rotated_axes(rng, any_angle(rng))
    band = np.exp(-(((u - rng.uniform(u.min(), u.max())) / rng.uniform(40, 140)) ** 2))
    relief = 0.5 * ground + 0.4 * grain(rng, 0.6) + 0.5 * fractal(rng, 6, 4, 0.7)
    image = shade(relief, grey(rng.uniform(0.12, 0.5)), rng.uniform(0.03, 0.1))
    image = gain(image, np.float32(0.6) + np.float32(rng.uniform(0.2, 0.9)) * band)
    if rng.random() < 0.35:  # the table below the part's lower edge
        image = gain(
            image, 1 - rng.uniform(0.3, 0.8) * (SIZE * rng.uniform(0.8, 0.95) < YS).astype(np.float32)
        )
    return image


def asphalt(rng: Rng) -> Field:
    relief = grain(rng, rng.uniform(0.6, 1.8)) + 0.6 * fractal(rng, 20, 3, 0.8) + 0.5 * fractal(rng, 2, 2)
    bright = rng.uniform(0.3, 0.7)
    base = np.array([bright * rng.uniform(0.95, 1.08), bright, bright * rng.uniform(0.9, 1.05)], np.float32)
    return shade(relief, base, rng.uniform(0.08, 0.22))


def ceramic(rng: Rng) -> Field:
    """A glazed or sintered face under one lamp: nearly no texture, strong falloff."""
    u, v = rotated_axes(rng)
    lamp = np.exp(
        -(((u - rng.uniform(u.min(), u.max())) / rng.uniform(60, 200)) ** 2 + ((v - v.mean()) / 250) ** 2)
    )
    relief = 0.4 * fractal(rng, 3, 2) + 0.6 * grain(rng, rng.uniform(0.4, 1.5))
    return gain(shade(relief, colour(rng, (0, 0.25), (0.3, 0.9)), rng.uniform(0.01, 0.04)), 0.55 + 0.6 * lamp)


def turned(rng: Rng) -> Field:
    """A face turned on a lathe: rings and the anisotropic highlight that crosses them."""
    x, y = rng.uniform(-80, SIZE + 80, 2)
    radius, angle = np.hypot(XS - x, YS - y), np.arctan2(YS - y, XS - x)
    rings = np.sin(radius * rng.uniform(0.6, 3.0) + rng.uniform(0, 6)) * 0.6 + 0.5 * grain(rng, 0.6)
    glint = np.abs(np.cos(angle - rng.uniform(0, math.pi))) ** rng.uniform(2, 8)
    return gain(shade(rings, colour(rng, (0, 0.15), (0.35, 0.8)), rng.uniform(0.03, 0.12)), 0.7 + 0.6 * glint)


def orange_peel(rng: Rng) -> Field:
    """Powder coat and moulded grain."""
    relief = np.tanh(1.2 * grain(rng, rng.uniform(1.0, 2.6))) + 0.2 * fractal(rng, 2, 2)
    return shade(relief, colour(rng, (0, 0.9), (0.1, 0.9)), rng.uniform(0.03, 0.12))


def galvanised(rng: Rng) -> Field:
    """Zinc spangle: flat crystals of slightly different grey (a normal that looks patchy)."""
    count = int(rng.integers(25, 120))
    points = rng.uniform(-20, SIZE + 20, (count, 2)).astype(np.float32)
    levels = rng.normal(0, 1, count).astype(np.float32)
    low = SIZE // 2
    ys, xs = np.mgrid[0:low, 0:low].astype(np.float32) * 2
    nearest = ((xs[..., None] - points[:, 0]) ** 2 + (ys[..., None] - points[:, 1]) ** 2).argmin(-1)
    crystals = cv2.resize(levels[nearest], (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    return shade(crystals + 0.4 * grain(rng, 0.8), colour(rng, (0, 0.1), (0.45, 0.8)), rng.uniform(0.04, 0.1))
