"""What the frozen half of the model says of frames, on disk, computed once.

    FOLDER/<kind>/<first two digits>/<SHA-256 of the encoded bytes>[-h|-v|-hv].safetensors

A kind's name is made from encoder, preprocessing and all else that decides the features, so an entry never goes stale, and
a folder may be deleted at any time. Files are mapped into memory when they are read.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from dapo.preprocess import resize
from pipeline.atomic import explained, write_whole
from trainer.data.sample import Sample
from trainer.data.split import pixels_hash
from trainer.tuning.frozen import Arrays, Frozen

Variant = Literal["", "h", "v", "hv"]  # mirrored left to right, upside down, both
VARIANTS: tuple[Variant, ...] = ("", "h", "v", "hv")
T = TypeVar("T", bound=np.generic)
_PIXELS = "pixels"  # in an entry's header: SHA-256 of the decoded frame
_WAITING = 16  # decoded frames that wait to be computed


@dataclass(frozen=True)
class Content:
    """What a frame is told by.

    Attributes:
        encoded: SHA-256 of its bytes: the name of its entries.
        pixels: SHA-256 of its decoded pixels: the same for a picture that was saved again without loss.
    """

    encoded: str
    pixels: str


class FeatureCache:
    """Entries of one frozen half.

    Args:
        folder: for the entries of all kinds.
        frozen: what computes them.
        image_size: side of the model's input in px.

    Raises:
        OutputError: the folder can't be made.
    """

    def __init__(self, folder: Path, frozen: Frozen, image_size: int) -> None:
        said = json.dumps(frozen.identity, sort_keys=True)
        self._folder = folder / f"{frozen.identity['kind']}-{hashlib.sha256(said.encode()).hexdigest()[:16]}"
        self._frozen, self._size = frozen, image_size
        with explained(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        _write_once(self._folder / "kind.json", said.encode())

    def fill(
        self,
        samples: Sequence[Sample],
        variants: Sequence[Variant] = ("",),
        advance: Callable[[int], None] = lambda count: None,
    ) -> list[Content]:
        """Compute what is missing; returns what each frame is told by.

        Args:
            variants: beside the frame as it is.
            advance: told how many more frames are done.

        Raises:
            SourceError: a frame can't be read or decoded, or a mask does not fit it.
            OutputError: an entry can't be written.
        """
        wanted = tuple(dict.fromkeys(("", *variants)))
        found: list[Content] = []
        waiting: list[tuple[Path, NDArray[np.uint8], str]] = []
        for sample in samples:
            data = sample.picture.read()
            encoded = hashlib.sha256(data).hexdigest()
            pixels = self._pixels(encoded)
            missing = [v for v in wanted if pixels is None or not self._path(encoded, v).is_file()]
            if missing:
                image = sample.decoded(data)
                pixels = pixels_hash(image)
                small = resize(image, self._size)
                waiting += [(self._path(encoded, v), mirrored(small, v), pixels) for v in missing]
            assert pixels is not None
            found.append(Content(encoded, pixels))
            if len(waiting) >= _WAITING:
                self._write(waiting)
                waiting.clear()
            advance(1)
        self._write(waiting)
        return found

    def load(self, contents: Sequence[str], variants: Sequence[Variant] | None = None) -> dict[str, Tensor]:
        """What was kept of these frames, stacked: name -> [B, ...].

        Args:
            contents: `Content.encoded` of each.
            variants: of each; None: as they are.
        """
        chosen = variants or [""] * len(contents)
        rows = [self._read(self._path(*one)) for one in zip(contents, chosen, strict=True)]
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}

    def _write(self, waiting: Sequence[tuple[Path, NDArray[np.uint8], str]]) -> None:
        # On a CPU one by one: what a frame gives must not depend, not by a bit, on what was missing beside it.
        together = self._frozen.together
        for first in range(0, len(waiting), together):
            batch = waiting[first : first + together]
            kept = self._frozen.arrays(np.stack([image for _, image, _ in batch]))
            for (path, _, pixels), arrays in zip(batch, kept, strict=True):
                path.parent.mkdir(exist_ok=True)
                tensors = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
                _write_once(path, save(tensors, {_PIXELS: pixels}))

    def _pixels(self, encoded: str) -> str | None:
        """Hash of the pixels as an entry remembers it; None where there is no whole entry."""
        try:
            with safe_open(self._path(encoded, ""), "numpy") as file:
                return str((file.metadata() or {})[_PIXELS])
        except (OSError, SafetensorError, KeyError):
            return None

    def _read(self, path: Path) -> Arrays:
        with safe_open(path, "numpy") as file:
            names = file.keys()  # the open file itself can't be iterated
            return {name: file.get_tensor(name) for name in names}

    def _path(self, encoded: str, variant: str) -> Path:
        return self._folder / encoded[:2] / f"{encoded}{'-' if variant else ''}{variant}.safetensors"


def _write_once(path: Path, data: bytes) -> None:
    """Under a name of its own first: several processes may fill one folder."""
    own = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with write_whole(own) as file:
        file.write(data)
    with explained(path):
        own.replace(path)


def mirrored(image: NDArray[T], variant: Variant) -> NDArray[T]:
    """[H, W, ...] as a variant has it; contiguous."""
    image = image[:, ::-1] if "h" in variant else image
    return np.ascontiguousarray(image[::-1] if "v" in variant else image)
