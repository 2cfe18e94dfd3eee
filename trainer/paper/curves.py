"""What labelled frames are worth: retuning on photographs, by how many of them there are.

    python -m trainer.paper.curves --data PHOTOGRAPHS --out curves

For each number of labelled defective frames and of good ones, a pack is tuned on frames of one half of every product's
physical groups and measured on the other half; then the halves change places. A product takes part in a cell where its half
has enough frames; "half" means all that it has, at most 100 defective and 60 good. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dapo.encoder import Encoder
from dapo.pack import Pack
from dapo.pack_io import read_pack
from dapo.packing import load_pack_encoder
from pipeline.atomic import write_whole
from pipeline.bundled import default_pack_path
from trainer.data.sample import Sample
from trainer.paper.kept import Kept
from trainer.paper.photographs import drawn, halves, photographs
from trainer.paper.plot import Line, plot
from trainer.retune import CACHE
from trainer.tuning.loop import Tuning
from trainer.tuning.memories import Memories
from trainer.tuning.run import Plan, retune
from trainer.tuning.scope import Scope
from trainer.tuning.sides import Sides

HALF = -1  # all that a half has, up to `_MOST`
LABELLED, GOOD = (0, 10, 30, HALF), (0, 20, HALF)
_MOST_LABELLED, _MOST_GOOD = 100, 60
METRICS = (("image", "auroc"), ("pixel", "auroc"), ("types", "accuracy"))
TITLES = {"image": "image AUROC", "pixel": "pixel AUROC", "types": "types"}
GOALS = {"image": 0.96, "pixel": 0.94, "types": 0.8}


@dataclass(frozen=True)
class Cell:
    """So many labelled defective frames and good ones; `HALF` for all."""

    labelled: int
    good: int

    @property
    def name(self) -> str:
        return f"{_said(self.labelled)} labelled, {_said(self.good)} good"


@dataclass(frozen=True)
class Found:
    """A product in a cell: figures by metric, and how many frames it was tuned on, both means over directions."""

    figures: Mapping[str, float | None]
    labelled: float
    good: float


def run_cell(
    cell: Cell,
    products: Mapping[str, tuple[Sequence[Sample], Sequence[Sample]]],
    base: Pack,
    encoder: Encoder,
    *,
    scope: Scope,
    tuning: Mapping[str, Any],
    seed: int,
    cache: Path,
) -> dict[str, Found]:
    """Tune and measure in both directions."""
    rows: dict[str, list[tuple[dict[str, float | None], int, int]]] = defaultdict(list)
    for learned in (0, 1):
        train: list[Sample] = []
        test: list[Sample] = []
        counts: dict[str, tuple[int, int]] = {}
        for name, sides in products.items():
            chosen = chosen_frames(cell, sides[learned], seed)
            if chosen is None:
                continue
            train += chosen
            test += sides[1 - learned]
            bad = sum(sample.defective for sample in chosen)
            counts[name] = (bad, len(chosen) - bad)
        if not counts:
            continue
        scopes = [scope] if cell.labelled else []
        scopes += [Scope.REFERENCE] if cell.good else []
        plan = Plan(tuple(scopes), Tuning(scope, seed=seed, **tuning), cache, Memories(seed=seed), seed=seed)
        done = retune(base, encoder, Sides(tuple(train), (), tuple(test)), plan)
        assert done.after is not None
        for name, (bad, good) in counts.items():
            figures = {part: (done.after.products[name][part] or {}).get(metric) for part, metric in METRICS}
            rows[name].append((figures, bad, good))
    return {
        name: Found(
            {part: _mean([figures[part] for figures, _, _ in those]) for part, _ in METRICS},
            float(np.mean([bad for _, bad, _ in those])),
            float(np.mean([good for _, _, good in those])),
        )
        for name, those in rows.items()
    }


def chosen_frames(cell: Cell, half: Sequence[Sample], seed: int) -> list[Sample] | None:
    """The frames of one half that a product is tuned on; None where there are too few for this cell.

    A product without any good frame takes part in no cell of half of the good ones but the last, which is all that a half has.
    """
    bad = sum(sample.defective for sample in half)
    good = len(half) - bad
    wanted = (
        min(bad, _MOST_LABELLED) if cell.labelled == HALF else cell.labelled,
        min(good, _MOST_GOOD) if cell.good == HALF else cell.good,
    )
    nothing_to_add = cell.good == HALF and not good and (cell.labelled != HALF or not bad)
    if wanted[0] > bad or wanted[1] > good or nothing_to_add:
        return None
    return drawn(half, *wanted, seed)


def table(results: Mapping[Cell, Mapping[str, Found]], products: Sequence[str]) -> str:
    """Markdown: one table per metric, a column per cell, and the mean over the products that have a figure."""
    lines = []
    for part, _ in METRICS:
        lines += [f"### {TITLES[part]}", ""]
        lines.append("| product | " + " | ".join(cell.name for cell in results) + " |")
        lines.append("|---" * (len(results) + 1) + "|")
        for name in products:
            cells = [_entry(found.get(name), part) for found in results.values()]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        means = [_mean([one.figures[part] for one in found.values()]) for found in results.values()]
        lines.append("| **mean** | " + " | ".join("-" if m is None else f"**{m:.3f}**" for m in means) + " |")
        lines.append("")
    return "\n".join(lines)


def _entry(found: Found | None, part: str) -> str:
    value = None if found is None else found.figures[part]
    if found is None or value is None:
        return "-"
    return f"{value:.3f} ({found.labelled:.0f}+{found.good:.0f})"


def lines_of(results: Mapping[Cell, Mapping[str, Found]], part: str, everywhere: Sequence[str]) -> list[Line]:
    """Mean over the products that are in every cell, against the number of labelled frames; a line per number of good ones."""
    found = []
    for good in GOOD:
        points = []
        for cell, those in results.items():
            values = [those[name].figures[part] for name in everywhere if name in those]
            mean = _mean(values)
            if cell.good == good and mean is not None:
                points.append((float(np.mean([those[name].labelled for name in everywhere])), mean))
        found.append(Line(f"{_said(good)} good frames", sorted(points)))
    return found


def _said(count: int) -> str:
    return "half" if count == HALF else str(count)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="photographs with their manifest.csv")
    parser.add_argument("--pack", type=Path, default=default_pack_path())
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("curves"))
    parser.add_argument("--scope", choices=("text", "full", "stem"), default="stem")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cells", default="", help="only these, such as half+half,0+20")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base = read_pack(options.pack)
    encoder = load_pack_encoder(base, options.weights)
    frames = photographs(options.data)
    sides = {name: halves(options.data, own) for name, own in frames.items()}
    tuning = {} if options.epochs is None else {"epochs": options.epochs}
    cells = [Cell(labelled, good) for good in GOOD for labelled in LABELLED]
    if options.cells:
        wanted = set(options.cells.split(","))
        cells = [cell for cell in cells if f"{_said(cell.labelled)}+{_said(cell.good)}" in wanted]
    setup = {
        "pack": base.configuration_hash,
        "scope": options.scope,
        "seed": options.seed,
        "frames": sum(map(len, frames.values())),
        "tuning": tuning,
        "memories": asdict(Memories(seed=options.seed)),
    }
    keep = Kept(options.out / "cells.json", setup, len(cells))
    results: dict[Cell, dict[str, Found]] = {}
    for cell in cells:

        def work(cell: Cell = cell) -> dict[str, Any]:
            found = run_cell(
                cell,
                sides,
                base,
                encoder,
                scope=Scope(options.scope),
                tuning=tuning,
                seed=options.seed,
                cache=CACHE,
            )
            return {name: asdict(one) for name, one in found.items()}

        results[cell] = {name: Found(**one) for name, one in keep(cell.name, work).items()}
    text = table(results, sorted(frames))
    everywhere = [name for name in sorted(frames) if all(name in found for found in results.values())]
    with write_whole(options.out / "curves.md") as file:
        file.write(text.encode())
    for part, _ in METRICS:
        with write_whole(options.out / f"{part}.svg") as file:
            file.write(
                plot(lines_of(results, part, everywhere), "labelled defective frames", TITLES[part]).encode()
            )
    print(text)
    best = results.get(Cell(HALF, HALF), {})
    print(
        json.dumps(
            {
                "scope": options.scope,
                "seed": options.seed,
                "goal": {part: _mean([one.figures[part] for one in best.values()]) for part in GOALS},
                "asked": GOALS,
                "cells": {
                    cell.name: {
                        part: _mean([one.figures[part] for one in found.values()]) for part, _ in METRICS
                    }
                    for cell, found in results.items()
                },
                "in_every_cell": everywhere,
                "minutes": round(keep.minutes, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
