"""The work of `clip_encoder`: `dapo.predictor.ImageSide` on requests."""

from __future__ import annotations

from typing import get_args

import torch

from dapo.errors import SettingsError
from dapo.memory import keep_freed_memory
from dapo.predictor import ImageSide
from dapo.runtime import Runtime
from triton_models.config import RUNTIME, THREADS, WEIGHTS_FOLDER
from triton_models.contract import CLS, FEATURES_HASH, IMAGE, MAX_BATCH, TAPS
from triton_models.settings import Settings, Tensors
from triton_models.weights import find_weights


class Encode:
    """Frames to features.

    Args:
        side: encoder with visual prompts and adapters.
        digest: features hash of the pack.
    """

    def __init__(self, side: ImageSide, digest: str) -> None:
        self._side = side
        self._digest = torch.frombuffer(bytearray.fromhex(digest), dtype=torch.uint8)

    @classmethod
    def load(cls, settings: Settings) -> Encode:
        """As a version's files and configuration say.

        Raises:
            PackError, EncoderMismatch, WeightsNotFound, SettingsError: see `ImageSide`.
        """
        keep_freed_memory()
        pack = settings.pack()
        weights = find_weights(pack.encoder, settings.parameters.get(WEIGHTS_FOLDER, ""))
        threads = settings.parameters.get(THREADS)
        side = ImageSide(
            pack,
            weights=weights,
            device=settings.device,
            threads=int(threads) if threads else None,
            runtime=_runtime(settings.parameters.get(RUNTIME, "auto")),
            batch=MAX_BATCH,
        )
        return cls(side, pack.features_hash)

    def __call__(self, inputs: Tensors) -> Tensors:
        """uint8 [B, S, S, 3] to cls [B, D], taps [B, L, N, D], features_hash [B, 32]."""
        features = self._side.features(inputs[IMAGE.name].cpu().numpy())
        return {
            CLS.name: features.cls,
            TAPS.name: torch.stack(features.taps, 1),
            FEATURES_HASH.name: self._digest.expand(len(features.cls), -1),
        }


def _runtime(name: str) -> Runtime:
    if name not in get_args(Runtime):
        raise SettingsError(f"runtime {name}: expected one of {', '.join(get_args(Runtime))}.")
    chosen: Runtime = name  # type: ignore[assignment]
    return chosen
