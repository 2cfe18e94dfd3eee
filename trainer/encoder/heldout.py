"""Held-out surfaces as a labelled tree in MVTec-AD layout: families that no training step has met."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from trainer.encoder.generator import DEFECT_NAMES, HELD_OUT_FAMILIES, draw_sample

PER_FAMILY = 120
_SEED = 20_260
_NORMAL_FRACTION = 0.4


def write_heldout(folder: Path, per_family: int = PER_FAMILY) -> None:
    """Draw the held-out families into `folder`; the same pictures every time."""
    for number, family in enumerate(HELD_OUT_FAMILIES):
        rng = np.random.default_rng([_SEED, number])
        for index in range(per_family):
            sample = draw_sample(rng, [family], normal_fraction=_NORMAL_FRACTION, two_fraction=0)
            kinds = np.unique(sample.labels[sample.labels > 0])
            name = DEFECT_NAMES[int(kinds[0]) - 1] if len(kinds) else "good"
            path = folder / family / "test" / name / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), sample.image[..., ::-1])
            if len(kinds):
                mask = folder / family / "ground_truth" / name / f"{index:04d}_mask.png"
                mask.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(mask), (sample.labels > 0).astype(np.uint8) * 255)
