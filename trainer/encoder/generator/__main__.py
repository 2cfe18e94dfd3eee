"""Look at the generator.

python -m trainer.encoder.generator --sheet OUT.png [--seed N]   families and defects as a contact sheet
python -m trainer.encoder.generator --bench                      images per second
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.encoder.generator import (
    DEFECT_NAMES,
    FAMILIES,
    TRAIN_FAMILIES,
    augment,
    defects_for,
    draw_sample,
)

_THUMB, _COLUMNS = 128, 8


def _thumb(image: NDArray[np.uint8], labels: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    outline = cv2.morphologyEx((labels > 0).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    marked = image.copy()
    marked[outline > 0] = (255, 0, 0)
    small = np.asarray(cv2.resize(marked, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA), np.uint8)
    cv2.putText(small, title, (2, 10), 0, 0.35, (255, 255, 0), 1, cv2.LINE_AA)
    return small


def sheet(seed: int) -> NDArray[np.uint8]:
    """Two normals of every family, then six samples of every defect class."""
    rng, thumbs = np.random.default_rng(seed), []
    for family in FAMILIES:
        for _ in range(2):
            sample = draw_sample(rng, [family], normal_fraction=1)
            thumbs.append(_thumb(sample.image, sample.labels, family))
    while len(thumbs) % _COLUMNS:
        thumbs.append(np.zeros((_THUMB, _THUMB, 3), np.uint8))
    for name in DEFECT_NAMES:
        fitting = [family for family in TRAIN_FAMILIES if name in defects_for(family)]
        for _ in range(_COLUMNS):
            family = fitting[int(rng.integers(len(fitting)))]
            sample = draw_sample(rng, [family], normal_fraction=0, two_fraction=0, allowed=[name])
            thumbs.append(_thumb(sample.image, sample.labels, f"{name}/{family}"))
    rows = [np.hstack(thumbs[i : i + _COLUMNS]) for i in range(0, len(thumbs), _COLUMNS)]
    return np.vstack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--bench", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.sheet:
        cv2.imwrite(str(options.sheet), sheet(options.seed)[..., ::-1])
    if options.bench:
        cv2.setNumThreads(1)
        rng, count, started = np.random.default_rng(options.seed), 200, time.perf_counter()
        for _ in range(count):
            augment(rng, draw_sample(rng, TRAIN_FAMILIES))
        print(json.dumps({"images_per_second": round(count / (time.perf_counter() - started), 1)}))


if __name__ == "__main__":
    main()
