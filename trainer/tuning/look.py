"""Labelled frames under a pack, from what the cache holds: features, predictions, figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dapo.encoder import Encoder
from dapo.pack import Pack
from dapo.predictor import Head
from dapo.tower import ImageTower
from trainer.data.dataset import ProductData
from trainer.evaluation.protocol import Outcome, figures, mean_figures
from trainer.tuning.batches import Batches
from trainer.tuning.cache import FeatureCache
from trainer.tuning.examples import Example
from trainer.tuning.frozen import Frozen

_BATCH = 32


@dataclass(frozen=True)
class Features:
    """Of examples, on the CPU: cls [F, D], taps [F, taps, N, D], L2-normalised; the stem's tap is the last, if any."""

    cls: Tensor
    taps: Tensor

    def rows(self, chosen: Sequence[int]) -> Features:
        """Some of the frames, by number."""
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


def outcomes_under(pack: Pack, features: Features, examples: Sequence[Example]) -> list[Outcome]:
    """Predictions of examples whose features are known."""
    predictions = Head(pack).predict(features.cls, features.taps, [example.product for example in examples])
    return [
        Outcome(example.sample, prediction, None)
        for example, prediction in zip(examples, predictions, strict=True)
    ]


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
