"""What people should know of a retuning, a sentence each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from dapo.encoder import Encoder
from dapo.pack import Pack
from trainer.tuning.examples import Example


def lost(base: Pack, pack: Pack, known: Collection[str]) -> list[str]:
    """Of products that the data do not show: their scores have moved too."""
    gone = [
        name
        for name, product in sorted(base.products.items())
        if name not in known
        and product.threshold_notok is not None
        and pack.products[name].threshold_notok is None
    ]
    if not gone:
        return []
    return [f"{', '.join(gone)}: no frames, so the thresholds that no longer hold were not set again."]


def untrained(encoder: Encoder, words: Mapping[str, Sequence[str]]) -> list[str]:
    """Of words that the encoder knows no better than each other."""
    knows = encoder.knows
    if knows is None:
        return []
    unknown = sorted({word for own in words.values() for word in own if not knows(word)})
    if not unknown:
        return []
    return [
        f"{encoder.name} was not trained on: {', '.join(unknown)}. They share one token, so they look alike to it."
    ]


def unplaced(train: Sequence[Example]) -> list[str]:
    """Of defective frames that teach nothing: nobody drew which of their windows shows the defect."""
    frames = {id(e.sample) for e in train if not e.teaches and not e.sample.drawn}
    if not frames:
        return []
    return [
        f"{len(frames)} defective frames are cut into tiles, and nobody drew where the defect is: they teach nothing."
    ]
