"""AUPRO by histograms against 200 passes over all pixels, 100 images of 518 x 518: python -m benchmarks.aupro"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np

from benchmarks.common import report
from trainer.evaluation.aupro import aupro, aupro_by_passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--side", type=int, default=518)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    maps, masks = [], []
    for _ in range(options.images):
        coarse = rng.standard_normal((options.side // 16, options.side // 16))
        mask = cv2.resize(coarse, (options.side, options.side), interpolation=cv2.INTER_CUBIC) > 1.8
        maps.append((rng.random((options.side, options.side)) + 0.6 * mask).astype(np.float16))
        masks.append(mask)
    begun = time.perf_counter()
    fast = aupro(maps, masks)
    between = time.perf_counter()
    slow = aupro_by_passes(maps, masks)
    times = between - begun, time.perf_counter() - between
    if fast is None or slow is None:
        raise SystemExit("the random data has no region")
    report(
        [
            {"method": "histograms", "AUPRO": fast, "seconds": times[0]},
            {"method": "200 passes", "AUPRO": slow, "seconds": times[1]},
        ],
        {"speedup": round(times[1] / times[0], 1), "difference": abs(fast - slow), "images": options.images},
    )


if __name__ == "__main__":
    main()
