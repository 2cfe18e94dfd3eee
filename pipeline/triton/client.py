"""The Infer port over gRPC: frames out in requests, several under way at once, each answer checked for its pack."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferResult
from tritonclient.utils import InferenceServerException

from dapo.errors import DapoError, ServiceUnavailable
from dapo.inspection import Prediction
from dapo.pack import ANY_PRODUCT, Pack
from pipeline.triton.breaker import CircuitBreaker
from pipeline.triton.shared import SharedFrames
from pipeline.triton.window import Cancel, Done, Failure, Patience, send
from triton_models.connection import TRANSIENT, Address, RequestRefused, status, translated
from triton_models.contract import (
    ENSEMBLE,
    IMAGE,
    MAP,
    MAX_BATCH,
    PACK_HASH,
    PRODUCT,
    SCORE,
    TYPE_MAP,
    TYPE_SCORES,
    check,
    product_names,
)
from triton_models.server import ModelServer
from triton_models.tensors import arrays, ask, digest_bytes

_LOG = logging.getLogger(__name__)


class UnexpectedPack(ServiceUnavailable):
    """The model server answers under another pack than is expected: nothing of it may be published.

    It is worth waiting for: a deployment under way ends, or the expected pack is pushed again.
    """


class NotReady(ServiceUnavailable):
    """The model server runs, but serves no pack."""


@dataclass(frozen=True, slots=True)
class _Request:
    images: NDArray[np.uint8]
    products: tuple[str, ...]


class TritonInfer:
    """Asks the ensemble of a Triton server.

    Args:
        pack: what is expected to be served; its products and types are needed to ask and to read.
        address: of the server.
        patience: deadline of each request and how many are under way at once.
        breaker: opens after failures in a row.
        ensemble: which one to ask.
        request: frames of one request, at most `MAX_BATCH`.
        shared: the server runs on this host: hand frames over in shared memory.

    Raises:
        SettingsError: the address's files can't be read.
        ContractError: the pack has more types than the contract carries.
    """

    def __init__(
        self,
        pack: Pack,
        address: Address,
        patience: Patience | None = None,
        breaker: CircuitBreaker | None = None,
        *,
        ensemble: str = ENSEMBLE.name,
        request: int = MAX_BATCH,
        shared: bool = False,
    ) -> None:
        check(pack)
        self.image_size = pack.encoder.image_size
        self.pack = pack
        self._address, self._ensemble = address, ensemble
        self._patience, self._breaker = patience or Patience(), breaker or CircuitBreaker()
        self._frames = min(request, MAX_BATCH)
        self._index = {name: index for index, name in enumerate(product_names(pack))}
        self._digest = digest_bytes(pack.configuration_hash)
        self._server = ModelServer(address)
        window = self._patience.window
        self._shared = SharedFrames(window, self._frames, self.image_size) if shared else None

    def infer(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]:
        """See `pipeline.ports.Infer`.

        Raises:
            ServiceUnavailable: the server is away, too slow or ill; it was tried until the deadline.
            UnexpectedPack: it answers under another pack.
            RequestRefused: it serves the expected pack and will never answer this.
            ValueError: images and products differ in number.
        """
        if len(images) != len(products):
            raise ValueError(f"{len(images)} images for {len(products)} products")
        requests = [
            _Request(images[start : start + self._frames], tuple(products[start : start + self._frames]))
            for start in range(0, len(images), self._frames)
        ]
        try:
            answers = send(requests, self._submit, _kind, self._patience, self._breaker)
        except ServiceUnavailable:
            if self._breaker.open_s:
                self._reconnect()
            raise
        except RequestRefused:
            self.check()  # another pack may know other products, or take frames of another size
            raise
        return [prediction for answer in answers for prediction in answer]

    def check(self) -> None:
        """Make sure that the server serves the expected pack.

        Raises:
            ServiceUnavailable: it does not answer; NotReady: it serves nothing; UnexpectedPack: something else.
        """
        served = self._server.served(self._ensemble)
        if served is None:
            raise NotReady(f"model server {self._address.url} serves no '{self._ensemble}' yet.")
        if served.configuration_hash != self.pack.configuration_hash:
            raise self._unexpected(served.configuration_hash)

    def close(self) -> None:
        """Close the connection."""
        if self._shared is not None:
            self._shared.close(self._server.client)
        self._server.close()

    def _submit(self, request: _Request, seconds: float, done: Done[list[Prediction]]) -> Cancel:
        unknown = self._index[ANY_PRODUCT]
        indices = [[self._index.get(name, unknown)] for name in request.products]
        inputs = ask({PRODUCT.name: np.array(indices, np.int64)})
        shared = self._shared.put(self._server.client, request.images) if self._shared else None
        inputs += [shared[0]] if shared else ask({IMAGE.name: request.images})

        def ended(result: InferResult | None, error: InferenceServerException | None) -> None:
            # In a thread of gRPC's: whatever happens here must reach the caller, who waits for it.
            if self._shared is not None and shared is not None:
                self._shared.release(shared[1])
            if result is None:
                done(None, self._explained(error))
                return
            try:
                done(self._read(arrays(result), request.products), None)
            except DapoError as problem:
                done(None, problem)
            except Exception as problem:
                _LOG.exception("an answer of model server %s can't be read", self._address.url)
                text = f"model server {self._address.url} answers what can't be read: {problem!r}."
                done(None, ServiceUnavailable(text))

        call = self._server.client.async_infer(self._ensemble, inputs, ended, client_timeout=seconds)
        cancel: Cancel = call.cancel
        return cancel

    def _read(self, found: dict[str, NDArray[Any]], products: Sequence[str]) -> list[Prediction]:
        for said in found[PACK_HASH.name]:
            if not np.array_equal(said, self._digest):
                raise self._unexpected(said.tobytes().hex())
        return [
            Prediction(
                score=float(found[SCORE.name][row, 0]),
                map=found[MAP.name][
                    row
                ].copy(),  # the answer's own memory ends with it, and can't be written to
                type_map=found[TYPE_MAP.name][row].astype(np.uint16),
                type_scores=found[TYPE_SCORES.name][row, : len(self.pack.product(product).types)].copy(),
            )
            for row, product in enumerate(products)
        ]

    def _explained(self, error: InferenceServerException | None) -> DapoError:
        assert error is not None  # one of both is always given
        found = translated(self._address.url, error)
        if self._shared is not None and self._shared.name in error.message():
            self._shared.lost()
            return _Passing(str(found))
        if status(error) == "DEADLINE_EXCEEDED":
            return _Passing(f"{found} If it is only slow, give it longer with triton.deadline_s.")
        return _Passing(str(found)) if status(error) in TRANSIENT else found

    def _unexpected(self, found: str) -> UnexpectedPack:
        return UnexpectedPack(
            f"model server {self._address.url} answers under pack {found}, expected {self.pack.configuration_hash}. "
            "'dapo triton deploy' puts the expected pack on it."
        )

    def _reconnect(self) -> None:
        """Drop the connection: one whose other end went silent would look alive for a quarter of an hour."""
        _LOG.warning("model server %s failed several times in a row: connecting anew", self._address.url)
        self._server.close()
        self._server = ModelServer(self._address)


class _Passing(ServiceUnavailable):
    """The same request may go better a moment later."""


def _kind(error: DapoError) -> Failure:
    if isinstance(error, _Passing):
        return Failure.PASSING
    answered = isinstance(error, UnexpectedPack) or not isinstance(error, ServiceUnavailable)
    return Failure.OURS if answered else Failure.ILL
