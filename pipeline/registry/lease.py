"""One promoter at a time: a lease in the pointers, taken by compare-and-set before any model server is touched.

It is renewed while its holder works, so that a holder that died is waited for a minute and not longer. Clocks of
promoters should agree to a quarter of that; a clock that is further off can take a lease too early, and then the pointers
are still right: only who holds the lease moves them.
"""

from __future__ import annotations

import getpass
import logging
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dapo.errors import DapoError, ServiceUnavailable
from pipeline.registry.pointers import Lease, Pointers
from pipeline.registry.registry import Registry

_LOG = logging.getLogger(__name__)
LEASE_S = 60.0
_RENEW_S = LEASE_S / 4


class UnderWay(DapoError):
    """Somebody else is promoting, or has taken the lease over."""


class Held:
    """A lease that this process holds.

    Attributes:
        pointers: what was pointed to when it was taken; nobody else moves champion or previous meanwhile.
    """

    def __init__(self, registry: Registry, lease: Lease, pointers: Pointers) -> None:
        self.pointers = pointers
        self._registry, self._lease = registry, lease

    def check(self) -> None:
        """Make sure that it is still held.

        Raises:
            UnderWay: somebody else has taken it over.
        """
        self._own(self._registry.pointers())

    def end(self, update: Callable[[Pointers], Pointers] = lambda pointers: pointers) -> Pointers:
        """Move pointers and give the lease back, in one step.

        Raises:
            UnderWay: somebody else has it; nothing was moved.
        """

        def ended(now: Pointers) -> Pointers:
            self._own(now)
            return replace(update(now), lease=None)

        return self._registry.change(ended)

    def renew(self) -> None:
        """Hold it for longer."""
        until = datetime.now(UTC) + timedelta(seconds=LEASE_S)

        def renewed(now: Pointers) -> Pointers:
            self._own(now)
            return replace(now, lease=replace(self._lease, until=until))

        self._registry.change(renewed)

    def _own(self, now: Pointers) -> None:
        if now.lease is None or now.lease.token != self._lease.token:
            raise UnderWay(
                "another promotion has taken over, since this one stood still for too long. What it does counts: "
                "look with 'dapo models list'."
            )


def is_live(lease: Lease, now: datetime) -> bool:
    """Whether somebody holds it. One that ends later than any is taken for was written by a wrong clock, and does not count."""
    return now < lease.until <= now + timedelta(seconds=2 * LEASE_S)


def operator() -> str:
    """Who holds a lease or moves a pointer: user and host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


@contextmanager
def leased(registry: Registry, pack: str, by: str) -> Iterator[Held]:
    """Hold the lease while the block runs; where the block has not ended it, it is given back.

    Args:
        pack: configuration hash of what is promoted.
        by: user and host.

    Raises:
        UnderWay: somebody else holds it; says who, what and until when.
    """
    now = datetime.now(UTC)
    lease = Lease(pack, by, now + timedelta(seconds=LEASE_S), uuid.uuid4().hex)

    def take(found: Pointers) -> Pointers:
        other = found.lease
        if other is not None and is_live(other, now) and other.token != lease.token:
            raise UnderWay(
                f"{other.by} is promoting {other.pack[:12]}, until {other.until:%Y-%m-%d %H:%M:%S} UTC at the longest. "
                "Try again when that is done."
            )
        return replace(found, lease=lease)

    try:
        held = Held(registry, lease, registry.change(take))
    except ServiceUnavailable:
        _give_back(registry, lease)  # it may have been taken, and only the answer was lost
        raise
    ended = threading.Event()
    thread = threading.Thread(target=_renew, args=(held, ended), name="lease", daemon=True)
    thread.start()
    try:
        yield held
    finally:
        ended.set()
        thread.join()
        _give_back(registry, lease)


def _give_back(registry: Registry, lease: Lease) -> None:
    def free(now: Pointers) -> Pointers:
        mine = now.lease is not None and now.lease.token == lease.token
        return replace(now, lease=None) if mine else now

    try:
        registry.change(free)
    except DapoError as error:
        _LOG.warning("the lease stays until %s: %s", lease.until, error)


def _renew(held: Held, ended: threading.Event) -> None:
    while not ended.wait(_RENEW_S):
        try:
            held.renew()
        except ServiceUnavailable as error:
            _LOG.warning("the lease can't be renewed now: %s", error)
        except DapoError:
            return  # it is lost, which `check` and `end` will say
