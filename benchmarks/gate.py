"""What the gate is worth: python -m benchmarks.gate

False promotion: pairs of packs with no true difference, over the whole table of worlds; the share that is promoted by
superiority, and its upper 95 % bound. Power: the share of challengers with a true gain of 3 points that are promoted with
300 parts, and the parts that 80 % would need. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from trainer.gate.bootstrap import paired_difference, rate_bounds
from trainer.gate.simulation import Setting, draw

AUROCS, SHARES, CORRELATIONS = (0.82, 0.90, 0.95), (0.1, 0.5), (0.5, 0.7, 0.9)
PARTS, GAIN = 300, 0.03
REFERENCE = (0.90, 0.5, 0.9)
_CHUNK = 50


def _run(job: tuple[Setting, int, tuple[int, int, int], int]) -> tuple[int, list[float]]:
    """(promoted, parts for 80 % as each test estimates them) of so many tests of one world."""
    setting, count, seed, draws = job
    rng = np.random.default_rng(seed)
    promoted, needed = 0, []
    for _ in range(count):
        found = paired_difference([draw(setting, rng)], seed=int(rng.integers(2**31)), draws=draws)
        promoted += found.lower() > 0
        needed.append(float(found.parts_for(GAIN)))
    return promoted, needed


def _all(
    settings: list[Setting], pairs: int, seed: int, draws: int, what: str
) -> dict[Setting, tuple[int, int, float]]:
    """World -> (promoted, tests, median of the parts needed)."""
    jobs = [
        (setting, min(_CHUNK, pairs - first), (seed, number, first), draws)
        for number, setting in enumerate(settings)
        for first in range(0, pairs, _CHUNK)
    ]
    found: dict[Setting, list[tuple[int, int, list[float]]]] = {setting: [] for setting in settings}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        results = track(pool.map(_run, jobs), what, total=len(jobs), console=Console(stderr=True))
        for (setting, count, _, _), (promoted, needed) in zip(jobs, results, strict=True):
            found[setting].append((promoted, count, needed))
    return {
        setting: (
            sum(promoted for promoted, _, _ in parts),
            sum(count for _, count, _ in parts),
            float(np.median([n for _, _, needed in parts for n in needed])),
        )
        for setting, parts in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pairs", type=int, default=10_000, help="without a true difference, over all worlds"
    )
    parser.add_argument("--power-pairs", type=int, default=500, help="with one, of each world")
    parser.add_argument("--draws", type=int, default=1000, help="of each bootstrap")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    worlds = list(itertools.product(AUROCS, SHARES, CORRELATIONS))
    same = [Setting(a, 0.0, s, c, PARTS) for a, s, c in worlds]
    each = -(-options.pairs // len(same))
    none = _all(same, each, options.seed, options.draws, "no difference")
    better = [Setting(a, GAIN, s, c, PARTS) for a, s, c in worlds]
    gain = _all(better, options.power_pairs, options.seed + 10**6, options.draws, "3 points")
    promoted = sum(p for p, _, _ in none.values())
    total = sum(n for _, n, _ in none.values())
    table = Table("AUROC", "defective", "correlation", "false promotion", "power", "parts for 80 %", box=None)
    rows = []
    for (a, s, c), one, two in zip(worlds, none.values(), gain.values(), strict=True):
        power = two[0] / two[1]
        rows.append(
            {
                "auroc": a,
                "share": s,
                "correlation": c,
                "false_promotion": round(one[0] / one[1], 4),
                "power": round(power, 3),
                "parts_for_80_percent": round(two[2]),
            }
        )
        table.add_row(f"{a}", f"{s:.0%}", f"{c}", f"{one[0] / one[1]:.3f}", f"{power:.2f}", f"{two[2]:.0f}")
    Console().print(table)
    [reference] = [r for r in rows if (r["auroc"], r["share"], r["correlation"]) == REFERENCE]
    print(
        json.dumps(
            {
                "pairs": total,
                "false_promotion": round(promoted / total, 4),
                "false_promotion_upper": round(rate_bounds(promoted, total)[1], 4),
                "power_reference": reference["power"],
                "parts": PARTS,
                "gain": GAIN,
                "table": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
