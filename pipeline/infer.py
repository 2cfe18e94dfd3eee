"""The Infer port in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dapo.errors import DapoError
from dapo.inspection import Prediction
from dapo.pack import Pack

if TYPE_CHECKING:
    from dapo.predictor import Predictor
    from dapo.runtime import Runtime


class InProcessInfer:
    """Answers batches with a `dapo.predictor.Predictor`.

    Args:
        pack: what to inspect with.
        batch: images per run of the model.
        weights, device, threads, runtime: see `Predictor`.
        predictor: already loaded, instead of loading one.

    Raises:
        WeightsNotFound, EncoderMismatch, SettingsError: as `Predictor`.
    """

    def __init__(
        self,
        pack: Pack,
        *,
        batch: int = 8,
        weights: Path | None = None,
        device: str = "cpu",
        threads: int | None = None,
        runtime: Runtime = "auto",
        predictor: Predictor | None = None,
    ) -> None:
        if predictor is None:
            from dapo.predictor import Predictor

            predictor = Predictor(
                pack, weights=weights, device=device, threads=threads, runtime=runtime, batch=batch
            )
        self._predictor = predictor
        self._batch = batch
        self.image_size = predictor.image_size
        self.pack = pack

    def infer(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]:
        """See `pipeline.ports.Infer`.

        Raises:
            ValueError: images and products differ in number, or the images have another size.
            DapoError: the device has no memory left for a batch.
        """
        if len(images) != len(products):
            raise ValueError(f"{len(images)} images for {len(products)} products")
        found: list[Prediction] = []
        for start in range(0, len(images), self._batch):
            end = start + self._batch
            found += self._predict(images[start:end], products[start:end])
        return found

    def close(self) -> None:
        """Nothing to release: the model goes with the object."""

    def _predict(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]:
        import torch

        try:
            return self._predictor.predict(images, products)
        except torch.OutOfMemoryError as error:
            raise DapoError(
                f"the device has too little memory for batches of {self._batch} images. Give a smaller --batch."
            ) from error
