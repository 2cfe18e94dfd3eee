"""The demo's two products: what their surfaces are, which defects they have, and the prompt pack that is calibrated for them.

python -m deploy.demo.products --out deploy/demo/demo.pack
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.cli import invoke
from trainer.encoder.generator import draw_sample

_GOOD = 400  # frames to calibrate a product from: to show 1 % false alarms takes 299
_SEED = 7
_LEAST_PX = 60  # a defect of fewer pixels is none that anyone sees
_TRIES = 50


@dataclass(frozen=True, slots=True)
class Product:
    """A product of the demo.

    Attributes:
        family: of the procedural surfaces, see `trainer.encoder.generator`.
        defects: which of the generator's defects its frames show.
        types: the words that its defects are told apart by.
    """

    name: str
    family: str
    defects: tuple[str, ...]
    types: tuple[str, ...]


PRODUCTS = {
    product.name: product
    for product in (
        Product("steel-sheet", "brushed", ("scratch", "rust", "dent"), ("scratch", "rust", "dent")),
        Product("ceramic-tile", "ceramic", ("crack", "hole", "stain"), ("crack", "hole", "stain")),
    )
}


def draw(product: Product, rng: np.random.Generator, *, defective: bool) -> NDArray[np.uint8]:
    """One picture of a product: uint8 [224, 224, 3] RGB, good or with one visible defect.

    Raises:
        RuntimeError: no such surface comes out; a fault of the product's families and defects.
    """
    for _ in range(_TRIES):
        sample = draw_sample(
            rng,
            [product.family],
            normal_fraction=0 if defective else 1,
            two_fraction=0,
            allowed=product.defects if defective else (),
        )
        if bool((sample.labels > 0).sum() > _LEAST_PX) == defective:
            return sample.image
    raise RuntimeError(f"{product.name}: no {'defective' if defective else 'good'} surface in {_TRIES} tries")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pack: Path | None = None
        for number, product in enumerate(PRODUCTS.values()):
            good, made = Path(folder) / product.name, Path(folder) / f"{product.name}.pack"
            good.mkdir()
            rng = np.random.default_rng([_SEED, number])
            for index in range(_GOOD):
                cv2.imwrite(str(good / f"{index:03d}.png"), draw(product, rng, defective=False)[..., ::-1])
            words = ["--types", ",".join(product.types), *(["--pack", str(pack)] if pack else [])]
            if status := invoke(
                ["calibrate", str(good), "--product", product.name, *words, "--out", str(made)]
            ):
                sys.exit(status)
            pack = made
        assert pack is not None
        options.out.write_bytes(pack.read_bytes())


if __name__ == "__main__":
    main()
