"""docs/encoder.md: what dapo-tiny is worth, measured.

    python -m trainer.encoder.report --data TREE --packs seed1.pack seed2.pack seed3.pack

Held-out surface families and real photographs (TREE in MVTec-AD layout; default: the environment's DAPO_EVAL_DATA),
zero-shot: hand-written prompts and DAPO packs, mean and spread over the packs' seeds, beside three training-free
baselines. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dapo.encoder import Encoder, load_encoder
from dapo.handwritten import make_handwritten_pack
from dapo.inspection import Prediction
from dapo.pack import Pack
from dapo.pack_io import read_pack
from dapo.predictor import Predictor
from dapo.preprocess import resize
from trainer.data.dataset import ProductData
from trainer.data.open import open_dataset
from trainer.encoder.heldout import write_heldout
from trainer.evaluation.baselines import BASELINES, score
from trainer.evaluation.protocol import Outcome, figures, mean_figures, pack_for, predict

METRICS = (
    ("image", "auroc"),
    ("pixel", "auroc"),
    ("pixel", "aupro"),
    ("types", "accuracy"),
    ("types", "chance"),
)
Results = dict[str, dict[str, Any]]  # product (and "mean") -> figures
Runner = Callable[[ProductData], list[Outcome]]


def by_predictor(pack: Pack, encoder: Encoder, data: Sequence[ProductData]) -> Runner:
    """Run a pack under default scoring."""
    predictor = Predictor(
        pack_for(pack, encoder, data, "default"), encoder=encoder, threads=torch.get_num_threads()
    )
    return lambda product: predict(predictor, product)


def by_baseline(name: str, size: int) -> Runner:
    """Run a saliency baseline; it has no types."""

    def run(product: ProductData) -> list[Outcome]:
        outcomes = []
        for sample in product.samples:
            saliency = BASELINES[name](resize(sample.image(), size)) / np.float32(255)
            prediction = Prediction(
                score(saliency),
                saliency.astype(np.float16),
                np.zeros(saliency.shape, np.uint16),
                np.zeros(0, np.float32),
            )
            outcomes.append(Outcome(sample, prediction, None))
        return outcomes

    return run


def measure(run: Runner, data: Sequence[ProductData], size: int, *, types: bool) -> Results:
    """Figures of every product and their unweighted mean."""
    found: Results = {}
    for product in data:
        outcomes = run(product)
        if not types:
            outcomes = [Outcome(o.sample, o.prediction, None) for o in outcomes]
        found[product.name] = figures(product, outcomes, size, (), types=types)
    return {**found, "mean": mean_figures(list(found.values()))}


def spread(runs: Sequence[Results]) -> dict[str, dict[str, tuple[float, float] | None]]:
    """Product -> metric -> (mean, sample standard deviation) over the runs."""
    table: dict[str, dict[str, tuple[float, float] | None]] = {}
    for name in runs[0]:
        row = table.setdefault(name, {})
        for part, metric in METRICS:
            values = [_get(run[name], part, metric) for run in runs]
            known = [value for value in values if value is not None]
            deviation = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
            row[f"{part} {metric}"] = (float(np.mean(known)), deviation) if known else None
    return table


def _get(figure: Mapping[str, Any], part: str, metric: str) -> float | None:
    value: float | None = (figure.get(part) or {}).get(metric)
    return value


def markdown(title: str, methods: Mapping[str, Sequence[Results]]) -> str:
    """One table per metric: products down, methods across."""
    blocks = [f"## {title}\n"]
    tables = {name: spread(runs) for name, runs in methods.items()}
    for part, metric in METRICS[:-1]:
        key = f"{part} {metric}"
        shown = {name: table for name, table in tables.items() if any(row[key] for row in table.values())}
        chance = key == "types accuracy"
        head = ["product", *shown, *(["chance"] if chance else [])]
        lines = [
            f"### {key.replace('auroc', 'AUROC').replace('aupro', 'AUPRO')}\n",
            "| " + " | ".join(head) + " |",
            "|" + "---|" * len(head),
        ]
        for product in next(iter(shown.values())):
            cells = [_cell(table[product][key], len(methods[name]) > 1) for name, table in shown.items()]
            if chance:
                cells.append(_cell(next(iter(shown.values()))[product]["types chance"], False))
            if any(cell != "-" for cell in cells):
                lines.append(
                    "| " + " | ".join([f"**{product}**" if product == "mean" else product, *cells]) + " |"
                )
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _cell(value: tuple[float, float] | None, several: bool) -> str:
    if value is None:
        return "-"
    return f"{value[0]:.3f} ± {value[1]:.3f}" if several else f"{value[0]:.3f}"


def load_tree(root: Path) -> list[ProductData]:
    """All products of a tree, with the built-in words."""
    data = open_dataset(str(root))
    return [data.product(name).test for name in data.products()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("DAPO_EVAL_DATA"))
    parser.add_argument("--packs", type=Path, nargs="+", required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/encoder.md"))
    parser.add_argument(
        "--notes", type=Path, default=Path("docs/encoder-notes.md"), help="text before the tables"
    )
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    encoder = load_encoder("dapo-tiny", path=options.weights)
    packs = [read_pack(path) for path in options.packs]
    hand = make_handwritten_pack(encoder, [word.word for word in packs[0].types])
    with tempfile.TemporaryDirectory() as folder:
        write_heldout(Path(folder))
        trees = {"Held-out surface families (procedural, never trained on)": load_tree(Path(folder))}
        if options.data:
            trees["Real photographs (never trained on, never used to choose)"] = load_tree(Path(options.data))
        else:
            print("no real photographs: give --data TREE or set DAPO_EVAL_DATA")
        results = {title: _compare(title, data, encoder, packs, hand) for title, data in trees.items()}
    notes = options.notes.read_text(encoding="utf-8") if options.notes.exists() else "# The bundled encoder\n"
    body = "\n".join(markdown(title, methods) for title, methods in results.items())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(f"{notes}\n{body}", encoding="utf-8")
    options.out.with_suffix(".json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    summary = {
        title: {
            name: {k: v[0] for k, v in spread(runs)["mean"].items() if v} for name, runs in methods.items()
        }
        for title, methods in results.items()
    }
    print(body)
    print(json.dumps(summary))


def _compare(
    title: str, data: list[ProductData], encoder: Encoder, packs: Sequence[Pack], hand: Pack
) -> dict[str, list[Results]]:
    size = encoder.image_size

    def by(pack: Pack) -> Callable[[], Results]:
        return lambda: measure(by_predictor(pack, encoder, data), data, size, types=True)

    def without_training(name: str) -> Callable[[], Results]:
        return lambda: measure(by_baseline(name, size), data, size, types=False)

    jobs = [("hand-written prompts", by(hand)), *(("DAPO pack", by(pack)) for pack in packs)]
    jobs += [(name, without_training(name)) for name in BASELINES]
    found: dict[str, list[Results]] = {}
    columns = (
        TextColumn(title[:30] + " {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("", total=len(jobs))
        for name, job in jobs:
            progress.update(task, description=name)
            found.setdefault(name, []).append(job())
            progress.advance(task)
    return found


if __name__ == "__main__":
    main()
