"""Photographs with their physical groups, cut into halves that share none.

The manifest beside the data (manifest.csv: file, product, note, source_path) says where each came from. A tile, a board or an
image that windows were cut from is a group; where neighbours in the numbering tend to be one strip or module, halves are
contiguous.

    python -m trainer.paper.photographs --data PHOTOGRAPHS --out halves

makes a tree of links of each half (halves/first, halves/second) and halves/groups.csv, for `dapo retune` and `dapo evaluate`.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dapo.errors import SourceError
from pipeline.atomic import explained
from trainer.data.dataset import choose
from trainer.data.masks import MaskFile
from trainer.data.open import open_dataset
from trainer.data.reading import read_rows
from trainer.data.sample import Sample

MANIFEST = "manifest.csv"


@dataclass(frozen=True)
class Origin:
    """Where a photograph came from: its group, and its place in the source's numbering."""

    group: str | None
    number: int


def photographs(root: Path, products: Sequence[str] = ()) -> dict[str, list[Sample]]:
    """Frames per product, each with its group where the manifest says one.

    Raises:
        SourceError: there is no manifest, or it lacks a frame.
    """
    origins = _origins(root / MANIFEST)
    data = open_dataset(str(root))
    found: dict[str, list[Sample]] = {}
    for name in choose(data.products(), products, str(root)):
        found[name] = []
        for sample in data.product(name).samples:
            if sample.key not in origins:
                raise SourceError(f"{root / MANIFEST}: has no row for {sample.key}.")
            found[name].append(replace(sample, group=origins[sample.key].group))
    return found


def halves(root: Path, samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """One product's frames in two halves of the same mixture, whole groups; without groups, contiguous ones.

    A type that lies in one group alone is cut in the middle of its numbering: half of it is better than none.
    """
    origins = _origins(root / MANIFEST)
    side: dict[str, int] = {}
    if all(sample.group is not None for sample in samples):
        own: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            own[str(sample.group)].append(sample)
        taken: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        for group in sorted(own, key=lambda name: (-len(own[name]), name)):
            fill = [np.mean([taken[half][_kind(s)] for s in own[group]]) for half in (0, 1)]
            half = int(fill[1] < fill[0])
            for sample in own[group]:
                side[sample.key] = half
                taken[half][_kind(sample)] += 1
    kinds: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        kinds[_kind(sample)].append(sample)
    for those in kinds.values():
        if len({side.get(sample.key) for sample in those}) == 1:
            ordered = sorted(those, key=lambda sample: (origins[sample.key].number, sample.key))
            for place, sample in enumerate(ordered):
                side[sample.key] = int(place >= len(ordered) / 2)
    first, second = ([s for s in samples if side[s.key] == half] for half in (0, 1))
    return first, second


def linked(root: Path, out: Path) -> dict[str, int]:
    """Both halves of all products as trees of links, and the group of each frame as `--groups` reads it; frames of each.

    Raises:
        OutputError: a link can't be made.
    """
    rows, counts = [], {"first": 0, "second": 0}

    def link(side: str, path: Path) -> None:
        there = out / side / path.relative_to(root)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.unlink(missing_ok=True)
        there.symlink_to(path.resolve())

    with explained(out):
        for name, own in photographs(root).items():
            for side, half in zip(counts, halves(root, own), strict=True):
                for extra in (root / name).glob("*.json"):  # what the numbers in its masks mean
                    link(side, extra)
                for sample in half:
                    masks = {r.mask.path for r in sample.regions if isinstance(r.mask, MaskFile)}
                    for path in (root / sample.key, *masks):
                        link(side, path)
                    rows.append((sample.key, sample.group or sample.key))
                    counts[side] += 1
        with open(out / "groups.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "group"), *sorted(rows)])
    return counts


def drawn(samples: Sequence[Sample], defective: int, good: int, seed: int) -> list[Sample]:
    """So many defective frames, types in turn, and so many good ones; fewer where there are no more. Seeded, and nested: of the
    same seed a larger draw holds the smaller."""
    rng = np.random.default_rng(seed)
    kinds: dict[str, list[Sample]] = defaultdict(list)
    for index in rng.permutation(len(samples)):
        kinds[_kind(samples[index])].append(samples[index])
    chosen = kinds.pop("good", [])[:good]
    queues = [kinds[name] for name in sorted(kinds)]
    turns = [
        queue[turn]
        for turn in range(max(map(len, queues), default=0))
        for queue in queues
        if turn < len(queue)
    ]
    return [*turns[:defective], *chosen]


def _kind(sample: Sample) -> str:
    return sample.word or "several"


def _origins(path: Path) -> Mapping[str, Origin]:
    found = {}
    for _, row in read_rows(path, ("file", "product", "source_path"), ("note",)):
        source = Path(row["source_path"])
        digits = re.sub(r"\D", "", source.stem)[-9:]
        found[row["file"]] = Origin(_group(row, source), int(digits or "0"))
    return found


def _group(row: Mapping[str, str], source: Path) -> str | None:
    if "tile group" in row["note"]:
        return row["note"].split(";")[0].strip()
    if row["product"] == "pcb_crop":
        return source.parts[1]  # windows of boards of one design
    return None  # all good boards of `pcb` are of one design: its halves are contiguous instead


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="photographs with their manifest.csv")
    parser.add_argument("--out", type=Path, default=Path("halves"))
    options = parser.parse_args()
    print(json.dumps(linked(options.data, options.out)))


if __name__ == "__main__":
    main()
