"""Split frames into parts that share no physical part, and refuse a split that leaks.

Frames of one part, or of one picture saved twice, look alike: a model that has seen one has seen the other. So whole groups
go to one side, never frames; and the pictures' own content is compared, whatever their files are called.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from dapo.errors import SourceError
from trainer.data.sample import Sample

_SHOWN = 5  # pairs of a message


def group_of(sample: Sample) -> str:
    """What a frame may not be parted from: the part it shows, or itself where nobody said."""
    return f"{sample.product}/{sample.key if sample.group is None else f'part {sample.group}'}"


def together(samples: Sequence[Sample], by: Literal["part", "day"] = "part") -> list[int]:
    """The number of each frame's group.

    Args:
        by: "part": frames of one part are together. "day": those of one day too, and with them all of every part that they
            show: what comes off the line on one day shares its light, its lot and its dirt.
    """
    names = [[group_of(sample)] for sample in samples]
    if by == "day":
        for own, sample in zip(names, samples, strict=True):
            own += [f"day {sample.day}"] if sample.day is not None else []
    index = {name: number for number, name in enumerate(dict.fromkeys(name for own in names for name in own))}
    rows = [number for number, own in enumerate(names) for _ in own]
    columns = [len(samples) + index[name] for own in names for name in own]
    nodes = len(samples) + len(index)
    links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(nodes, nodes))
    _, labels = connected_components(links, directed=False)
    return [int(label) for label in labels[: len(samples)]]


def folds(
    samples: Sequence[Sample], count: int, seed: int, by: Literal["part", "day"] = "part"
) -> list[list[Sample]]:
    """So many sides of about the same size and mixture of types; whole groups. Seeded.

    Args:
        count: 2 or more.
        by: see `together`.

    Raises:
        SourceError: there are fewer groups than sides.
    """
    groups = together(samples, by)
    if (found := len(set(groups))) < count:
        raise SourceError(
            f"{found} groups of frames can't be split into {count}: frames of one {by} stay together. Collect more."
        )
    labels = [sample.word or ",".join(sorted(sample.words)) or sample.state.value for sample in samples]
    if max(Counter(labels).values()) < count:
        labels = [sample.state.value for sample in samples]  # no type is there often enough to be spread
    if max(Counter(labels).values()) < count:
        labels = ["any"] * len(samples)
    with warnings.catch_warnings():
        # Types with fewer frames than sides are not on every side; scikit-learn warns of that.
        warnings.simplefilter("ignore", UserWarning)
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        sides = [test for _, test in splitter.split(np.zeros(len(samples)), labels, groups)]
    return [[samples[index] for index in side] for side in sides]


def content_hash(sample: Sample) -> str:
    """SHA-256 of the decoded pixels: the same for a picture saved again without loss."""
    return pixels_hash(sample.image())


def pixels_hash(image: NDArray[np.uint8]) -> str:
    """The same of pixels that are at hand."""
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()


def refuse_leaks(
    sides: Mapping[str, Sequence[Sample]], hash_of: Callable[[Sample], str] = content_hash
) -> None:
    """See that no picture and no group is on two sides.

    Args:
        sides: name -> frames.
        hash_of: of a frame's content; a cache may know it already.

    Raises:
        SourceError: names the pairs.
    """
    for what, name_of in (("shows the same part as", group_of), ("is the same picture as", hash_of)):
        where: dict[str, tuple[str, Sample]] = {}
        pairs: list[str] = []
        for side, samples in sides.items():
            for sample in samples:
                other, first = where.setdefault(name_of(sample), (side, sample))
                if other != side:
                    pairs.append(f"{sample.key} ({side}) {what} {first.key} ({other})")
        if pairs:
            more = f", and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
            raise SourceError(
                f"the split leaks: {'; '.join(pairs[:_SHOWN])}{more}. Put them on one side, or name their group."
            )


def counts(samples: Sequence[Sample]) -> dict[str, int]:
    """Frames per type, "good" and "unlabelled" among them; what shows several types counts as "several"."""
    names = [s.word or ("several" if s.defective else s.state.value) for s in samples]
    return dict(sorted(Counter(names).items()))
