"""Labelled frames made ready for tuning: what is known of each, at the resolution the loss is taken at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dapo.tiles import Window
from trainer.data.sample import GOOD, Sample, State
from trainer.tuning.cache import Content

CELLS_PER_PATCH = (
    4  # pixels of the loss along a patch: as fine as a label is, at a sixteenth of the frame's cost
)
UNNAMED = -1  # a defect whose type is not among the product's words
# Labels are read finer than they are used: a cell must know how much of it is covered. Finer still where that finds nothing.
_FINER, _FINEST = 4, 16
_EDGE = 0.1  # share of a defect, and of a patch, below which a window does not show it


@dataclass(frozen=True)
class Example:
    """One labelled frame, or a window of one where production cuts frames.

    Attributes:
        sample: the frame as the data set gave it.
        content: what the frame is told by.
        states: int8 [L, L], 0 good, 1 + index into the product's words, `UNNAMED` a defect of none of them; None where it
            is defective and nobody drew where: a weak label.
        word: "good", the one type of what is seen, or None where that is several or none is said.
        entry: name of its features in the cache.
        window: what of the frame is seen; None: all of it.
    """

    sample: Sample
    content: Content
    states: NDArray[np.int8] | None
    word: str | None
    entry: str
    window: Window | None = None

    @property
    def product(self) -> str:
        return self.sample.product

    @property
    def defective(self) -> bool:
        """Whether what is seen is; where nobody knows, whether the frame is."""
        return self.word != GOOD

    @property
    def teaches(self) -> bool:
        """Whether it is known what is seen; not in one of several windows where nobody drew the defect, or its edge lies."""
        return self.states is not None or len(self.content.windows) <= 1

    @property
    def kind(self) -> str:
        """What it counts as where kinds are balanced: good, its one type, or several."""
        return self.word or "several"


def make_examples(
    samples: Sequence[Sample],
    contents: Sequence[Content],
    words: Mapping[str, Sequence[str]],
    size: int,
    *,
    whole: bool = False,
) -> list[Example]:
    """Labelled frames, or the windows that they are cut into, in order; unlabelled ones must not be among them.

    Args:
        words: product -> its words, in the order of the states; a product that is missing has none.
        size: L, side of the states in cells.
        whole: see `in_cells`.

    Raises:
        SourceError: a mask can't be read, or marks nothing.
    """
    found = []
    for sample, content in zip(samples, contents, strict=True):
        if sample.state is State.UNLABELLED:
            raise ValueError(f"{sample.key} is not labelled")
        own = words.get(sample.product, ())
        if content.windows:
            found += _windows(sample, content, own, size, whole)
        else:
            states = _states(sample, own, size, whole)
            found.append(Example(sample, content, states, sample.word, content.encoded))
    return found


def _windows(sample: Sample, content: Content, words: Sequence[str], size: int, whole: bool) -> list[Example]:
    """What each window of a frame shows."""
    pixels = sample.types_in_pixels(words)
    parts = None if pixels is None else cv2.connectedComponents((pixels != 0).astype(np.uint8))[1]
    found = []
    for entry, window in content.entries:
        assert window is not None
        inside = slice(window.y, window.y + window.height), slice(window.x, window.x + window.width)
        states, word = None, sample.word
        if not sample.defective:
            states = np.zeros((size, size), np.int8)
        elif pixels is not None and parts is not None:
            word = _word(pixels[inside], words)
            if not _edge(parts[inside], parts, size):
                states = _seen(pixels[inside], size, whole)
        found.append(Example(sample, content, states, word, entry, window))
    return found


def _word(seen: NDArray[np.int16], words: Sequence[str]) -> str | None:
    """What a window shows, as `Sample.word` says it of a frame."""
    states = [int(state) for state in np.unique(seen) if state != 0]
    if not states:
        return GOOD
    return words[states[0] - 1] if len(states) == 1 and states[0] != UNNAMED else None


def _edge(seen: NDArray[np.int32], parts: NDArray[np.int32], size: int) -> bool:
    """Whether a window has only edges of defects that lie in others: nobody draws so well that these were one.

    Args:
        seen: what of `parts` lies in it.
        parts: 0, or the number of each connected part of what is marked.
    """
    inside = np.bincount(seen.ravel(), minlength=int(parts.max()) + 1)[1:]
    whole = np.bincount(parts.ravel())[1:]
    patch = seen.size * (CELLS_PER_PATCH / size) ** 2
    least = np.minimum(_EDGE * whole, _EDGE * patch)
    return bool(inside.any() and (inside < least).all())


def _seen(seen: NDArray[np.int16], size: int, whole: bool) -> NDArray[np.int8] | None:
    """States of a window; None where its defect is too small to be found again."""
    for finer in (_FINER, _FINEST):
        side = (size * finer, size * finer)
        fine = np.asarray(cv2.resize(seen, side, interpolation=cv2.INTER_NEAREST), np.int64)
        if fine.any() or not seen.any():
            return in_cells(fine, size, whole=whole)
    return None


def _states(sample: Sample, words: Sequence[str], size: int, whole: bool) -> NDArray[np.int8] | None:
    """None where nobody drew the defect, or it is too small to be found again: a good frame is what it must not become."""
    for finer in (_FINER, _FINEST):
        fine = sample.types_at(words, size * finer)
        if fine is None:
            return None
        if not sample.defective or fine.any():
            return in_cells(fine, size, whole=whole)
    return None


def in_cells(states: NDArray[np.int64], size: int, *, whole: bool = False) -> NDArray[np.int8]:
    """States per pixel [S, S] -> per cell [size, size]: the state that covers half of it or more.

    A defect too small for that keeps the one cell that it covers most, so none gets lost.

    Args:
        whole: count only cells that are covered wholly, which shrinks masks as the research code does; small ones vanish.
    """
    step = len(states) // size
    blocks = states.reshape(size, step, size, step)
    found = np.zeros((size, size), np.int8)
    best = np.zeros((size, size))
    for state in np.unique(states[states != 0]):
        cover = (blocks == state).mean((1, 3))
        marked = cover == 1 if whole else cover >= min(0.5, cover.max())
        better = marked & (cover > best)
        found[better], best[better] = state, cover[better]
    return found


def manifest_hash(examples: Sequence[Example]) -> str:
    """SHA-256 over content and labels of all frames, in whatever order: what a pack was tuned on."""
    rows = sorted(
        json.dumps(
            [
                example.product,
                example.content.pixels,
                example.sample.state.value,
                list(example.sample.words),
                None if example.states is None else hashlib.sha256(example.states.tobytes()).hexdigest(),
                *([] if example.window is None else [astuple(example.window)]),
            ]
        )
        for example in examples
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
