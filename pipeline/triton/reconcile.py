"""Push a pack again to every model server that came back without it: what was pushed does not survive a restart.

A server that serves another pack is left alone unless `replace` is said: workers that expect different packs, as
during a roll-out, would else push each other's away for ever. One process may say it: `dapo triton reconcile`.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dapo.errors import DapoError, ServiceUnavailable
from dapo.pack import Pack
from triton_models.config import Placement
from triton_models.connection import Address
from triton_models.contract import ENSEMBLE
from triton_models.deploy import deploy
from triton_models.server import ModelServer

_LOG = logging.getLogger(__name__)
PERIOD_S = 0.25  # a look costs the server a millisecond; frames wait while a restarted one goes unnoticed
# Several workers notice an empty server together; whoever comes first pushes, the others see that it is loading.
_STEP_ASIDE_S = 0.25


class State(StrEnum):
    """What a look at a server found."""

    SERVES = "serves the pack"
    OTHER = "serves another pack"
    EMPTY = "serves nothing"
    LOADING = "is loading"
    AWAY = "does not answer"
    FAILED = "can't be given the pack"


@dataclass(frozen=True)
class Sight:
    """What was found at a server, and why where that needs saying."""

    state: State
    why: str = ""


class Reconciler:
    """Keeps servers at a pack.

    Args:
        pack: that they have to serve.
        addresses: of the servers; each is looked at by itself.
        keep: packs that are pushed beside it.
        placement: as it was deployed.
        replace: also push to a server that serves another pack.
    """

    def __init__(
        self,
        pack: Pack,
        addresses: Sequence[Address],
        keep: Sequence[Pack] = (),
        placement: Placement = Placement(),
        *,
        ensemble: str = ENSEMBLE.name,
        replace: bool = False,
    ) -> None:
        self.addresses = tuple(addresses)
        self._pack, self._keep, self._placement = pack, tuple(keep), placement
        self._ensemble, self._replace = ensemble, replace
        self._told: dict[str, Sight] = {}

    def look(self, address: Address) -> Sight:
        """What a server serves now. Changes nothing."""
        try:
            with ModelServer(address) as server:
                served = server.served(self._ensemble)
                if served is None:
                    return Sight(State.LOADING if server.loading() else State.EMPTY)
        except ServiceUnavailable as error:
            return Sight(State.AWAY, str(error))
        except DapoError as error:
            return Sight(State.FAILED, str(error))
        if served.configuration_hash == self._pack.configuration_hash:
            return Sight(State.SERVES)
        return Sight(State.OTHER, f"it serves pack {served.configuration_hash}")

    def mend(self, address: Address) -> Sight:
        """Push the pack where a server lacks it, and say what it serves then. Takes as long as loading does."""
        found = self.look(address)
        if not self._lacks(found):
            return found
        _LOG.warning(
            "model server %s %s: pushing %s", address.url, found.state, self._pack.configuration_hash
        )
        try:
            with ModelServer(address) as server:
                deploy(
                    server, self._pack, self._keep, self._placement,
                    ensemble=self._ensemble, replace=self._replace,
                )  # fmt: skip
        except ServiceUnavailable as error:
            return Sight(State.AWAY, str(error))
        except DapoError as error:
            return Sight(State.FAILED, str(error))
        return self.look(address)

    def run(
        self,
        stop: threading.Event,
        period_s: float = PERIOD_S,
        tell: Callable[[Address, Sight], None] = lambda address, sight: None,
        may: Callable[[], bool] = lambda: True,
    ) -> None:
        """Look at all servers every `period_s` until `stop` is set.

        Args:
            tell: told of each server whose sight has changed.
            may: asked before each server is mended.
        """
        while not stop.is_set():
            self.turn(stop, tell, may)
            stop.wait(period_s)

    def turn(
        self,
        stop: threading.Event,
        tell: Callable[[Address, Sight], None] = lambda address, sight: None,
        may: Callable[[], bool] = lambda: True,
    ) -> None:
        """Look at all servers once, and mend those that lack the pack; see `run`.

        Args:
            may: asked before each server is mended.
        """
        for address in self.addresses:
            found = self.look(address)
            if self._lacks(found) and not stop.wait(random.uniform(0, _STEP_ASIDE_S)) and may():
                found = self.mend(address)
            if self._told.get(address.url) != found:
                self._told[address.url] = found
                tell(address, found)

    def _lacks(self, found: Sight) -> bool:
        return found.state is State.EMPTY or (found.state is State.OTHER and self._replace)
