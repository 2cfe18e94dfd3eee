"""A labelled frame, whatever tree, file or bucket it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dapo.errors import FrameError, SourceError
from pipeline.decode import Limits, decode
from trainer.data.reading import file_version, readable

GOOD = "good"
Split = Literal["train", "test"]


class State(Enum):
    """What is known of a frame as a whole."""

    GOOD = "good"
    DEFECTIVE = "defective"
    UNLABELLED = "unlabelled"


class Picture(Protocol):
    """Where the encoded bytes of a frame lie.

    `name` is for messages; `version` changes whenever the bytes may have, and costs no reading of them.
    """

    @property
    def name(self) -> str: ...

    def read(self) -> bytes: ...

    def version(self) -> str: ...


class Mask(Protocol):
    """Where a defect is. `version` as of a `Picture`. All may raise `SourceError`."""

    def shape(self) -> tuple[int, int]:
        """Height and width in px: those of its frame."""
        ...

    def at(self, size: int) -> NDArray[np.bool_]:
        """The mask squashed (nearest) to [size, size], as frames are. A small defect may vanish."""
        ...

    def marked(self) -> NDArray[np.bool_]:
        """All of its pixels, bool [H, W]."""
        ...

    def version(self) -> str: ...


@dataclass(frozen=True)
class PictureFile:
    """A frame in a file."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            SourceError: the file can't be read.
        """
        with readable(self.path):
            return self.path.read_bytes()

    def version(self) -> str:
        return file_version(self.path)


@dataclass(frozen=True)
class Region:
    """One defect of a frame.

    Attributes:
        word: of its type; None where nobody said which.
        mask: None where nobody drew it: a weak label, of the frame as a whole.
    """

    word: str | None
    mask: Mask | None = None

    def __post_init__(self) -> None:
        if self.word == GOOD:
            raise ValueError(f"a defect can't be called '{GOOD}'")


@dataclass(frozen=True)
class Sample:
    """One frame with what people say of it.

    Attributes:
        key: unique within its data set and stable: a path relative to the root, or a frame key.
        regions: of a defective frame, at least one; of any other, none.
        group: the physical part it shows (or board, strip, tile); None where nobody said. Splits keep a group together.
        day: when it was taken.
        split: the data set's own.
    """

    key: str
    product: str
    picture: Picture
    state: State
    regions: tuple[Region, ...] = ()
    group: str | None = None
    day: date | None = None
    split: Split | None = None

    def __post_init__(self) -> None:
        if (self.state is State.DEFECTIVE) != bool(self.regions):
            raise ValueError(f"{self.key}: {self.state.value} with {len(self.regions)} regions")

    @property
    def defective(self) -> bool:
        return self.state is State.DEFECTIVE

    @property
    def words(self) -> tuple[str, ...]:
        """Types of its defects as far as they are said, each once."""
        return tuple(dict.fromkeys(region.word for region in self.regions if region.word is not None))

    @property
    def word(self) -> str | None:
        """ "good", the one type of a defective frame, or None where it has several or none is said."""
        if self.state is State.GOOD:
            return GOOD
        if len(self.words) != 1 or any(region.word is None for region in self.regions):
            return None
        return self.words[0]

    @property
    def drawn(self) -> bool:
        """Whether it is known where the defects are."""
        return bool(self.regions) and all(region.mask is not None for region in self.regions)

    def image(self, limits: Limits | None = None) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] RGB, upright.

        Raises:
            SourceError: it can't be read or decoded, or a mask has another size than it.
        """
        return self.decoded(self.picture.read(), limits)

    def decoded(self, data: bytes, limits: Limits | None = None) -> NDArray[np.uint8]:
        """The same from the picture's bytes, where they are at hand."""
        try:
            pixels = decode(data, limits).pixels
        except FrameError as error:
            raise SourceError(
                f"{self.picture.name}: {error} Or take the image out of the data set."
            ) from error
        for region in self.regions:
            if region.mask is not None and region.mask.shape() != pixels.shape[:2]:
                height, width = region.mask.shape()
                raise SourceError(
                    f"{self.picture.name}: has {pixels.shape[1]} x {pixels.shape[0]} px, its mask {width} x {height}. "
                    "Masks must have the size of the upright frame."
                )
        return pixels

    def mask_at(self, size: int) -> NDArray[np.bool_] | None:
        """All defect pixels, bool [size, size]; empty for a good frame, None where they are not all known."""
        if self.state is State.GOOD:
            return np.zeros((size, size), bool)
        if not self.drawn:
            return None
        found = np.zeros((size, size), bool)
        for region in self.regions:
            assert region.mask is not None
            found |= region.mask.at(size)
        return found

    def types_at(self, words: Sequence[str], size: int) -> NDArray[np.int64] | None:
        """State per pixel [size, size]: 0 good, 1 + index into `words`, -1 a defect of none of them; None as `mask_at`."""
        if self.mask_at(size) is None:
            return None
        states = np.zeros((size, size), np.int64)
        index = {word: number for number, word in enumerate(words, 1)}
        for region in self.regions:
            assert region.mask is not None
            states[region.mask.at(size)] = index.get(region.word or "", -1)
        return states

    def types_in_pixels(self, words: Sequence[str]) -> NDArray[np.int16] | None:
        """The same for each pixel of the frame, [H, W]; None also for a good frame: it has no mask to say its size."""
        if not self.drawn:
            return None
        found: NDArray[np.int16] | None = None
        index = {word: number for number, word in enumerate(words, 1)}
        for region in self.regions:
            assert region.mask is not None
            marked = region.mask.marked()
            found = np.zeros(marked.shape, np.int16) if found is None else found
            found[marked] = index.get(region.word or "", -1)
        return found

    def version(self) -> str:
        """Changes whenever image or labels may have."""
        parts = [self.key, self.product, self.state.value, self.picture.version()]
        for region in self.regions:
            parts += [str(region.word), region.mask.version() if region.mask else "-"]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
