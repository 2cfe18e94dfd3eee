"""What is compared where the paper's claims are tested, and how it is told: variants, metrics, tables, pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.paper.plot import Series, dots

Figures = dict[str, dict[str, float | None]]  # product -> metric -> value

# Metric -> where `trainer.evaluation.protocol.figures` has it. "withheld" is of frames of novel types, beside the good ones.
METRICS: Mapping[str, tuple[str, ...]] = {
    "image AUROC": ("image", "auroc"),
    "image AP": ("image", "ap"),
    "pixel AUROC": ("pixel", "auroc"),
    "AUPRO": ("pixel", "aupro"),
    "seen types AUROC": ("multi_type", "seen", "auroc"),
    "seen types AP": ("multi_type", "seen", "ap"),
    "novel types AUROC": ("multi_type", "novel", "auroc"),
    "novel types AP": ("multi_type", "novel", "ap"),
    "novel image AUROC": ("withheld", "image", "auroc"),
    "novel pixel AUROC": ("withheld", "pixel", "auroc"),
    "novel AUPRO": ("withheld", "pixel", "aupro"),
}
PLOTTED = {
    "products": ("image AUROC", "image AP", "pixel AUROC", "AUPRO"),
    "types": ("novel image AUROC", "novel pixel AUROC", "novel AUPRO", "novel types AUROC"),
}
TITLES = {
    "products": "(a) New products: tuned on half of the products, tested on the others",
    "types": "(b) Novel types: tuned without them",
}


@dataclass(frozen=True)
class Variant:
    """What is compared.

    Attributes:
        learned: False: hand-written sentences, nothing tuned.
        deep: with deep tokens in both towers (T and P).
        words: with the defect's word in its sentence; without, all types are one.
    """

    name: str
    learned: bool = True
    deep: bool = True
    words: bool = True


HAND, DAPO = Variant("hand-written prompts", learned=False), Variant("DAPO prompts")
VARIANTS = (
    HAND,
    DAPO,
    Variant("DAPO without deep tokens", deep=False),
    Variant("DAPO without defect words", words=False),
)


@dataclass(frozen=True)
class Run:
    """A variant in a trial, and what came of it."""

    claim: str
    seed: int
    variant: str
    figures: Figures


def by_seed(runs: Sequence[Run], claim: str, variant: str) -> dict[str, dict[int, float]]:
    """Metric -> seed -> mean over the products that have it."""
    values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if (run.claim, run.variant) == (claim, variant):
            for row in run.figures.values():
                for metric, value in row.items():
                    if value is not None:
                        values[metric][run.seed].append(value)
    return {
        metric: {seed: float(np.mean(own)) for seed, own in seeds.items()} for metric, seeds in values.items()
    }


def spread(values: Sequence[float]) -> tuple[float, float]:
    """(mean, sample standard deviation); of one value 0."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def gains(runs: Sequence[Run], claim: str, than: str = HAND.name) -> dict[str, tuple[float, float]]:
    """Metric -> (mean, spread) over seeds of what DAPO's prompts have more than another variant, in points."""
    ours, theirs = by_seed(runs, claim, DAPO.name), by_seed(runs, claim, than)
    return {
        metric: spread([100 * (own - theirs[metric][seed]) for seed, own in seeds.items()])
        for metric, seeds in ours.items()
        if metric in theirs
    }


def tables(runs: Sequence[Run]) -> str:
    """Markdown: per claim variants down, metrics across; below, what DAPO's prompts have more than each, in points."""
    lines = []
    for claim, title in TITLES.items():
        rows = {variant.name: by_seed(runs, claim, variant.name) for variant in VARIANTS}
        shown = [metric for metric in METRICS if any(metric in row for row in rows.values())]
        lines += [f"### {title}", "", "| | " + " | ".join(shown) + " |", "|---" * (len(shown) + 1) + "|"]
        for name, row in rows.items():
            cells = [_cell(spread(list(row[metric].values()))) if metric in row else "-" for metric in shown]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        for variant in VARIANTS:
            if variant != DAPO:
                more = gains(runs, claim, variant.name)
                cells = [f"{more[m][0]:+.1f} ± {more[m][1]:.1f}" if m in more else "-" for m in shown]
                lines.append(f"| *DAPO prompts against {variant.name}, points* | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(value: tuple[float, float]) -> str:
    return f"{value[0]:.3f} ± {value[1]:.3f}"


def pictures(runs: Sequence[Run]) -> dict[str, str]:
    """Claim -> SVG."""
    found = {}
    for claim, groups in PLOTTED.items():
        series = []
        for variant in VARIANTS:
            row = by_seed(runs, claim, variant.name)
            series.append(
                Series(
                    variant.name, {name: spread(list(row[name].values())) for name in groups if name in row}
                )
            )
        found[claim] = dots([one for one in series if one.values], groups, TITLES[claim])
    return found
