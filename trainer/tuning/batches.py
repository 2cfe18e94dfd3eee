"""Batches of examples: seeded by epoch, balanced, loaded from the cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.tuning.cache import FeatureCache, Variant, mirrored
from trainer.tuning.examples import Example
from trainer.tuning.frozen import Tensors


@dataclass(frozen=True)
class Batch:
    """Frames of several products.

    Attributes:
        kept: what the cache holds of them, name -> [B, ...].
        products: name of each frame's product.
        states: int64 [B, L, L] as `Example.states`; anything where `drawn` is not.
        drawn: bool [B], whether it is known where the defects are, or that there are none.
        defective: bool [B].
        word: int64 [B], index of the one type among the product's words; -1 where it has none, several or another.
        weight: of its mean among those of all processes: 1, or what makes theirs together the mean of the whole batch.
    """

    kept: Tensors
    products: tuple[str, ...]
    states: Tensor
    drawn: Tensor
    defective: Tensor
    word: Tensor
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.products)

    def rows(self, chosen: Tensor) -> Batch:
        """Some of the frames, by index."""
        return Batch(
            {name: values[chosen] for name, values in self.kept.items()},
            tuple(self.products[row] for row in chosen.tolist()),
            self.states[chosen],
            self.drawn[chosen],
            self.defective[chosen],
            self.word[chosen],
        )

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(
            {name: values.to(device) for name, values in self.kept.items()},
            self.products,
            self.states.to(device),
            self.drawn.to(device),
            self.defective.to(device),
            self.word.to(device),
        )


class Batches:
    """Draws epochs from examples.

    An epoch has as many frames as there are examples, rounded up to whole batches. Drawn with replacement: every product has
    the same share, in it good and defective frames half each (where it has both), and in these each type the same. What a
    plant has most of, good frames of its main product, would else be all that is learned.

    Args:
        examples: at least one.
        words: product -> its words.
        cache: of the frozen half.
        batch: frames of a batch.
        seed: the same gives the same batches, whatever came before.
        variants: mirrorings that frames are drawn in.
        balanced: False: every frame once an epoch, in random order (as the paper).
    """

    def __init__(
        self,
        examples: Sequence[Example],
        words: Mapping[str, Sequence[str]],
        cache: FeatureCache,
        *,
        batch: int,
        seed: int,
        variants: Sequence[Variant] = ("",),
        balanced: bool = True,
    ) -> None:
        self._examples, self._words, self._cache = examples, words, cache
        self._batch, self._seed, self._variants = batch, seed, tuple(variants)
        self._shares = shares(examples) if balanced else None

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-len(self._examples) // self._batch)

    def epoch(self, number: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The batches of an epoch.

        Args:
            rank, world: which of so many processes this is; each gets its share of every batch.
        """
        rng = np.random.default_rng([self._seed, number])
        count = len(self._examples)
        rows = rng.permutation(count)
        if self._shares is not None:
            rows = rng.choice(count, self.steps * self._batch, p=self._shares)
        mirrors = rng.integers(len(self._variants), size=len(rows))
        for first in range(0, len(rows), self._batch):
            whole = slice(first, first + self._batch)
            frames, mirrored_by = rows[whole].tolist(), mirrors[whole].tolist()
            mine = range(rank, len(frames), world)
            chosen = [(frames[n], self._variants[mirrored_by[n]]) for n in mine or (0,)]
            yield replace(self.batch(chosen), weight=len(mine) * world / len(frames))

    def all(self) -> Iterator[Batch]:
        """Every example once, as it is, in order."""
        for first in range(0, len(self._examples), self._batch):
            yield self.batch(
                [(row, "") for row in range(first, min(first + self._batch, len(self._examples)))]
            )

    def batch(self, chosen: Sequence[tuple[int, Variant]]) -> Batch:
        """Examples by number, mirrored."""
        examples = [self._examples[row] for row, _ in chosen]
        kept = self._cache.load([example.entry for example in examples], [mirror for _, mirror in chosen])
        side = next((len(e.states) for e in examples if e.states is not None), 1)
        states = np.zeros((len(examples), side, side), np.int64)
        for row, (example, (_, mirror)) in enumerate(zip(examples, chosen, strict=True)):
            if example.states is not None:
                states[row] = mirrored(example.states, mirror)
        return Batch(
            kept,
            tuple(example.product for example in examples),
            torch.from_numpy(states),
            torch.tensor([example.states is not None for example in examples]),
            torch.tensor([example.defective for example in examples]),
            torch.tensor([self._word(example) for example in examples]),
        )

    def _word(self, example: Example) -> int:
        words = self._words[example.product]
        return words.index(example.word) if example.defective and example.word in words else -1


def shares(examples: Sequence[Example]) -> NDArray[np.float64]:
    """How often each example is drawn; they add up to 1."""
    kinds = Counter((e.product, e.defective, e.kind) for e in examples)
    states = Counter((product, defective) for product, defective, _ in kinds)
    sides = Counter(product for product, _ in states)
    found = [
        1
        / len(sides)
        / sides[e.product]
        / states[e.product, e.defective]
        / kinds[e.product, e.defective, e.kind]
        for e in examples
    ]
    return np.asarray(np.array(found) / np.sum(found))
