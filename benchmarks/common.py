"""Side by side in one run: A B A B ..., ratios pair by pair, medians. Machines are shared and noisy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Paired:
    """Seconds per call of A and of B, pair by pair."""

    a: tuple[float, ...]
    b: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median over the pairs of A's time over B's."""
        return float(np.median(np.array(self.a) / np.array(self.b)))

    @property
    def seconds(self) -> tuple[float, float]:
        """Median seconds of A and of B."""
        return float(np.median(self.a)), float(np.median(self.b))


def pairs(a: Callable[[], object], b: Callable[[], object], count: int, warm_up: int = 1) -> Paired:
    """Time `a` and `b` in turn; which of them goes first alternates."""
    for _ in range(warm_up):
        a()
        b()
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(count):
        for which in (0, 1) if index % 2 == 0 else (1, 0):
            begun = time.perf_counter()
            (a, b)[which]()
            times[which].append(time.perf_counter() - begun)
    return Paired(tuple(times[0]), tuple(times[1]))


def report(rows: list[Mapping[str, object]], summary: Mapping[str, object]) -> None:
    """Print `rows` as a table, then `summary` as the JSON line."""
    if rows:
        table = Table(*rows[0], box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
        Console(width=160).print(table)
    print(json.dumps(summary))
