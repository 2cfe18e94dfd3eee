"""Frames of the archive under a pack, as production would judge them: for drift, and for what a pack knows as usual."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dapo.errors import SourceError
from dapo.pack import Pack
from dapo.pack_changes import with_usual, without_usual
from pipeline.archive.policy import keeps_for_audit
from pipeline.settings import ModelSettings
from trainer.data.archive import ArchiveDataset
from trainer.data.sample import Sample
from trainer.drift.measure import LEAST_FRAMES, evenly
from trainer.gate.compare import Pair, left_out

_LOG = logging.getLogger(__name__)
MOST_FRAMES = 200  # of a product: a distribution is known well by then


@dataclass(frozen=True)
class Looked:
    """A product's frames: scores [N] and image features [N, D]."""

    scores: NDArray[np.float64]
    features: NDArray[np.float32]


def drawn_frames(
    data: ArchiveDataset,
    rate: float,
    most: int = MOST_FRAMES,
    products: Iterable[str] | None = None,
    skip: Callable[[str, SourceError], None] | None = None,
) -> dict[str, list[Sample]]:
    """Frames that were kept by chance alone, whatever was said of them: what the line looks like, without bias.

    Args:
        rate: of the archive's audit; at most what it was when frames were kept.
        most: frames of a product, evenly over the time.
        products: these; None: all.
        skip: told of a product whose name can't be used; names come from outside, and one is not stumbled over.
    """
    skip = skip or _left_out
    found = {}
    for product in data.products() if products is None else products:
        try:
            judged = data.judged(product, _left_out)
        except SourceError as error:
            skip(product, error)
            continue
        own = [sample for sample, row in judged if keeps_for_audit(row.frame_key, rate)]
        found[product] = [own[place] for place in evenly(len(own), most)]
    return found


def _left_out(name: str, why: SourceError) -> None:
    _LOG.warning("%s is left out: %s", name, why)


def look(
    pack: Pack,
    frames: Mapping[str, Sequence[Sample]],
    model: ModelSettings,
    batch: int,
    pair: Pair | None = None,
) -> dict[str, Looked]:
    """Products with frames enough, under a pack; pictures that can't be judged (black, blurred) or read are left out.

    Args:
        pair: of the pack with itself, where it is loaded already.
    """
    enough = {product: own for product, own in frames.items() if len(own) >= LEAST_FRAMES}
    if not enough:
        return {}
    pair = pair or Pair(pack, pack, model, batch)
    found = {}
    for product, own in enough.items():
        seen = [
            (one.champion.anomaly_score, one.embedding)
            for one in pair.frames(own, skip=left_out)
            if one.embedding is not None
        ]
        if len(seen) >= LEAST_FRAMES:
            found[product] = Looked(
                np.array([score for score, _ in seen]), np.stack([feature for _, feature in seen])
            )
    return found


def with_usual_frames(
    pack: Pack, frames: Mapping[str, Sequence[Sample]], model: ModelSettings, batch: int
) -> Pack:
    """A new pack that knows what the line looks like to it, by frames that chance has drawn, and by nothing else: of products
    that few of them show it knows nothing. Products that the pack does not name are inspected as "*", and have nothing of
    their own."""
    named = {product: own for product, own in frames.items() if product in pack.products}
    pack = without_usual(pack, list(named))
    for product, seen in look(pack, named, model, batch).items():
        pack = with_usual(pack, product, seen.scores, seen.features)
    return pack
