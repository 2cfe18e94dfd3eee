"""The training pool: procedural surfaces as stem features, computed once.

The stem is frozen, so its features of an image never change: the transformer trains on a pool of features on disk
(139 KB an image in float16) and never sees a pixel again. OpenVINO runs the stem three times as fast as eager PyTorch
on a CPU (benchmark: `python -m benchmarks.stem`), which makes 50,000 images a matter of minutes on two cores.

    python -m trainer.encoder.features --out POOL --count 50000 --seed 1
    python -m trainer.encoder.features --out VALIDATION --count 1500 --seed 2 --families validation
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dapo.preprocess import CLIP_MEAN, CLIP_STD
from dapo.tiny import IMAGE_SIZE, PATCH_SIZE, STEM_CHANNELS
from trainer.encoder.generator import (
    FAMILIES,
    TRAIN_FAMILIES,
    VALIDATION_FAMILIES,
    augment,
    draw_sample,
)

GRID = IMAGE_SIZE // PATCH_SIZE
CELLS = 2 * GRID  # labels are kept twice as fine as the patch grid
_BATCH = 16  # larger batches fall out of the cache: 11 ms an image against 12
_FAMILY_INDEX = {name: index for index, name in enumerate(FAMILIES)}
NOT_DRAWN = 255


@dataclass(frozen=True)
class Pool:
    """A pool on disk, memory-mapped.

    Attributes:
        features: float16 [N, 272, 16, 16], raw stem features.
        types: uint8 [N, 32, 32], the defect class that covers most of the cell (0: none).
        cover: uint8 [N, 32, 32], how much of the cell it covers (255: all).
        family: uint8 [N], index into FAMILIES.
    """

    features: NDArray[np.float16]
    types: NDArray[np.uint8]
    cover: NDArray[np.uint8]
    family: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.family)


_ARRAYS = {
    "features": (np.float16, (STEM_CHANNELS, GRID, GRID)),
    "types": (np.uint8, (CELLS, CELLS)),
    "cover": (np.uint8, (CELLS, CELLS)),
    "family": (np.uint8, ()),
}


def open_pool(folder: Path) -> Pool:
    """Open a finished pool; small arrays are read, features stay on disk."""
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r" if name == "features" else None)
        for name in _ARRAYS
    }
    drawn = int((arrays["family"] != NOT_DRAWN).sum())
    if drawn < len(arrays["family"]):
        raise SystemExit(f"{folder}: {drawn} of {len(arrays['family'])} images drawn; finish it first")
    return Pool(**arrays)


def cell_labels(labels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Reduce a label map [256, 256] to cells [32, 32]: the commonest defect and its cover (255: all of the cell)."""
    side = labels.shape[0] // CELLS
    blocks = labels.reshape(CELLS, side, CELLS, side)
    best = np.zeros((CELLS, CELLS), np.uint8)
    cover = np.zeros((CELLS, CELLS), np.float32)
    for defect in np.unique(labels[labels > 0]):
        share = (blocks == defect).mean((1, 3), dtype=np.float32)
        better = share > cover
        best[better], cover[better] = defect, share[better]
    return best, np.ceil(cover * 255).astype(np.uint8)


def normalised(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """uint8 RGB images -> float32 [B, 3, S, S] as CLIP normalises."""
    batch = np.stack(images).astype(np.float32) / 255
    batch = (batch - np.asarray(CLIP_MEAN, np.float32)) / np.asarray(CLIP_STD, np.float32)
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2))


class FastStem:
    """The stem on OpenVINO, one thread, float32."""

    def __init__(self) -> None:
        import torch

        from dapo.runtime import converted, silent_openvino
        from trainer.encoder.stem import pretrained_stem

        example = torch.zeros(_BATCH, 3, IMAGE_SIZE, IMAGE_SIZE)
        model = converted(pretrained_stem(), example)
        model.reshape([-1, 3, IMAGE_SIZE, IMAGE_SIZE])
        options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self._run = silent_openvino().Core().compile_model(model, "CPU", options)

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """uint8 RGB images [256, 256, 3] -> float32 [B, 272, 16, 16]."""
        features: NDArray[np.float32] = self._run(normalised(images))[0]
        return features


def _draw(folder: Path, seed: int, families: Sequence[str], part: int, parts: int) -> None:
    cv2.setNumThreads(1)  # one thread a process: pools of threads that share two cores wait for each other
    stem = FastStem()
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in _ARRAYS}
    count = len(arrays["family"])
    for first in range(part * _BATCH, count, parts * _BATCH):
        rows = range(first, min(count, first + _BATCH))
        if (arrays["family"][rows.start : rows.stop] != NOT_DRAWN).all():
            continue  # drawn before an interruption
        # One generator per image: the pool does not depend on the number of processes.
        samples = [
            augment(rng, draw_sample(rng, families))
            for rng in (np.random.default_rng([seed, row]) for row in rows)
        ]
        arrays["features"][rows.start : rows.stop] = stem([sample.image for sample in samples])
        for row, sample in zip(rows, samples, strict=True):
            arrays["types"][row], arrays["cover"][row] = cell_labels(sample.labels)
        for row, sample in zip(rows, samples, strict=True):
            arrays["family"][row] = _FAMILY_INDEX[sample.family]


def make_pool(folder: Path, count: int, seed: int, families: Sequence[str], processes: int) -> None:
    """Draw `count` images into `folder`; an interrupted run goes on where it stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = {"count": count, "seed": seed, "families": list(families)}
    note = folder / "pool.json"
    if note.exists() and json.loads(note.read_text()) != identity:
        raise SystemExit(f"{folder}: holds another pool; choose another folder or delete it")
    if not note.exists():
        for name, (dtype, shape) in _ARRAYS.items():
            array = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (count, *shape))
            if name == "family":
                array[:] = NOT_DRAWN
            array.flush()
        note.write_text(json.dumps(identity, indent=1))
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # for the processes to come
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_draw, args=(folder, seed, families, part, processes), daemon=True)
        for part in range(processes)
    ]
    for worker in workers:
        worker.start()
    columns = (TextColumn("surfaces"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("", total=count)
        while any(worker.is_alive() for worker in workers):
            family = np.load(folder / "family.npy", mmap_mode="r")
            progress.update(task, completed=int((family != NOT_DRAWN).sum()))
            for worker in workers:
                worker.join(1.0)
    if any(worker.exitcode for worker in workers):
        raise SystemExit(f"{folder}: drawing stopped early; run the same command again to go on")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--families", choices=("train", "validation"), default="train")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    families = TRAIN_FAMILIES
    if (
        options.families == "validation"
    ):  # half of families never trained on, half fresh draws of trained ones
        families = (*VALIDATION_FAMILIES * (len(TRAIN_FAMILIES) // len(VALIDATION_FAMILIES)), *TRAIN_FAMILIES)
    started = time.monotonic()
    make_pool(options.out, options.count, options.seed, families, options.processes)
    seconds = time.monotonic() - started
    print(json.dumps({"images": options.count, "seconds": round(seconds, 1)}))


if __name__ == "__main__":
    main()
