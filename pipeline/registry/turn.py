"""One retuning at a time, on whatever machine: a lease in an object of its own, renewed while its holder works.

Two at once would waste hours, and use the test twice for one answer. What is promoted does not depend on it: that has a lease
of its own (`pipeline.registry.lease`).
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dapo.errors import DapoError
from pipeline.registry.lease import LEASE_S, UnderWay, is_live
from pipeline.registry.pointers import Lease
from pipeline.registry.registry import Registry

_LOG = logging.getLogger(__name__)
_RENEW_S = LEASE_S / 4


@contextmanager
def turn(registry: Registry, pack: str, by: str) -> Iterator[None]:
    """Hold the turn while the block runs; one whose holder died is free a minute later.

    Args:
        pack: configuration hash of what is retuned.
        by: user and host.

    Raises:
        UnderWay: somebody else is retuning; says who and until when.
        ServiceUnavailable: the store is away.
    """
    mine = Lease(pack, by, _later(), uuid.uuid4().hex)

    def take(other: Lease | None) -> Lease:
        if other is not None and other.token != mine.token and is_live(other, datetime.now(UTC)):
            raise UnderWay(
                f"{other.by} is retuning {other.pack[:12]} already (its turn lasts until {other.until:%H:%M:%S} UTC, and "
                "is renewed while it works). Wait for its end."
            )
        return mine

    registry.change_turn(take)
    ended = threading.Event()
    thread = threading.Thread(target=_renew, args=(registry, mine, ended), name="turn", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        try:
            registry.change_turn(lambda now: None if now is not None and now.token == mine.token else now)
        except DapoError as error:
            _LOG.warning("the turn ends by itself in a minute: %s", error)


def _renew(registry: Registry, mine: Lease, ended: threading.Event) -> None:
    def renewed(now: Lease | None) -> Lease | None:
        return replace(mine, until=_later()) if now is not None and now.token == mine.token else now

    while not ended.wait(_RENEW_S):
        try:
            registry.change_turn(renewed)
        except DapoError as error:
            _LOG.warning("the turn can't be renewed now: %s", error)


def _later() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=LEASE_S)
