"""Which version of which model a pack is.

A version's number is made from a hash, so everybody who deploys a pack, to whatever server and whenever, comes to the
same number: pushing twice is pushing once, and nobody has to count. Packs that differ only in words, products,
thresholds or scoring have the same image side, and share a version of the encoder.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np

from dapo.pack import Pack

_DIGITS = 8  # hex digits: 4 billion numbers for the handful that one server keeps, and still readable


def features_hash(pack: Pack) -> str:
    """SHA-256 of a pack's image side: all that decides the features of an image, and nothing else."""
    said = {
        "encoder": asdict(pack.encoder),
        "kind": pack.kind,
        "mean": pack.mean,
        "std": pack.std,
        "alpha": pack.alpha,
    }
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name in sorted(pack.tensors):
        if name.startswith(("prompt.visual", "adapter.")):
            array = np.ascontiguousarray(pack.tensors[name], dtype="<f4")
            digest.update(f"{name} {list(array.shape)}\n".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, order=True)
class Versions:
    """Versions of the two models that together are one pack."""

    encoder: int
    head: int

    @classmethod
    def of(cls, pack: Pack) -> Versions:
        """The versions of a pack."""
        return cls(_number(features_hash(pack)), _number(pack.configuration_hash))


def _number(digest: str) -> int:
    return 1 + int(digest[:_DIGITS], 16)  # Triton's versions begin at 1
