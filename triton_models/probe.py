"""A known answer through the whole of a server: gRPC, shared memory, DLPack, torch, and back.

The features of a frame that looks exactly like the pack's own words have a score that numpy can say. A server that
reads or writes tensors wrongly answers something else; it is found out here, before a frame is asked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dapo.pack import ANY_PRODUCT, Pack
from triton_models.connection import explained
from triton_models.contract import (
    CLS,
    ENCODER,
    FEATURES_HASH,
    HEAD,
    IMAGE,
    PACK_HASH,
    PRODUCT,
    SCORE,
    TAPS,
    Sizes,
    product_names,
)
from triton_models.repository import DeployError
from triton_models.server import ModelServer
from triton_models.tensors import arrays, ask, digest_bytes
from triton_models.versions import Versions

_TOLERANCE = 1e-3  # half precision on a GPU; what is wrong is wrong by more
_DEADLINE_S = 120.0  # the first run of a large encoder on a busy CPU


def probe(server: ModelServer, pack: Pack) -> None:
    """Ask both models of a pack for known answers.

    Raises:
        DeployError: an answer is wrong.
        ServiceUnavailable: the server does not answer.
    """
    versions, side = Versions.of(pack), digest_bytes(pack.features_hash)
    words = _words(pack)
    size = Sizes.of(pack)
    frames: dict[str, NDArray[Any]] = {
        CLS.name: words,
        TAPS.name: np.broadcast_to(
            words[:, None, None], (2, 1 + pack.has_stem_tap, size.grid**2, size.width)
        ),
        FEATURES_HASH.name: np.stack([side, side]),
        PRODUCT.name: np.full((2, 1), product_names(pack).index(ANY_PRODUCT), np.int64),
    }
    found = _answers(server, HEAD.name, versions.head, frames)
    _expect("pack_hash", bytes(found[PACK_HASH.name][1]).hex(), pack.configuration_hash)
    for said, known in zip(found[SCORE.name][:, 0], _scores(pack, words), strict=True):
        if not abs(said - known) < _TOLERANCE:
            raise DeployError(f"{HEAD.name}: a score that must be {known:.4f} is {said:.4f}. {_ADVICE}")
    image = np.zeros((2, size.image, size.image, 3), np.uint8)
    image[1, ::2] = 255
    seen = _answers(server, ENCODER.name, versions.encoder, {IMAGE.name: image})
    _expect("features_hash", bytes(seen[FEATURES_HASH.name][1]).hex(), bytes(side).hex())
    black, striped = seen[CLS.name]
    if not (np.allclose(np.linalg.norm(seen[CLS.name], axis=1), 1, atol=_TOLERANCE)) or np.allclose(
        black, striped
    ):
        raise DeployError(
            f"{ENCODER.name}: features of a black and a striped image are not what they must be. {_ADVICE}"
        )


_ADVICE = "The server reads or writes tensors wrongly: see its log, and the versions of its Python, numpy and torch."


def _words(pack: Pack) -> NDArray[np.float32]:
    """Features that look as normal as can be, and as defective: [2, D]."""
    defect = pack.tensors["text.generic"]
    if pack.scoring.kind == "paper":
        mean = pack.tensors["text.types"].mean(0)
        defect = mean / np.linalg.norm(mean)
    return np.stack([pack.tensors["text.normal"], defect]).astype(np.float32)


def _scores(pack: Pack, words: NDArray[np.float32]) -> NDArray[np.float32]:
    """Their scores: softmax over the two words, [2]."""
    logits = words @ words.T / pack.temperature
    return np.asarray(1 / (1 + np.exp(logits[:, 0] - logits[:, 1])), np.float32)


def _answers(
    server: ModelServer, model: str, version: int, inputs: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    with explained(server.address.url):
        return arrays(
            server.client.infer(model, ask(inputs), model_version=str(version), client_timeout=_DEADLINE_S)
        )


def _expect(what: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise DeployError(f"{what}: the server answers {found}, expected {wanted}. {_ADVICE}")
