"""Arrays to tensors of a request, and an answer's tensors to arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferResult
from tritonclient.utils import np_to_triton_dtype


def ask(arrays: Mapping[str, NDArray[Any]]) -> list[InferInput]:
    """Inputs of a request, by tensor name."""
    found = []
    for name, array in arrays.items():
        one = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        one.set_data_from_numpy(np.ascontiguousarray(array))
        found.append(one)
    return found


def arrays(answer: InferResult) -> dict[str, NDArray[Any]]:
    """All outputs of an answer, by tensor name; they can't be written to."""
    return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}


def digest_bytes(digest: str) -> NDArray[np.uint8]:
    """A hash as hex digits -> uint8 [32]."""
    return np.frombuffer(bytes.fromhex(digest), np.uint8)
