"""The work of `dapo_head`: `dapo.predictor.Head`, and its predictions as tensors of the contract."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dapo.inspection import Prediction
from dapo.predictor import Head
from triton_models.config import THREADS
from triton_models.contract import (
    CLS,
    FEATURES_HASH,
    MAP,
    PACK_HASH,
    PRODUCT,
    SCORE,
    TAPS,
    TYPE_MAP,
    TYPE_SCORES,
    max_types,
    product_names,
)
from triton_models.settings import Settings, Tensors, Unanswerable


class Predict:
    """Features to predictions.

    Args:
        head: of the pack.
        device: where the features are wanted.
    """

    def __init__(self, head: Head, device: str = "cpu") -> None:
        self._head, self._device = head, device
        self._names = product_names(head.pack)
        self._width = max_types(head.pack)
        self._features = torch.frombuffer(bytearray.fromhex(head.pack.features_hash), dtype=torch.uint8)
        self._pack = torch.frombuffer(bytearray.fromhex(head.pack.configuration_hash), dtype=torch.uint8)

    @classmethod
    def load(cls, settings: Settings) -> Predict:
        """As a version's files and configuration say.

        Raises:
            PackError, SettingsError: see `Head`.
        """
        if threads := settings.parameters.get(THREADS):
            torch.set_num_threads(int(threads))
        return cls(Head(settings.pack(), device=settings.device), settings.device)

    def __call__(self, inputs: Tensors) -> Tensors:
        """Features and product indices of a batch to score, map, type_map, type_scores, pack_hash.

        Raises:
            Unanswerable: a product index is not one of this pack's.
        """
        products = self._products(inputs[PRODUCT.name].flatten().tolist())
        cls, taps = inputs[CLS.name].to(self._device), inputs[TAPS.name].to(self._device)
        found = self._head.predict(cls, taps, products)
        # Features of another image side would give plausible nonsense: it is not signed with this pack's hash.
        ours = (inputs[FEATURES_HASH.name].cpu() == self._features).all(1, keepdim=True)
        return {
            SCORE.name: torch.tensor([[one.score] for one in found], dtype=torch.float32),
            MAP.name: torch.from_numpy(np.stack([one.map for one in found])),
            TYPE_MAP.name: torch.from_numpy(np.stack([one.type_map.astype(np.uint8) for one in found])),
            TYPE_SCORES.name: self._padded(found),
            PACK_HASH.name: torch.where(ours, self._pack, torch.zeros_like(self._pack)),
        }

    def _products(self, indices: Sequence[int]) -> list[str]:
        for index in indices:
            if not 0 <= index < len(self._names):
                raise Unanswerable(
                    f"product {index}: the pack {self._head.pack.configuration_hash} has products 0 to "
                    f"{len(self._names) - 1}. Ask with the pack that this server serves."
                )
        return [self._names[index] for index in indices]

    def _padded(self, found: Sequence[Prediction]) -> torch.Tensor:
        scores = torch.full((len(found), self._width), -torch.inf)
        for row, one in zip(scores, found, strict=True):
            row[: len(one.type_scores)] = torch.from_numpy(one.type_scores)
        return scores
