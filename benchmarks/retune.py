"""What the feature cache is worth: python -m benchmarks.retune

Scope `text` twice on the same labelled frames, the same batches and words: once as it is, from the cache, and once with every
frame read, decoded and encoded again in each epoch, in turns. `epoch_speedup` is the median over rounds of how many times
longer an epoch takes without the cache; `curve_difference` the largest difference of the losses of any epoch. Filling the
cache is one epoch of encoding, once; it is not counted. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dapo.memory import keep_freed_memory
from dapo.pack_io import read_pack
from dapo.packing import load_pack_encoder, model_from_pack
from dapo.preprocess import resize
from pipeline.bundled import default_pack_path
from trainer.data.open import open_dataset
from trainer.data.sample import Sample
from trainer.encoder.generator import DEFECT_NAMES, draw_sample
from trainer.tuning.batches import Batches
from trainer.tuning.cache import FeatureCache, Variant, mirrored
from trainer.tuning.examples import CELLS_PER_PATCH, make_examples
from trainer.tuning.frozen import Joint
from trainer.tuning.learner import Learner
from trainer.tuning.loop import History, Step, Tuning, tune
from trainer.tuning.scope import Scope

PRODUCT, FAMILY = "part", "brushed"
WORDS = ("scratch", "dent", "stain", "hole")
SIDE = 640  # px of the frames: what an industrial camera's crop has; more makes the cache look better


class Again(FeatureCache):
    """A cache that remembers nothing: each frame is read, decoded, resized and encoded when it is asked for."""

    def __init__(self, folder: Path, frozen: Joint, image_size: int, samples: Sequence[Sample]) -> None:
        super().__init__(folder, frozen, image_size)
        self._half = frozen
        self._of = dict(zip([content.encoded for content in self.fill(samples)], samples, strict=True))

    def load(self, entries: Sequence[str], variants: Sequence[Variant] | None = None) -> dict[str, Tensor]:
        images = [resize(self._of[entry].image(), self._size) for entry in entries]
        chosen = variants or [""] * len(images)
        return self._half.exact(np.stack([mirrored(i, v) for i, v in zip(images, chosen, strict=True)]))


def write_frames(folder: Path, count: int) -> None:
    """Half good, half with one defect of one of four kinds, with masks."""
    for number in range(count):
        word = WORDS[number // 2 % len(WORDS)] if number % 2 else None
        rng = np.random.default_rng([11, number])
        while True:
            drawn = draw_sample(
                rng,
                [FAMILY],
                normal_fraction=0 if word else 1,
                two_fraction=0,
                allowed=[word] if word else [],
            )
            if bool((drawn.labels > 0).sum() > 60) == bool(word):
                break
        kind = word or "good"
        image = cv2.resize(drawn.image[..., ::-1], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        (folder / kind).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / kind / f"{number:04d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        if word:
            mask = (drawn.labels == 1 + DEFECT_NAMES.index(word)).astype(np.uint8) * 255
            (folder / "masks" / kind).mkdir(parents=True, exist_ok=True)
            mask = cv2.resize(mask, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(folder / "masks" / kind / f"{number:04d}.png"), mask)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=256)
    parser.add_argument("--batch", type=int, default=Tuning.batch)
    parser.add_argument("--epochs", type=int, default=3, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as `dapo retune` does
    pack = read_pack(default_pack_path())
    encoder = load_pack_encoder(pack)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        console.print(f"drawing and encoding {options.frames} frames")
        write_frames(root / PRODUCT, options.frames)
        samples = list(open_dataset(f"folder:{root / PRODUCT}").product(PRODUCT).samples)
        frozen = Joint(pack, encoder)
        cached = FeatureCache(root / "cache", frozen, encoder.image_size)
        begun = time.perf_counter()
        contents = cached.fill(samples)
        filling = time.perf_counter() - begun
        again = Again(root / "cache", frozen, encoder.image_size, samples)
        words = {PRODUCT: WORDS}
        examples = make_examples(samples, contents, words, CELLS_PER_PATCH * encoder.grid)
        tuning = Tuning(Scope.TEXT, epochs=options.epochs, batch=options.batch)

        def run(cache: FeatureCache) -> tuple[History, float]:
            learner = Learner(model_from_pack(pack, encoder), pack, [PRODUCT])
            batches = Batches(examples, words, cache, batch=options.batch, seed=1)
            begun = time.perf_counter()

            def tell(step: Step) -> None:
                console.print(f"loss {step.total:.3f}, step {step.step} of {step.steps}", end="\r")

            history = tune(learner, frozen, batches, words, pack.generic_words, tuning, tell=tell)
            return history, (time.perf_counter() - begun) / options.epochs

        run(cached)  # warm
        rows, difference = [], 0.0
        for _ in range(options.rounds):
            (one, fast), (other, slow) = run(cached), run(again)
            difference = max(difference, *(abs(a - b) for a, b in zip(one.total, other.total, strict=True)))
            rows.append((fast, slow))
    table = Table("round", "epoch from the cache, s", "encoded again, s", "times", box=None)
    for number, (fast, slow) in enumerate(rows, 1):
        table.add_row(str(number), f"{fast:.3f}", f"{slow:.2f}", f"{slow / fast:.1f}")
    Console().print(table)
    print(
        json.dumps(
            {
                "epoch_speedup": round(statistics.median(slow / fast for fast, slow in rows), 2),
                "speedups": [round(slow / fast, 2) for fast, slow in rows],
                "curve_difference": float(f"{difference:.2e}"),
                "cached_epoch_s": round(statistics.median(fast for fast, _ in rows), 3),
                "encoded_epoch_s": round(statistics.median(slow for _, slow in rows), 3),
                "filling_s": round(filling, 2),
                "frames": options.frames,
                "batch": options.batch,
                "threads": options.threads,
                "encoder": pack.encoder.name,
            }
        )
    )


if __name__ == "__main__":
    main()
