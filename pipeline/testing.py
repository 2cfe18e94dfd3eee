"""Fakes of the ports, for tests here and elsewhere: nobody patches.

FakeSource   frames from memory
FakeInfer    anomaly where a cell differs from its image's median: finds bright and dark spots, needs no weights
MemorySink   results in a list
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dapo.inspection import Prediction
from dapo.pack import EncoderRef, Pack, Product, Scoring, TypeWord
from pipeline.ports import Frame, Result

GRID = 8
SIZE = 64
DAY = datetime(2026, 1, 1, tzinfo=UTC)


def surface(seed: int = 0, *, defect: bool = False, width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """A grey surface with grain, uint8 [height, width, 3]; with a dark blot right of its middle."""
    random = np.random.default_rng(seed)
    grey = random.normal(150, 8, (height, width))
    if defect:
        rows, columns = np.ogrid[:height, :width]
        grey[(rows - height / 2) ** 2 + (columns - width * 0.7) ** 2 < (min(height, width) / 6) ** 2] = 20
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def encoded(pixels: NDArray[np.uint8], form: str = "PNG") -> bytes:
    """An image file in memory."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def frame(frame_id: str = "a.png", data: bytes | None = None, **fields: Any) -> Frame:
    """A frame from memory: a good surface unless `data` is given; `fields` are others of `Frame`."""
    body = encoded(surface()) if data is None else data
    return replace(Frame(frame_id, "memory://test", DAY, body), **fields)


def small_pack(*types: str, products: dict[str, Product] | None = None) -> Pack:
    """A pack whose vectors are unit vectors: for `FakeInfer`, which looks at none of them."""
    words = types or ("scratch", "hole")
    width = 4 + len(words)
    rows = np.eye(width, dtype=np.float32)
    own = {"*": Product(types=words), **(products or {})}
    return Pack(
        kind="handwritten",
        encoder=EncoderRef("fake", "none", "0" * 64, SIZE, GRID, width),
        scoring=Scoring(),
        temperature=0.01,
        alpha=0.0,
        readout="eot",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        types=tuple(TypeWord(word, word) for word in words),
        generic_words=("defect",),
        products=own,
        provenance={},
        tensors={"text.normal": rows[0], "text.generic": rows[1], "text.types": rows[2 : 2 + len(words)]},
    )


class FakeSource:
    """Gives frames from memory.

    Args:
        frames: any number; may be endless.
        total: number of frames where it is known.
    """

    def __init__(self, frames: Iterable[Frame], total: int | None = None) -> None:
        self._frames = frames
        self._closed = False
        self.total = len(frames) if total is None and isinstance(frames, Sequence) else total

    def __iter__(self) -> Iterator[Frame]:
        for one in self._frames:
            if self._closed:
                return
            yield one

    def close(self) -> None:
        """End the iteration."""
        self._closed = True


class FakeInfer:
    """Anomaly per cell: difference of the cell's mean from the image's median, 0 at 0 and 1 at 60 grey levels.

    Type 0 where the cell is darker, type 1 (where the product has one) where it is brighter. Deterministic.

    Attributes:
        calls: number of images of each call.
    """

    def __init__(self, pack: Pack, image_size: int = SIZE) -> None:
        self._pack = pack
        self.image_size = image_size
        self.configuration_hash = pack.configuration_hash
        self.calls: list[int] = []

    def infer(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]:
        """See `pipeline.ports.Infer`."""
        if len(images) != len(products):
            raise ValueError(f"{len(images)} images for {len(products)} products")
        self.calls.append(len(images))
        return [self._one(image, product) for image, product in zip(images, products, strict=True)]

    def close(self) -> None:
        """Nothing to release."""

    def _one(self, image: NDArray[np.uint8], product: str) -> Prediction:
        side = self.image_size // GRID
        cells = image.mean(axis=2).reshape(GRID, side, GRID, side).mean(axis=(1, 3))
        difference = cells - np.median(cells)
        anomaly = np.clip(np.abs(difference) / 60, 0, 1).astype(np.float16)
        count = len(self._pack.product(product).types)
        types = np.where(difference > 0, min(1, max(0, count - 1)), 0).astype(np.uint16)
        weights = np.bincount(types.ravel(), anomaly.ravel().astype(np.float64), count)[:count] + 1e-6
        return Prediction(
            score=float(anomaly.max()),
            map=anomaly,
            type_map=types,
            type_scores=(weights / weights.sum()).astype(np.float32) if count else np.empty(0, np.float32),
        )


class MemorySink:
    """Keeps results; pixels are dropped, as every sink must.

    Attributes:
        written: in order.
        durable: number of results that survive a crash.
        closed: `close` was called.
    """

    def __init__(self) -> None:
        self.written: list[Result] = []
        self.durable = 0
        self.closed = False

    def write(self, result: Result) -> None:
        """See `pipeline.ports.Sink`."""
        self.written.append(_without_pixels(result))

    def flush(self) -> None:
        """All written results count as durable."""
        self.durable = len(self.written)

    def close(self) -> None:
        """Flush, and take no more."""
        self.flush()
        self.closed = True


def _without_pixels(result: Result) -> Result:
    return replace(result, pixels=None, frame=replace(result.frame, pixels=None))
