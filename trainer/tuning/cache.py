"""What the frozen half of the model says of frames, on disk, computed once.

    FOLDER/<kind>/<first two digits>/<SHA-256 of the encoded bytes>[-h|-v|-hv].safetensors

A kind's name is made from encoder, preprocessing and all else that decides the features, so an entry never goes stale, and
a folder may be deleted at any time. Files are mapped into memory when they are read. A frame that production cuts has an entry
for each window, named by content and rectangle, and a .json that says its size.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from dapo.pack import Polygon, Product, Tiles
from dapo.preprocess import resize
from dapo.tiles import Window, windows
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
class Cut:
    """How a product's frames are cut before the model sees them, as its pack says."""

    tiles: Tiles | None = None
    roi: tuple[Polygon, ...] = ()

    @classmethod
    def of(cls, product: Product) -> Cut:
        """As production cuts (`dapo.tiles.windows`)."""
        return cls(product.tiles, product.roi)

    @property
    def whole(self) -> bool:
        """Whether the model sees the frame as it is."""
        return self.tiles is None and not self.roi


WHOLE = Cut()


@dataclass(frozen=True)
class Content:
    """What a frame is told by.

    Attributes:
        encoded: SHA-256 of its bytes.
        pixels: SHA-256 of its decoded pixels: the same for a picture that was saved again without loss.
        windows: that it is cut into; none: it is seen as a whole.
        width, height: of the frame in px, where it is cut.
    """

    encoded: str
    pixels: str
    windows: tuple[Window, ...] = ()
    width: int = 0
    height: int = 0

    @property
    def entries(self) -> list[tuple[str, Window | None]]:
        """Name of each entry, and what of the frame it is of."""
        if not self.windows:
            return [(self.encoded, None)]
        return [(_name(self.encoded, window), window) for window in self.windows]


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
        cuts: Mapping[str, Cut] | None = None,
    ) -> list[Content]:
        """Compute what is missing; returns what each frame is told by.

        Args:
            variants: beside the frame as it is.
            advance: told how many more frames are done.
            cuts: product -> how its frames are cut; others are seen as a whole.

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
            cut = (cuts or {}).get(sample.product, WHOLE)
            known = self._known(encoded, cut)
            if known is None or self._missing(known, wanted):
                image = sample.decoded(data)
                content = _content(encoded, image, cut)
                if not cut.whole:
                    self._note_size(content)
                for name, window in content.entries:
                    small = resize(image if window is None else window.cut(image), self._size)
                    waiting += [
                        (self._path(name, v), mirrored(small, v), content.pixels)
                        for v in wanted
                        if known is None or not self._path(name, v).is_file()
                    ]
                known = content
            found.append(known)
            if len(waiting) >= _WAITING:
                self._write(waiting)
                waiting.clear()
            advance(1)
        self._write(waiting)
        return found

    def load(self, entries: Sequence[str], variants: Sequence[Variant] | None = None) -> dict[str, Tensor]:
        """What was kept of these entries, stacked: name -> [B, ...].

        Args:
            entries: a name of `Content.entries` each.
            variants: of each; None: as they are.
        """
        chosen = variants or [""] * len(entries)
        rows = [self._read(self._path(*one)) for one in zip(entries, chosen, strict=True)]
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

    def _known(self, encoded: str, cut: Cut) -> Content | None:
        """A frame as its entries remember it; None where they do not, or one was cut short."""
        try:
            content = Content(encoded, "")
            if not cut.whole:
                width, height = json.loads(self._path(encoded, "").with_suffix(".json").read_bytes())
                content = Content(encoded, "", _windows(width, height, cut), width, height)
            hashes = set()
            for name, _ in content.entries:
                with safe_open(self._path(name, ""), "numpy") as file:
                    hashes.add(str((file.metadata() or {})[_PIXELS]))
            [pixels] = hashes
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            return None
        return replace(content, pixels=pixels)

    def _missing(self, content: Content, variants: Sequence[Variant]) -> bool:
        return not all(self._path(name, v).is_file() for name, _ in content.entries for v in variants)

    def _note_size(self, content: Content) -> None:
        path = self._path(content.encoded, "").with_suffix(".json")
        with explained(path.parent):
            path.parent.mkdir(exist_ok=True)
        _write_once(path, json.dumps([content.width, content.height]).encode())

    def _read(self, path: Path) -> Arrays:
        with safe_open(path, "numpy") as file:
            names = file.keys()  # the open file itself can't be iterated
            return {name: file.get_tensor(name) for name in names}

    def _path(self, encoded: str, variant: str) -> Path:
        return self._folder / encoded[:2] / f"{encoded}{'-' if variant else ''}{variant}.safetensors"


def _content(encoded: str, image: NDArray[np.uint8], cut: Cut) -> Content:
    if cut.whole:
        return Content(encoded, pixels_hash(image))
    height, width = image.shape[:2]
    return Content(encoded, pixels_hash(image), _windows(width, height, cut), width, height)


def _windows(width: int, height: int, cut: Cut) -> tuple[Window, ...]:
    return tuple(windows(width, height, cut.tiles, cut.roi))


def _name(encoded: str, window: Window) -> str:
    said = f"{encoded} {window.x} {window.y} {window.width} {window.height}"
    return hashlib.sha256(said.encode()).hexdigest()


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
