"""What 500 defect types cost over 5: python -m benchmarks.types

The whole path of a frame (decode, resize, infer, judge, with the type map) on the bundled encoder, batch 8, one thread.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from benchmarks.common import pairs, report
from dapo.judge import judge
from dapo.pack import ANY_PRODUCT, Pack, Product, TypeWord
from dapo.pack_io import read_pack
from dapo.packing import load_pack_encoder
from dapo.predictor import Predictor
from dapo.preprocess import resize
from pipeline.bundled import default_pack_path
from pipeline.decode import decode

BATCH = 8


def with_types(pack: Pack, count: int) -> Pack:
    """The pack with `count` types on "*": its own rows first, then random unit vectors."""
    own = pack.tensors["text.types"][:count]
    rng = np.random.default_rng(0)
    extra = rng.standard_normal((count - len(own), own.shape[1])).astype(np.float32)
    rows = np.concatenate([own, extra / np.linalg.norm(extra, axis=1, keepdims=True)]) if len(extra) else own
    types = tuple(TypeWord(f"type-{i}", f"type {i}") for i in range(count))
    product = Product(types=tuple(word.slug for word in types))
    return replace(
        pack, types=types, products={ANY_PRODUCT: product}, tensors={**pack.tensors, "text.types": rows}
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pack = read_pack(default_pack_path())
    encoder = load_pack_encoder(pack)
    rng = np.random.default_rng(1)
    frames = []
    for _ in range(BATCH):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8)).save(buffer, "JPEG")
        frames.append(buffer.getvalue())

    def path(count: int) -> tuple[Predictor, Product]:
        chosen = with_types(pack, count)
        return Predictor(chosen, encoder=encoder, threads=options.threads), chosen.product(ANY_PRODUCT)

    def inspect(predictor: Predictor, product: Product) -> None:
        images = np.stack([resize(decode(data).pixels, predictor.image_size) for data in frames])
        for prediction in predictor.predict(images, [ANY_PRODUCT] * BATCH):
            judge(prediction, product, 640, 480)

    many, few = path(500), path(5)
    timed = pairs(lambda: inspect(*many), lambda: inspect(*few), options.pairs, warm_up=2)
    a, b = (seconds / BATCH * 1000 for seconds in timed.seconds)
    report(
        [{"types": 5, "ms a frame": b}, {"types": 500, "ms a frame": a}],
        {
            "ratio_500_to_5": round(timed.ratio, 4),
            "ms_500": round(a, 2),
            "ms_5": round(b, 2),
            "threads": options.threads,
        },
    )


if __name__ == "__main__":
    main()
