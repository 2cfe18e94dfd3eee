"""The Infer port in this process: torch, loaded when it is first needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dapo.errors import DapoError
from dapo.inspection import Prediction
from dapo.pack import ANY_PRODUCT, Pack

if TYPE_CHECKING:
    from dapo.predictor import Predictor


class InProcessInfer:
    """Answers batches with a `dapo.predictor.Predictor`.

    The model always gets batches of exactly `batch` images, filled up with black ones: matrix products round
    differently for different batch sizes, and an image's answer must not depend on how many came with it.

    Args:
        pack: what to inspect with.
        batch: images per run of the model.
        weights: local file of the encoder's weights.
        device: as torch names it.
        threads: of torch; None leaves them.
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
        predictor: Predictor | None = None,
    ) -> None:
        if predictor is None:
            from dapo.predictor import Predictor

            predictor = Predictor(pack, weights=weights, device=device, threads=threads)
        self._predictor = predictor
        self._batch = batch
        self.image_size = predictor.image_size
        self.configuration_hash = pack.configuration_hash

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
            part = images[start : start + self._batch]
            names = list(products[start : start + self._batch])
            missing = self._batch - len(part)
            if missing:
                part = np.concatenate([part, np.zeros((missing, *images.shape[1:]), np.uint8)])
            found += self._predict(part, names + [ANY_PRODUCT] * missing)[: len(names)]
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
