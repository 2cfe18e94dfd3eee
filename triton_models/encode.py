"""The work of `clip_encoder`: `dapo.predictor.ImageSide` on batches of one size."""

from __future__ import annotations

import ctypes

import numpy as np
import torch

from dapo.predictor import ImageSide
from triton_models.config import RUN_BATCH, THREADS, WEIGHTS_FOLDER
from triton_models.contract import CLS, FEATURES_HASH, IMAGE, MAX_BATCH, TAPS
from triton_models.settings import Settings, Tensors
from triton_models.versions import features_hash
from triton_models.weights import find_weights

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_LARGEST_BLOCK = 32 * 2**20  # glibc takes no more here; an encoder's intermediate results are a few MB each


def keep_freed_memory() -> bool:
    """Let this process keep what it frees. False where its C library is not glibc.

    Left to itself glibc gives large blocks back to the system and takes them again for the next frame, page by page:
    3,000 page faults a frame and 8 of dapo-tiny's 46 ms on one core. A model's process needs the same blocks for ever.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))


class Encode:
    """Frames to features.

    Args:
        side: encoder with visual prompts and adapters.
        digest: features hash of the pack.
        run_batch: the encoder always gets so many images, filled up with black ones: matrix products round differently
            for different sizes, and an answer must not depend on how many frames came with it.
    """

    def __init__(self, side: ImageSide, digest: str, run_batch: int) -> None:
        self._side = side
        self._digest = torch.frombuffer(bytearray.fromhex(digest), dtype=torch.uint8)
        self._run_batch = run_batch

    @classmethod
    def load(cls, settings: Settings) -> Encode:
        """As a version's files and configuration say.

        Raises:
            PackError, EncoderMismatch, WeightsNotFound, SettingsError: see `ImageSide`.
        """
        if threads := settings.parameters.get(THREADS):
            torch.set_num_threads(int(threads))
        keep_freed_memory()
        pack = settings.pack()
        weights = find_weights(pack.encoder, settings.parameters.get(WEIGHTS_FOLDER, ""))
        side = ImageSide(pack, weights=weights, device=settings.device)
        run_batch = settings.parameters.get(RUN_BATCH) or (1 if settings.device == "cpu" else MAX_BATCH)
        return cls(side, features_hash(pack), int(run_batch))

    def __call__(self, inputs: Tensors) -> Tensors:
        """uint8 [B, S, S, 3] to cls [B, D], taps [B, L, N, D], features_hash [B, 32]."""
        images = inputs[IMAGE.name].cpu().numpy()
        count, step = len(images), self._run_batch
        if missing := -count % step:
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
        parts = [self._side.features(images[start : start + step]) for start in range(0, count, step)]
        return {
            CLS.name: torch.cat([part.cls for part in parts])[:count],
            TAPS.name: torch.cat([torch.stack(part.taps, 1) for part in parts])[:count],
            FEATURES_HASH.name: self._digest.expand(count, -1),
        }
