"""One retuning at a time, on whatever machine: a lease in an object of its own, renewed while its holder works.

Two at once would waste hours, and use the test twice for one answer. What is promoted does not depend on it: that has a lease
of its own (`pipeline.registry.lease`).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dapo.errors import DapoError, ServiceUnavailable
from pipeline.registry.lease import LEASE_S, UnderWay, is_live
from pipeline.registry.pointers import Lease
from pipeline.registry.registry import Registry

_LOG = logging.getLogger(__name__)
_RENEW_S = LEASE_S / 4
_LOOK_S = 2.0  # between two looks at a turn that nobody may be left to renew


class Turn:
    """The turn that this process holds."""

    def __init__(self, registry: Registry, lease: Lease) -> None:
        self._registry, self._lease = registry, lease
        self._lost = threading.Event()

    def check(self) -> None:
        """Make sure that it is still held, and hold it for longer.

        Raises:
            UnderWay: somebody else has taken it over.
            ServiceUnavailable: the store is away, so nobody knows.
        """
        self.renew()
        if self._lost.is_set():
            raise UnderWay(
                "another retuning has taken over, since the store did not answer for too long. This one goes on where "
                "it was when it is called again."
            )

    def renew(self) -> None:
        """Hold it for longer, or notice that it is lost."""

        def renewed(now: Lease | None) -> Lease | None:
            if now is None or now.token != self._lease.token:
                self._lost.set()
                return now
            return replace(self._lease, until=_later())

        self._registry.change_turn(renewed)

    def give_back(self) -> None:
        """Let the next one begin."""
        mine = self._lease.token
        self._registry.change_turn(lambda now: None if now is not None and now.token == mine else now)


@contextmanager
def turn(
    registry: Registry, pack: str, by: str, say: Callable[[str], None] = lambda text: None
) -> Iterator[Turn]:
    """Hold the turn while the block runs. One that somebody holds is watched until it is renewed, since its holder works, or
    runs out, a minute after its holder died.

    Args:
        pack: configuration hash of what is retuned.
        by: user and host.
        say: told whom is waited for.

    Raises:
        UnderWay: somebody else is retuning; says who and until when.
        ServiceUnavailable: the store is away.
    """
    mine = Lease(pack, by, _later(), uuid.uuid4().hex)
    other = _taken(registry, mine)
    if other is not None:
        say(f"{_who(other)}; waiting to see whether it still works")
    seen = other
    while seen is not None:
        time.sleep(_LOOK_S)
        now = _taken(registry, mine)
        if now is not None and (now.token, now.until) != (seen.token, seen.until):
            raise UnderWay(
                f"{_who(now)} already (its turn lasts until {now.until:%H:%M:%S} UTC, and is renewed while it works). "
                "Wait for its end."
            )
        seen = now
    held, ended = Turn(registry, mine), threading.Event()
    thread = threading.Thread(target=_renew, args=(held, ended), name="turn", daemon=True)
    thread.start()
    try:
        yield held
    finally:
        ended.set()
        thread.join()
        try:
            held.give_back()
        except DapoError as error:
            _LOG.warning("the turn ends by itself in a minute: %s", error)


def _taken(registry: Registry, mine: Lease) -> Lease | None:
    """Take the turn where it is free; whose it is where it is not."""
    others: list[Lease] = []

    def take(now: Lease | None) -> Lease:
        others.clear()
        if now is not None and now.token != mine.token and is_live(now, datetime.now(UTC)):
            others.append(now)
            return now
        return replace(mine, until=_later())

    registry.change_turn(take)
    return others[0] if others else None


def _renew(held: Turn, ended: threading.Event) -> None:
    while not ended.wait(_RENEW_S):
        try:
            held.renew()
        except ServiceUnavailable as error:
            _LOG.warning("the turn can't be renewed now: %s", error)
        except DapoError as error:
            _LOG.warning("the turn can't be renewed: %s", error)


def _who(lease: Lease) -> str:
    return f"{lease.by} is retuning {lease.pack[:12]}"


def _later() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=LEASE_S)
