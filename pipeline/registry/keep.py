"""Model servers kept at the registry's champion: `dapo triton reconcile --follow`.

While somebody promotes, servers are left alone: they serve the new pack a moment before the pointer says so. One that holds
its lease no longer has died, and what it left on the servers is put right.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from dapo.errors import DapoError
from pipeline.registry.lease import is_live
from pipeline.registry.pointers import Pointers
from pipeline.registry.registry import Registry
from pipeline.triton.reconcile import Reconciler, Sight
from triton_models.config import Placement
from triton_models.connection import Address
from triton_models.contract import ENSEMBLE

_LOG = logging.getLogger(__name__)


class ChampionKeeper:
    """Keeps servers at the champion, the previous one loaded beside it.

    Args:
        registry: whose champion.
        addresses: of the servers.
        placement: where and how what is pushed runs.
    """

    def __init__(
        self,
        registry: Registry,
        addresses: Sequence[Address],
        placement: Placement = Placement(),
        *,
        ensemble: str = ENSEMBLE.name,
    ) -> None:
        self._registry, self._addresses, self._placement = registry, addresses, placement
        self._ensemble = ensemble
        self._watch: Reconciler | None = None
        self._of: tuple[str | None, str | None, str | None] = (None, None, None)
        self._said = ""

    def run(
        self,
        stop: threading.Event,
        period_s: float,
        tell: Callable[[Address, Sight], None] = lambda address, sight: None,
    ) -> None:
        """Look at pointers and servers every `period_s` until `stop` is set.

        A registry that is away, or has no champion, leaves all as it is.
        """
        while not stop.is_set():
            self.turn(stop, tell)
            stop.wait(period_s)

    def turn(
        self, stop: threading.Event, tell: Callable[[Address, Sight], None] = lambda address, sight: None
    ) -> None:
        """Look once, and mend what is not at the champion."""
        try:
            pointers = self._registry.pointers()
            if pointers.lease is not None and is_live(pointers.lease, datetime.now(UTC)):
                return
            self._follow(pointers)
        except DapoError as error:
            if str(error) != self._said:
                self._said = str(error)
                _LOG.warning("the champion is not known now: %s", error)
            return
        self._said = ""
        if self._watch is not None:
            self._watch.turn(stop, tell, lambda: self._still(pointers))

    def _still(self, looked: Pointers) -> bool:
        """Whether nobody promotes, and the champion is the one that was looked at: a turn may take minutes."""
        try:
            now = self._registry.pointers()
        except DapoError:
            return False
        promoting = now.lease is not None and is_live(now.lease, datetime.now(UTC))
        return not promoting and now.champion == looked.champion

    def _follow(self, pointers: Pointers) -> None:
        wanted = (pointers.champion, pointers.previous, pointers.challenger)
        if wanted == self._of or pointers.champion is None:
            return
        champion = self._registry.pack(pointers.champion)
        # The challenger too: a shadow run may ask for it, and a push without it would take it away.
        keep = self._registry.readable(one for one in wanted[1:] if one != pointers.champion)
        self._watch = Reconciler(
            champion, self._addresses, keep, self._placement, ensemble=self._ensemble, replace=True
        )
        self._of = wanted
