"""Samples: a surface, none to two defects, harmless variation, and the camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.encoder.generator import boards
from trainer.encoder.generator.canvas import (
    SIZE,
    XS,
    YS,
    Field,
    Rng,
    blur,
    fractal,
    gain,
    rotated_axes,
    smoothstep,
)
from trainer.encoder.generator.catalogue import (
    CLASS_LABEL,
    DEFECTS,
    FAMILIES,
    ON_TRACKS,
    TYPICAL,
    defects_for,
)

IMAGE_SIZE = 256
_TRIES = 4
_LEAST_PIXELS = 12
_LEAST_CHANGE = 0.05  # mean absolute change under the mask; less is not visible, and its label would be a lie


@dataclass(frozen=True)
class Sample:
    """One drawn surface.

    Attributes:
        image: uint8 [S, S, 3] RGB.
        labels: uint8 [S, S], 0 normal, else 1 + index into DEFECT_NAMES.
        family: name in FAMILIES.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    family: str


def _choose(rng: Rng, family: str, count: int, allowed: Sequence[str] | None) -> list[str]:
    if family == "tracks":
        options = [name for name in ON_TRACKS if allowed is None or name in allowed]
    else:
        options = [name for name in defects_for(family) if allowed is None or name in allowed]
        if allowed is None and family in TYPICAL and rng.random() < 0.6:
            options = list(TYPICAL[family])
    return list(dict.fromkeys(rng.choice(options, count).tolist())) if options else []


def benign(rng: Rng, image: Field) -> Field:
    """Harmless variation that must not be called a defect."""
    kind = rng.random()
    if kind < 0.25:  # a soft shadow
        u, _ = rotated_axes(rng)
        centre = rng.uniform(u.min(), u.max())
        return gain(
            image,
            1
            + np.float32(rng.uniform(-0.3, 0.25)) * smoothstep(u, centre - rng.uniform(10, 50), centre + 20),
        )
    if kind < 0.45:  # mottling
        return gain(image, 1 + np.float32(rng.uniform(0.03, 0.12)) * fractal(rng, 2, 2))
    if kind < 0.6:  # glare
        x, y = rng.uniform(0, SIZE, 2)
        glare = np.exp(-((XS - x) ** 2 + (YS - y) ** 2) / (2 * rng.uniform(25, 70) ** 2)) * rng.uniform(
            0.05, 0.25
        )
        lit: Field = image + glare[..., None].astype(np.float32)
        return lit
    if kind < 0.75:  # scattered dust points
        dust = np.zeros((SIZE, SIZE), np.uint8)
        for x, y in rng.integers(0, SIZE, (int(rng.integers(3, 25)), 2)):
            dust[y, x] = 255
        return gain(
            image, 1 + np.float32(rng.uniform(-0.25, 0.25)) * blur(dust.astype(np.float32) / 255, 0.7)
        )
    return image


def draw_clean(rng: Rng, family: str) -> tuple[Field, NDArray[np.bool_], Field | None]:
    """Image 0..1, silhouette and background of a family without defects (not for circuit tracks)."""
    draw = FAMILIES[family].draw
    if draw is None:
        raise ValueError("circuit tracks are drawn with their defects")
    drawn = draw(rng)
    inside, ground = np.ones((SIZE, SIZE), bool), None
    if isinstance(drawn, tuple):
        drawn, inside, ground = drawn
    image = np.clip(drawn, 0, 1).astype(np.float32) * np.ones((SIZE, SIZE, 3), np.float32)
    return image, inside, ground


def apply_defect(
    rng: Rng, name: str, image: Field, inside: NDArray[np.bool_], ground: Field | None
) -> tuple[Field, NDArray[np.bool_]] | None:
    """Damage `image`; None where no visible place was found."""
    looks = DEFECTS[name]
    for _ in range(_TRIES):
        damaged, soft = looks[int(rng.integers(len(looks)))](rng, image, inside, ground)
        damaged, mask = np.clip(damaged, 0, 1).astype(np.float32), soft > 0.3
        if mask.sum() < _LEAST_PIXELS:
            continue
        if float(np.abs(damaged - image).mean(-1)[mask].mean()) > _LEAST_CHANGE:
            return damaged, mask
    return None


def _draw_tracks(rng: Rng, chosen: Sequence[str]) -> tuple[Field, NDArray[np.uint8]]:
    tracks, labels = boards.draw_tracks(rng), np.zeros((SIZE, SIZE), np.uint8)
    copper, surface = tracks.copper.copy(), []
    for name in chosen:
        if name not in boards.TRACK_DEFECTS:
            surface.append(name)
            continue
        for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
            changed = boards.damage_tracks(rng, tracks, copper, name)
            if changed is not None:
                labels[changed] = CLASS_LABEL[name]
    image = np.clip(boards.render_tracks(rng, copper), 0, 1) * np.ones((SIZE, SIZE, 3), np.float32)
    for name in surface:
        result = apply_defect(rng, name, image, np.ones((SIZE, SIZE), bool), None)
        if result is not None:
            image = result[0]
            labels[result[1]] = CLASS_LABEL[name]
    return image, labels


def draw_sample(
    rng: Rng,
    families: Sequence[str],
    *,
    normal_fraction: float = 0.3,
    two_fraction: float = 0.12,
    allowed: Sequence[str] | None = None,
) -> Sample:
    """Draw one surface of 224 px as a camera sees it; `allowed` limits the defect classes."""
    weights = np.array([FAMILIES[name].weight for name in families])
    family = families[int(rng.choice(len(families), p=weights / weights.sum()))]
    count = 0 if rng.random() < normal_fraction else (2 if rng.random() < two_fraction else 1)
    chosen = _choose(rng, family, count, allowed) if count else []
    if family == "tracks":
        image, labels = _draw_tracks(rng, chosen)
        # Half of all board pictures are clean scans.
        return Sample(_camera(rng, image) if rng.random() < 0.5 else _to_bytes(image), labels, family)
    image, inside, ground = draw_clean(rng, family)
    if rng.random() < 0.6:
        image = np.clip(benign(rng, image), 0, 1)
    labels = np.zeros((SIZE, SIZE), np.uint8)
    for name in chosen:
        result = apply_defect(rng, name, image, inside, ground)
        if result is not None:
            image = result[0]
            labels[result[1]] = CLASS_LABEL[name]
    return Sample(_camera(rng, image), labels, family)


def _to_bytes(image: Field) -> NDArray[np.uint8]:
    out: NDArray[np.uint8] = np.clip(image * 255, 0, 255).astype(np.uint8)
    return out


def _camera(rng: Rng, image: Field) -> NDArray[np.uint8]:
    """Light falloff, vignette, exposure, gamma, focus and sensor noise."""
    u, _ = rotated_axes(rng)
    slope = (u - u.mean()) / (u.max() - u.min())
    image = gain(image, 1 + np.float32(rng.uniform(0, 0.6)) * slope) * np.float32(rng.uniform(0.6, 1.2))
    if rng.random() < 0.3:
        radius = np.hypot(XS - SIZE / 2, YS - SIZE / 2) / (SIZE * 0.7)
        image = gain(image, 1 - np.float32(rng.uniform(0, 0.5)) * radius * radius)
    image = np.clip(image, 0, 1) ** np.float32(rng.uniform(0.75, 1.3))
    if rng.random() < 0.5:
        image = blur(image, rng.uniform(0.3, 1.1))
    if rng.random() < 0.7:
        channels = 1 if rng.random() < 0.5 else 3
        image = image + np.float32(rng.uniform(0.002, 0.025)) * rng.standard_normal(
            (SIZE, SIZE, channels), dtype=np.float32
        )
    return _to_bytes(image)


def augment(rng: Rng, sample: Sample) -> Sample:
    """A photograph of 256 px of the sample: flips, zoom, grey, colour order, contrast, negative, blur, noise, JPEG."""
    image: Field = sample.image
    labels: Field = sample.labels
    turn = int(rng.integers(8))
    if turn & 1:
        image, labels = image[:, ::-1], labels[:, ::-1]
    if turn & 2:
        image, labels = image[::-1], labels[::-1]
    if turn & 4:
        image, labels = image.transpose(1, 0, 2), labels.T
    if rng.random() < 0.35:
        image, labels = _zoom(rng, image, labels)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    image = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_CUBIC)
    labels = cv2.resize(np.ascontiguousarray(labels), size, interpolation=cv2.INTER_NEAREST)
    field = image.astype(np.float32)
    if rng.random() < 0.5:
        mixture = rng.dirichlet([2, 2, 2]) if rng.random() < 0.5 else np.array([0.3, 0.59, 0.11])
        field = np.repeat((field @ mixture.astype(np.float32))[..., None], 3, 2)
    elif rng.random() < 0.4:
        field = field[..., rng.permutation(3)]
    if rng.random() < 0.6:
        middle = field.mean()
        field = (
            (field - middle) * np.float32(rng.uniform(0.4, 1.35)) + middle + np.float32(rng.uniform(-40, 35))
        )
    if sample.family != "tracks" and rng.random() < 0.1:  # boards keep their polarity, see boards.py
        field = 255 - field
    if rng.random() < 0.25:
        field = blur(np.ascontiguousarray(field), rng.uniform(0.5, 1.6))
    if rng.random() < 0.3:
        field = field + np.float32(rng.uniform(1, 10)) * rng.standard_normal(
            (IMAGE_SIZE, IMAGE_SIZE, 1), dtype=np.float32
        )
    image = np.clip(field, 0, 255).astype(np.uint8)
    if rng.random() < 0.35:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))]
        image = np.asarray(
            cv2.imdecode(cv2.imencode(".jpg", np.ascontiguousarray(image), quality)[1], cv2.IMREAD_COLOR)
        )
    return Sample(np.ascontiguousarray(image), np.ascontiguousarray(labels), sample.family)


def _zoom(
    rng: Rng, image: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    side = int(rng.integers(120, SIZE))
    y, x = (int(v) for v in rng.integers(0, SIZE - side + 1, 2))
    if labels.any():
        ys, xs = np.nonzero(labels)
        at = rng.integers(len(ys))
        y = int(np.clip(ys[at] - rng.integers(0, side), 0, SIZE - side))
        x = int(np.clip(xs[at] - rng.integers(0, side), 0, SIZE - side))
    return image[y : y + side, x : x + side], labels[y : y + side, x : x + side]
