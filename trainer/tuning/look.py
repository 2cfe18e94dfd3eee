"""Labelled frames under a pack, from what the cache holds: features, predictions, figures."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dapo.encoder import Encoder
from dapo.inspection import Prediction
from dapo.judge import looked_at
from dapo.pack import Pack, Product
from dapo.predictor import Head
from dapo.tiles import merge
from dapo.tower import ImageTower
from trainer.data.dataset import ProductData
from trainer.data.sample import Sample
from trainer.evaluation.protocol import Outcome, figures, mean_figures
from trainer.tuning.batches import Batches
from trainer.tuning.cache import FeatureCache
from trainer.tuning.examples import Example
from trainer.tuning.frozen import Frozen

_BATCH = 32
_COVER = 64  # cells along a side of the map that says where production looks


@dataclass(frozen=True)
class Features:
    """Of F examples, on the CPU: cls [F, D], taps [F, taps, N, D], L2-normalised; the stem's tap is the last, if any."""

    cls: Tensor
    taps: Tensor

    def rows(self, chosen: Sequence[int]) -> Features:
        """Some of the examples, by number."""
        which = torch.tensor(list(chosen), dtype=torch.int64)
        return Features(self.cls[which], self.taps[which])


@torch.inference_mode()
def features_under(
    pack: Pack, encoder: Encoder, frozen: Frozen, cache: FeatureCache, examples: Sequence[Example]
) -> Features:
    """Features of examples under a pack.

    Args:
        frozen: what the cache was filled by; it must hold for the pack.
    """
    tower = ImageTower(pack, encoder).eval()
    device = next(tower.parameters()).device
    words: dict[str, Sequence[str]] = {example.product: () for example in examples}
    rows = []
    for batch in Batches(examples, words, cache, batch=_BATCH, seed=0).all():
        cls, *taps = frozen.seen(tower, batch.to(device).kept)
        rows.append((cls.cpu(), torch.stack(taps, 1).cpu()))
    return Features(torch.cat([cls for cls, _ in rows]), torch.cat([taps for _, taps in rows]))


def predictions_under(pack: Pack, features: Features, examples: Sequence[Example]) -> list[Prediction]:
    """Of examples whose features are known, each by itself."""
    return Head(pack).predict(features.cls, features.taps, [example.product for example in examples])


def outcomes_under(pack: Pack, features: Features, examples: Sequence[Example]) -> list[Outcome]:
    """Predictions of frames whose features are known, as production merges and weighs them: windows, and regions that count.

    Args:
        examples: all windows of each frame, one after the other.
    """
    predictions = predictions_under(pack, features, examples)
    found = []
    for rows in by_frame(examples):
        first = examples[rows[0]]
        merged = predictions[rows[0]]
        if first.window is not None:
            content = first.content
            merged = merge([predictions[row] for row in rows], content.windows, content.width, content.height)
        found.append(Outcome(first.sample, looked_at(merged, pack.product(first.product)), None))
    return found


def shown(sample: Sample, product: Product) -> bool:
    """Whether production looks at any of a defect that is drawn; True where nobody drew it."""
    pixels = sample.types_in_pixels(()) if product.roi or product.ignore else None
    if pixels is None:
        return True
    (ys, xs), (height, width) = np.nonzero(pixels), pixels.shape
    return bool(_cover(product)[ys * _COVER // height, xs * _COVER // width].any())


def looked_cells(example: Example, product: Product, grid: int) -> NDArray[np.bool_]:
    """Patches of an example that production looks at, at least in part: bool [grid * grid]."""
    if not (product.roi or product.ignore):
        return np.ones(grid * grid, bool)
    edges = np.linspace(0, 1, grid + 1)
    xs, ys = edges, edges
    if example.window is not None:
        part, frame = example.window, example.content
        xs = (part.x + part.width * edges) / frame.width
        ys = (part.y + part.height * edges) / frame.height
    sums = np.pad(_cover(product).cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # of all cells above and to the left
    (top, bottom), (left, right) = (
        (np.floor(at[:-1] * _COVER + 1e-9).astype(int), np.ceil(at[1:] * _COVER - 1e-9).astype(int))
        for at in (ys, xs)
    )
    inside = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
    return np.asarray(inside.ravel() > 0)


def _cover(product: Product) -> NDArray[np.bool_]:
    """Where production looks, as a map of the whole frame."""
    ones = Prediction(
        1.0,
        np.ones((_COVER, _COVER), np.float16),
        np.zeros((_COVER, _COVER), np.uint16),
        np.zeros(0, np.float32),
    )
    return np.asarray(looked_at(ones, product).map > 0)


def by_frame(examples: Sequence[Example]) -> list[list[int]]:
    """Numbers of the examples of each frame, in order."""
    numbered = itertools.groupby(enumerate(examples), lambda one: id(one[1].sample))
    return [[row for row, _ in own] for _, own in numbered]


def figures_of(
    pack: Pack, outcomes: Sequence[Outcome], words: Mapping[str, Sequence[str]]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Figures of method section 5 per product, and their mean.

    Args:
        words: product -> its words, in the order of the pack's own types of it.
    """
    own: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        own[outcome.sample.product].append(outcome)
    found = {}
    for name, those in sorted(own.items()):
        data = _Listed(name, tuple(outcome.sample for outcome in those))
        data = replace(data, said=tuple(words[name]))
        found[name] = figures(data, those, pack.encoder.image_size, ())
    return found, mean_figures(list(found.values()))


@dataclass(frozen=True)
class _Listed(ProductData):
    """A product's frames with all of its words, also those that no frame of this side shows."""

    said: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        return self.said


def scores_of(outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
    """Anomaly scores, [F]."""
    return np.array([outcome.prediction.score for outcome in outcomes], np.float64)
