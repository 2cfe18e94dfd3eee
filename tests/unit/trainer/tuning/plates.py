"""Two procedural products with two kinds of defect each, small enough to learn in seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dapo.encoder import Encoder
from dapo.model import DapoModel
from dapo.pack import Pack
from dapo.packing import make_pack
from dapo.testing import small_encoder
from trainer.data.open import open_dataset
from trainer.data.sample import Sample

SIDE = 96
PRODUCTS = ("plate", "ring")
WORDS = ("hole", "scratch")


def plates(root: Path, *, good: int = 8, each: int = 4, masks: bool = True, seed: int = 0) -> list[Sample]:
    """Write the frames as plain folders, and open them."""
    for number, product in enumerate(PRODUCTS):
        for kind, count in (("good", good), *((word, each) for word in WORDS)):
            for n in range(count):
                drawn = seed + 1000 * number + 100 * ("good", *WORDS).index(kind) + n
                _write(root / product, kind, n, drawn, masks)
    data = open_dataset(f"folder:{root}")
    return [sample for name in data.products() for sample in data.product(name).samples]


def _write(folder: Path, kind: str, n: int, seed: int, masks: bool) -> None:
    rng = np.random.default_rng(seed)
    image = np.clip(rng.normal(128, 12, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    x, y = (int(v) for v in rng.integers(20, SIDE - 20, 2))
    if kind == "hole":
        cv2.circle(mask, (x, y), 10, 255, -1)
    elif kind == "scratch":
        cv2.line(mask, (x - 18, y - 12), (x + 18, y + 12), 255, 5)
    image[mask > 0] = 10 if kind == "hole" else 250
    (folder / kind).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / kind / f"{n}.png"), image)
    if kind != "good" and masks:
        (folder / "masks" / kind).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "masks" / kind / f"{n}.png"), mask)


def base_pack(encoder: Encoder | None = None) -> tuple[Pack, Encoder]:
    """A pack of a fresh model, and its encoder."""
    encoder = encoder or small_encoder()
    model = DapoModel(encoder, prompts=2, context=2, tokens=2)
    return make_pack(model, ["hole", "scratch"]), encoder
