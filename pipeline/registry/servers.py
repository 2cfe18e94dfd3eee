"""A model server as a promotion needs it: load beside what is served, then serve; two steps, so that many switch at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dapo.pack import Pack
from triton_models.config import Placement
from triton_models.connection import Address
from triton_models.deploy import load, loaded, point
from triton_models.probe import probe
from triton_models.server import ModelServer


class Server(Protocol):
    """One of the servers that a line asks. All methods raise ServiceUnavailable where it is away, DapoError where it can't."""

    name: str

    def served(self) -> set[str]:
        """Configuration hashes of all packs that it answers with now."""
        ...

    def load(self, pack: Pack, keep: Sequence[Pack]) -> None:
        """Have a pack ready beside those to be kept, tried with a known answer. What is served is served on."""
        ...

    def serve(self, pack: Pack, keep: Sequence[Pack]) -> None:
        """Answer with a pack that is loaded. Takes milliseconds."""
        ...


class TritonServer:
    """See `Server`.

    Args:
        address: of its gRPC endpoint.
        placement: where and how what is loaded runs.
    """

    def __init__(self, address: Address, placement: Placement = Placement()) -> None:
        self.name = address.url
        self._address, self._placement = address, placement

    def served(self) -> set[str]:
        """See `Server`."""
        with ModelServer(self._address) as server:
            return {one.configuration_hash for one in server.ensembles().values()}

    def load(self, pack: Pack, keep: Sequence[Pack]) -> None:
        """See `Server`. What is loaded already, as on the way back, is not loaded again."""
        with ModelServer(self._address) as server:
            if loaded(server, pack):
                probe(server, pack)
            else:
                load(server, pack, keep, self._placement)

    def serve(self, pack: Pack, keep: Sequence[Pack]) -> None:
        """See `Server`."""
        with ModelServer(self._address) as server:
            point(server, pack, keep)
