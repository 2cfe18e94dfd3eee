"""Results as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COLUMNS = (
    ("image AUROC", "image", "auroc"),
    ("AP", "image", "ap"),
    ("F1-max", "image", "f1_max"),
    ("pixel AUROC", "pixel", "auroc"),
    ("AUPRO", "pixel", "aupro"),
    ("pixel AP", "pixel", "ap"),
    ("pixel F1-max", "pixel", "f1_max"),
    ("type accuracy", "types", "accuracy"),
    ("chance", "types", "chance"),
)
_MULTI = ("auroc", "ap", "f1")
# Key of the figures -> title: over all types of a product, over those the pack was tuned on, over all others.
_AMONG = {"all": "multi-type", "seen": "seen", "novel": "novel"}


def markdown(products: Mapping[str, Mapping[str, Any]], mean: Mapping[str, Any]) -> str:
    """One row per product, the unweighted mean last; a dash where the data has no say."""
    head = ["product", *(title for title, _, _ in _COLUMNS)]
    head += [f"{title} {metric.upper()}" for title in _AMONG.values() for metric in _MULTI]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in [*products.items(), ("**mean**", mean)]:
        cells = [_cell(row.get(part), metric) for _, part, metric in _COLUMNS]
        multi = row.get("multi_type") or {}
        cells += [_cell(multi.get(among), metric) for among in _AMONG for metric in _MULTI]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _cell(part: Mapping[str, Any] | None, metric: str) -> str:
    value = (part or {}).get(metric)
    return "-" if value is None else f"{value:.3f}"
