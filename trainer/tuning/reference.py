"""Memories of good frames, made for a pack: what is remembered, how far is far, and how much it counts.

The memory is a coreset: cells picked one after the other, each the one that is farthest from all before (greedy k-centre,
Sener and Savarese, arXiv 1708.00489; for anomaly detection Roth et al., arXiv 2106.08265), so that rare but normal places
are kept and a thousand alike are one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dapo.head import smooth, top_mean
from dapo.pack import REFERENCE, Pack, Reference, Scoring
from dapo.pack_changes import uncalibrated
from dapo.reference import anomaly, cell_features, distances
from trainer.evaluation.metrics import auroc, tally

SIZE = 1000  # rows of a memory: of dapo-tiny's stem 0.8 MB a product
# Weights (score, map) of a memory where no labelled frame says better, by whether words were learned from frames of the product
# too: on photographs a memory ranks better than untuned words, and adds to tuned ones (docs/adr/0026-retuning.md).
WEIGHTS = {False: (0.75, 0.25), True: (0.5, 0.25)}
_PROJECTED = 64  # dimensions that distances are compared in while rows are picked: the order hardly changes, the time does
_FOLDS = 3
_RARE = 0.995  # share of good cells that lie nearer than `Reference.middle`
_STEPS = 4.0  # spreads from the median to the middle: a usual cell has an anomaly of 1.8 %
_LEAST_SPREAD = 1e-3
_WEIGHTS = tuple(step / 10 for step in range(11))


@dataclass(frozen=True)
class Memory:
    """A product's memory: `rows` float32 [M, R], L2-normalised."""

    rows: NDArray[np.float32]
    reference: Reference


@dataclass(frozen=True)
class Known:
    """Labelled frames that weights are fitted on, under the pack without the memory.

    Attributes:
        taps: [F, taps, N, D].
        scores: of the words alone, [F].
        defective: [F].
        maps: of the words alone, smoothed, [F, G, G].
        masks: bool [F, G, G], cells of a defect; None where nobody drew any.
        looked: bool [F, N], cells that production looks at; maps and masks are empty elsewhere. None: all.
    """

    taps: Tensor
    scores: NDArray[np.float64]
    defective: NDArray[np.bool_]
    maps: NDArray[np.float32]
    masks: NDArray[np.bool_] | None
    looked: NDArray[np.bool_] | None = None


def remember(
    taps: Tensor,
    groups: Sequence[int],
    used: Sequence[int],
    *,
    looked: NDArray[np.bool_] | None = None,
    size: int = SIZE,
    seed: int = 0,
    weights: tuple[float, float] = WEIGHTS[False],
) -> Memory:
    """A memory of good frames.

    Args:
        taps: [F, taps, N, D], L2-normalised, of F good frames.
        groups: number of each frame's part: how far is far is measured on parts that were not remembered.
        used: numbers of the taps.
        looked: bool [F, N], cells that production looks at: what varies elsewhere is not worth remembering. None: all.
        size: most rows.
        seed: the same gives the same memory.
        weights: of its score and its map, 0..1.
    """
    cells = cell_features(taps, used)
    counted = _all_or(looked, cells)
    held_out = []
    for fold in _folds(groups, seed):
        rest = np.setdiff1d(np.arange(len(cells)), fold)
        if len(rest) and counted[torch.from_numpy(rest)].any():
            those = torch.from_numpy(rest)
            rows = _picked(cells[those][counted[those]], size, seed)
            held_out += [distances(cells[frame][counted[frame]], rows) for frame in fold]
    far = torch.cat(held_out).double().numpy() if held_out else np.array([0.0, 1.0])
    usual, rare = np.quantile(far, [0.5, _RARE])
    rows = _picked(cells[counted], size, seed)
    return Memory(
        np.ascontiguousarray(rows.numpy(), np.float32),
        Reference(
            taps=tuple(used),
            middle=float(rare),
            spread=max(_LEAST_SPREAD, float(rare - usual) / _STEPS),
            map_weight=weights[1],
            score_weight=weights[0],
            frames=len(cells),
        ),
    )


def weighted(memory: Memory, known: Known, scoring: Scoring) -> Memory:
    """The memory with the weights that rank labelled frames and cells best; of equal ones those nearest to its own."""
    good, bad = (~known.defective).any(), known.defective.any()
    if not (good and bad):
        return memory
    rows = torch.from_numpy(memory.rows)
    features = cell_features(known.taps, memory.reference.taps)
    far = [
        smooth(_square(anomaly(distances(cells, rows), memory.reference) * seen), scoring.smoothing_sigma)
        for cells, seen in zip(features, _all_or(known.looked, features), strict=True)
    ]
    scores = np.array([float(top_mean(cells, scoring.top_k_fraction)) for cells in far])
    score_weight = _best(known.scores, scores, known.defective, memory.reference.score_weight)
    map_weight = score_weight
    if known.masks is not None and known.masks.any():
        maps = np.stack([cells.numpy() for cells in far])
        map_weight = _best(known.maps.ravel(), maps.ravel(), known.masks.ravel(), memory.reference.map_weight)
    return Memory(memory.rows, replace(memory.reference, score_weight=score_weight, map_weight=map_weight))


def with_memory(pack: Pack, product: str, memory: Memory) -> Pack:
    """A new pack with a product's memory. Its thresholds no longer hold."""
    changed = replace(uncalibrated(pack.product(product)), reference=memory.reference)
    return replace(
        pack,
        products={**pack.products, product: changed},
        tensors={**pack.tensors, REFERENCE + product: memory.rows},
    )


def without_memories(pack: Pack, products: Collection[str] | None = None) -> Pack:
    """A new pack without those of some products; None: without any. Thresholds of products that lose one no longer hold."""
    gone = {
        name
        for name, product in pack.products.items()
        if product.reference and (products is None or name in products)
    }
    return replace(
        pack,
        products={
            name: replace(uncalibrated(product), reference=None) if name in gone else product
            for name, product in pack.products.items()
        },
        tensors={
            name: array
            for name, array in pack.tensors.items()
            if not (name.startswith(REFERENCE) and name.removeprefix(REFERENCE) in gone)
        },
    )


def _all_or(looked: NDArray[np.bool_] | None, cells: Tensor) -> Tensor:
    """Which of the cells [F, N, R] count: bool [F, N]."""
    return torch.ones(cells.shape[:2], dtype=torch.bool) if looked is None else torch.from_numpy(looked)


def _picked(cells: Tensor, size: int, seed: int) -> Tensor:
    """Greedy k-centre: rows of `cells` [n, R], at most `size`."""
    if len(cells) <= size:
        return cells
    draw = torch.Generator().manual_seed(seed)
    project = torch.randn(cells.shape[1], min(_PROJECTED, cells.shape[1]), generator=draw)
    small = cells.float() @ project
    squares = (small**2).sum(1)
    nearest = torch.full((len(cells),), float("inf"))
    chosen = [int(torch.randint(len(cells), (1,), generator=draw))]
    for _ in range(size - 1):
        last = chosen[-1]
        to_last = squares + squares[last] - 2 * (small @ small[last])
        nearest = torch.minimum(nearest, to_last)
        chosen.append(int(nearest.argmax()))
    return cells[torch.tensor(chosen)]


def _folds(groups: Sequence[int], seed: int) -> list[list[int]]:
    """Frames in so many sides, whole groups."""
    names = np.unique(np.asarray(groups))
    order = np.random.default_rng(seed).permutation(names)
    sides = {int(name): place % _FOLDS for place, name in enumerate(order)}
    folds = [[frame for frame, group in enumerate(groups) if sides[group] == side] for side in range(_FOLDS)]
    return [fold for fold in folds if fold]


def _best(
    words: NDArray[np.floating], memory: NDArray[np.floating], truth: NDArray[np.bool_], usual: float
) -> float:
    ranked = [auroc(tally((1 - weight) * words + weight * memory, truth)) or 0.0 for weight in _WEIGHTS]
    equal = [w for w, value in zip(_WEIGHTS, ranked, strict=True) if value >= max(ranked) - 1e-9]
    return min(equal, key=lambda weight: abs(weight - usual))


def _square(cells: Tensor) -> Tensor:
    grid = round(len(cells) ** 0.5)
    return cells.reshape(grid, grid)
