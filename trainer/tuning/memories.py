"""Memories for all products of a pack that have good frames."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dapo.encoder import Encoder
from dapo.errors import SettingsError
from dapo.pack import STEM_TAP, Pack, Product
from trainer.data.split import together
from trainer.tuning.batches import Batches
from trainer.tuning.cache import FeatureCache
from trainer.tuning.examples import Example
from trainer.tuning.look import Features, by_frame, looked_cells, predictions_under
from trainer.tuning.reference import SIZE, WEIGHTS, Known, remember, weighted, with_memory, without_memories

_LEAST_FRAMES = 4  # fewer say nothing of how far a good cell may lie
_COVERED = 0.25  # of a patch cell, from which it counts as defect where weights are fitted
_PCA_CELLS = 20_000  # enough for 192 directions


@dataclass(frozen=True)
class Memories:
    """How memories are made.

    Attributes:
        of: "stem", one more tap, made of the encoder's frozen stem, which no tuning moves: frames that were learned from are
            no nearer in it than others; "taps", all that the head is given anyway. None: the stem, where the encoder has one.
        size: most rows of one.
        frames: most good frames of one, the first of a seeded draw; of frames that are cut as many as have so many windows.
        seed: of the draw and the coreset.
    """

    of: Literal["stem", "taps"] | None = None
    size: int = SIZE
    frames: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.frames < _LEAST_FRAMES:
            raise SettingsError(
                f"memories of {self.size} rows and {self.frames} frames: expected a row and {_LEAST_FRAMES} frames or more."
            )


def with_memories(
    pack: Pack,
    examples: Mapping[str, Sequence[Example]],
    seen: Mapping[str, Features | None],
    how: Memories,
    *,
    learned: bool,
) -> tuple[Pack, list[str]]:
    """A new pack with a memory for each product that has good frames to learn from, and what to tell of it.

    Args:
        examples: by side, "train" and "validation".
        seen: their features under `pack`.
        learned: whether words were learned from the same frames: a memory then counts less where nothing else says how much.
    """
    taps = int(seen["train"].taps.shape[1]) if seen["train"] is not None else 0
    of_stem = pack.has_stem_tap and how.of != "taps"
    used = (taps - 1,) if of_stem else tuple(range(taps - pack.has_stem_tap))
    notes = []
    made, alone = pack, without_memories(pack)  # a weight is against the words, not against an older memory
    for product in sorted({example.product for example in examples["train"]}):
        good = [row for row, e in enumerate(examples["train"]) if e.product == product and _good(e)]
        frames = [[good[row] for row in own] for own in by_frame([examples["train"][row] for row in good])]
        if len(frames) < _LEAST_FRAMES:
            notes.append(
                f"{product}: {len(frames)} good frames to remember; {_LEAST_FRAMES} are needed, so it has no memory."
            )
            continue
        features = seen["train"]
        assert features is not None
        frames = _drawn(frames, how)
        good = sorted(row for own in frames for row in own)
        grid = math.isqrt(features.taps.shape[2])
        groups = together([examples["train"][row].sample for row in good])
        looked = _looked(alone, product, [examples["train"][row] for row in good], grid)
        if not looked.any():
            notes.append(f"{product}: production is told to look nowhere, so there is nothing to remember.")
            made = without_memories(made, [product])
            continue
        memory = remember(
            features.rows(good).taps, groups, used,
            looked=looked, size=how.size, seed=how.seed, weights=WEIGHTS[learned],
        )  # fmt: skip
        memory = replace(memory, reference=replace(memory.reference, frames=len(frames)))
        known = _known(alone, product, examples["validation"], seen["validation"])
        if known is not None:
            memory = weighted(memory, known, pack.scoring)
        if product not in made.products:
            made = made.with_products({product: Product()})
        made = with_memory(made, product, memory)
    return made, notes


def of_taps(pack: Pack, encoder: Encoder) -> list[str]:
    """Products whose memory is of what the image side says, which is something else once that has learned."""
    return [
        name
        for name, product in pack.products.items()
        if product.reference and min(product.reference.taps) < _taps(pack, encoder)
    ]


def needs_stem_tap(pack: Pack, encoder: Encoder, examples: Sequence[Example]) -> bool:
    """Whether memories are made of a stem's tap that the pack lacks, or that no memory needs as it is."""
    frames = {(example.product, id(example.sample)) for example in examples if _good(example)}
    good = Counter(product for product, _ in frames)
    made = {product for product, count in good.items() if count >= _LEAST_FRAMES}
    kept = any(
        product.reference and max(product.reference.taps) >= _taps(pack, encoder)
        for name, product in pack.products.items()
        if name not in made
    )
    return bool(made) and not (kept and pack.has_stem_tap)


def with_stem_tap(
    pack: Pack, encoder: Encoder, cache: FeatureCache, examples: Sequence[Example], seed: int
) -> Pack:
    """A new pack whose image side gives one tap more: the directions in which the stem's features of good frames vary most.

    Args:
        cache: of the stem's features.
        examples: good ones among them.
    """
    good = [example for example in examples if _good(example)]
    words: dict[str, Sequence[str]] = {example.product: () for example in good}
    rng = np.random.default_rng(seed)
    each = max(1, _PCA_CELLS // max(1, len(good)))
    cells = []
    for batch in Batches(good, words, cache, batch=32, seed=0).all():
        for frame in batch.kept["stem"].float().flatten(2).transpose(1, 2).numpy():
            cells.append(frame[rng.permutation(len(frame))[:each]])
    weight, bias = principal_directions(np.concatenate(cells), encoder.joint_width)
    tensors = {**pack.tensors, f"{STEM_TAP}.weight": weight, f"{STEM_TAP}.bias": bias}
    return replace(pack, tensors=tensors)


def principal_directions(
    cells: NDArray[np.float32], width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight [width, channels] and bias [width] of a projection to the directions of greatest variance.

    Channels are scaled to one spread first. The last number of each cell is a constant, as large as a usual cell is long: what
    is projected is normalised afterwards, and without it a cell of twice the contrast would be the same as any other.
    """
    mean, std = cells.mean(0), cells.std(0) + 1e-6
    scaled = (cells - mean) / std
    _, _, directions = np.linalg.svd(scaled, full_matrices=False)
    kept = directions[: width - 1]
    kept = np.concatenate([kept, np.zeros((width - len(kept), kept.shape[1]), np.float32)])
    weight = (kept / std).astype(np.float32)
    bias = -(weight @ mean)
    bias[-1] = math.sqrt(cells.shape[1])
    return np.ascontiguousarray(weight), np.ascontiguousarray(bias, np.float32)


def _taps(pack: Pack, encoder: Encoder) -> int:
    """How many taps the image side gives: the stem's is the next."""
    return len(encoder.taps if "prompt.visual" in pack.tensors else encoder.dense_taps)


def _good(example: Example) -> bool:
    """Of a good frame: what lies beside a drawn defect may be part of it."""
    return not example.sample.defective


def _drawn(frames: Sequence[list[int]], how: Memories) -> list[list[int]]:
    """Some of the frames, each a list of rows: as many rows as are wanted at most, but enough frames in any case."""
    chosen: list[list[int]] = []
    rows = 0
    for place in np.random.default_rng(how.seed).permutation(len(frames)):
        own = frames[place]
        if len(chosen) >= _LEAST_FRAMES and rows + len(own) > how.frames:
            break
        chosen.append(own)
        rows += len(own)
    return chosen


def _looked(pack: Pack, product: str, examples: Sequence[Example], grid: int) -> NDArray[np.bool_]:
    return np.stack([looked_cells(example, pack.product(product), grid) for example in examples])


def _known(pack: Pack, product: str, examples: Sequence[Example], seen: Features | None) -> Known | None:
    rows = [row for row, example in enumerate(examples) if example.product == product and example.teaches]
    if not rows or seen is None:
        return None
    own = [examples[row] for row in rows]
    features = seen.rows(rows)
    predictions = predictions_under(pack, features, own)
    grid = predictions[0].map.shape[0]
    looked = _looked(pack, product, own, grid)
    counted = looked.reshape(-1, grid, grid)
    drawn = all(example.states is not None for example in own)
    maps = np.stack([prediction.map.astype(np.float32) for prediction in predictions])
    peaks, kept = maps.max((1, 2)), (maps * counted).max((1, 2))
    lost = np.divide(
        kept, peaks, out=np.ones_like(peaks), where=peaks > 0
    )  # as `dapo.judge.looked_at` has it
    return Known(
        taps=features.taps,
        scores=np.array([prediction.score for prediction in predictions]) * lost,
        defective=np.array([example.defective for example in own]),
        maps=maps * counted,
        masks=np.stack([_cells(example, grid) for example in own]) & counted if drawn else None,
        looked=looked,
    )


def _cells(example: Example, grid: int) -> NDArray[np.bool_]:
    assert example.states is not None
    step = len(example.states) // grid
    covered = (example.states != 0).reshape(grid, step, grid, step).mean((1, 3))
    return np.asarray(covered >= _COVERED)
