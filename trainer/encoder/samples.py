"""The demo's frames: procedural surfaces, a few with defects, and good ones to calibrate the product "sample" from.

python -m trainer.encoder.samples --frames pipeline/samples --good GOOD_FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from trainer.encoder.generator import draw_sample

# (family, defect or ""): what a visitor recognises at once.
FRAMES = (
    ("brushed", ""), ("brushed", "scratch"), ("ceramic", "crack"), ("ceramic", ""), ("casting", "blowhole"), ("tracks", ""),
    ("tracks", "open-circuit"), ("tracks", "spur"), ("perforated", ""), ("plastic", "bubble"), ("leather", "cut"),
    ("strip", "patches"),
)  # fmt: skip
_SEED = 7
_GOOD_PER_FAMILY = 40


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--good", type=Path, required=True)
    options = parser.parse_args()
    for folder in (options.frames, options.good):
        folder.mkdir(parents=True, exist_ok=True)
    for number, (family, defect) in enumerate(FRAMES):
        rng = np.random.default_rng([_SEED, number])
        while True:
            allowed = [defect] if defect else []
            sample = draw_sample(
                rng, [family], normal_fraction=0 if defect else 1, two_fraction=0, allowed=allowed
            )
            if bool(sample.labels.sum() > 60) == bool(defect):
                break
        path = options.frames / f"{number + 1:02d}-{family}-{defect or 'good'}.png"
        cv2.imwrite(str(path), sample.image[..., ::-1])
    for number, family in enumerate(dict.fromkeys(family for family, _ in FRAMES)):
        rng = np.random.default_rng([_SEED, 100, number])
        for index in range(_GOOD_PER_FAMILY):
            sample = draw_sample(rng, [family], normal_fraction=1)
            cv2.imwrite(str(options.good / f"{family}-{index:03d}.png"), sample.image[..., ::-1])


if __name__ == "__main__":
    main()
