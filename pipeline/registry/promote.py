"""Promote a pack, or go back: model servers first, then the pointer; whatever fails, the champion is served on.

A worker publishes nothing under another pack than the one it expects. So between the servers' switch and the pointer's
move frames wait, some hundred milliseconds, and none is lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from dapo.errors import DapoError, ServiceUnavailable
from dapo.pack import Pack
from pipeline.registry.evidence import evidence
from pipeline.registry.lease import Held, UnderWay, leased
from pipeline.registry.pointers import Move, Pointers, RegistryError
from pipeline.registry.registry import Registry
from pipeline.registry.servers import Server

_LOG = logging.getLogger(__name__)
_MOVE_S = 10.0  # frames wait meanwhile, where the worker's own server has switched
_PAUSE_S = 0.2
_FASTER = "somebody else was faster: the champion has changed. Look with 'dapo models list'."


class PromotionFailed(DapoError):
    """A promotion could not be carried out; the champion is what it was."""


def promote(
    registry: Registry,
    digest: str,
    servers: Sequence[Server] = (),
    *,
    by: str,
    force: str = "",
    prepare: Callable[[Pack], None] = lambda pack: None,
    say: Callable[[str], None] = lambda text: None,
    patience_s: float = _MOVE_S,
) -> Move | None:
    """Make a pack of the registry the champion. Doing it twice is doing it once.

    Args:
        digest: configuration hash of the pack.
        servers: all that lines ask; none where the model runs in the workers.
        by: user and host, for the audit line.
        force: a reason to do without evidence.
        prepare: does what must be there before a frame is judged with the pack, such as topics of its types.
        say: told, for people, of each step.
        patience_s: a store that goes away when servers have switched is waited for so long, then they switch back.

    Returns:
        The move; None where it is the champion already (its servers were looked after all the same).

    Raises:
        UnderWay: somebody else is promoting, or was faster.
        NotProven: nothing shows that it may replace the champion.
        PromotionFailed: a server can't, or the store went away; nothing has moved.
        RegistryError, PackError: the registry lacks a pack, or it is damaged.
    """
    before = registry.pointers()
    with leased(registry, digest, by) as held:
        if held.pointers.champion != before.champion:
            raise UnderWay(_FASTER)
        switch = _Switch(registry, held, digest, servers, say, patience_s)
        if digest == before.champion:
            switch.carry_out()
            return None
        said = "forced" if force else evidence(registry, held.pointers, switch.pack)
        prepare(switch.pack)
        switch.carry_out()
        return switch.move(Move(_now(), by, "promote", before.champion, digest, said, force))


def rollback(
    registry: Registry,
    servers: Sequence[Server] = (),
    *,
    by: str,
    why: str = "",
    say: Callable[[str], None] = lambda text: None,
    patience_s: float = _MOVE_S,
) -> Move:
    """Make the previous champion the champion again. It needs no evidence: it was the champion.

    Raises:
        RegistryError: there is no previous one.
        UnderWay, PromotionFailed, PackError: as `promote`.
    """
    before = registry.pointers()
    digest = before.previous
    if digest is None:
        raise RegistryError(
            "there is no previous champion to go back to: 'dapo models list' shows what there is."
        )
    with leased(registry, digest, by) as held:
        if (held.pointers.champion, held.pointers.previous) != (before.champion, digest):
            raise UnderWay(_FASTER)
        switch = _Switch(registry, held, digest, servers, say, patience_s)
        switch.carry_out()
        said = "it was the champion before"
        return switch.move(Move(_now(), by, "rollback", before.champion, digest, said, why))


def name_challenger(registry: Registry, digest: str, *, by: str, why: str = "") -> Move:
    """Point `challenger` to a pack of the registry. Moves nothing else."""

    def named(now: Pointers) -> Pointers:
        move = Move(_now(), by, "challenger", now.challenger, digest, "", why)
        return replace(now, challenger=digest, last=move)

    last = registry.change(named).last
    assert last is not None
    return last


class _Switch:
    """Model servers from the champion to a pack, all or none; then the pointer. The lease is held throughout."""

    def __init__(
        self,
        registry: Registry,
        held: Held,
        digest: str,
        servers: Sequence[Server],
        say: Callable[[str], None],
        patience_s: float,
    ) -> None:
        self.pack = registry.pack(digest)
        self._registry, self._held, self._servers, self._say = registry, held, servers, say
        self._patience_s = patience_s
        # Read now: to go back must be possible also while the store is away. A damaged champion must not keep anybody from
        # leaving it.
        self._champion = next(iter(registry.readable([held.pointers.champion])), None)
        self._keep: dict[str, list[Pack]] = {}
        self._switched: list[Server] = []

    def carry_out(self) -> None:
        """Let all servers serve the pack.

        Raises:
            PromotionFailed: one can't; all serve the champion.
            UnderWay: the lease was lost.
        """
        # Step 1: load everywhere, which may take minutes; nothing has changed for any frame.
        for server in self._servers:
            begun = time.monotonic()
            try:
                self._keep[server.name] = self._to_keep(server)
                server.load(self.pack, self._keep[server.name])
            except DapoError as error:
                raise PromotionFailed(f"{server.name}: {error} Nothing has moved.") from error
            self._say(
                f"{server.name}: loaded, and a known answer is right ({time.monotonic() - begun:.1f} s)"
            )
        self._held.check()
        # Step 2: all at once, as nearly as can be: frames wait from here on until the pointer has moved.
        for server in self._servers:
            self._switched.append(server)
            try:
                server.serve(self.pack, self._keep[server.name])
            except BaseException as error:
                raise PromotionFailed(f"{server.name}: {error} {self._back()}") from error

    def move(self, move: Move) -> Move:
        """Move champion and previous, and end the lease, in one step. A store that is away is waited for a while.

        Raises:
            PromotionFailed: it stays away; all servers serve the champion.
            UnderWay: the lease was lost; whoever has it now decides what servers serve.
        """

        def moved(now: Pointers) -> Pointers:
            challenger = None if now.challenger == move.after else now.challenger
            return Pointers(move.after, challenger, now.champion, now.lease, move)

        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                if not self._is_moved(move):
                    self._held.end(moved)
                break
            except UnderWay as error:
                if self._taken_over():
                    raise
                raise PromotionFailed(f"the lease was lost: {error} {self._back()}") from error
            except ServiceUnavailable as error:
                if time.monotonic() > deadline:
                    # The last try may have moved it though its answer never came: then the keeper of the servers mends that.
                    raise PromotionFailed(
                        f"the pointer could not be moved, as far as is known: {error} {self._back()} "
                        "Look with 'dapo models list' when the store is back."
                    ) from error
                _LOG.warning("waiting to move the pointer: %s", error)
                time.sleep(_PAUSE_S)
            except BaseException as error:
                raise PromotionFailed(f"the pointer is not moved: {error} {self._back()}") from error
        self._say(f"champion is {move.after}")
        return move

    def _is_moved(self, move: Move) -> bool:
        last = self._registry.pointers().last
        return last is not None and (last.at, last.after) == (move.at, move.after)

    def _taken_over(self) -> bool:
        """Whether somebody else promotes now, or has: then what servers serve is for them to say."""
        try:
            now = self._registry.pointers()
        except DapoError:
            return True
        return now.lease is not None or now.champion != self._held.pointers.champion

    def _to_keep(self, server: Server) -> list[Pack]:
        """Packs that stay loaded on a server: to go back to, and whatever it answers with."""
        own, pointers = self.pack.configuration_hash, self._held.pointers
        known = dict.fromkeys([pointers.champion, pointers.previous])
        # A champion that got lost must not keep anybody from leaving it. What nobody pointed to is another's: it must be there.
        others = [self._registry.pack(one) for one in sorted(server.served()) if one not in (own, "", *known)]
        return [*self._registry.readable(one for one in known if one != own), *others]

    def _back(self) -> str:
        """Let those that have switched serve the champion again, or what they served before there was one; in words."""
        if not self._switched:
            return "No server has switched."
        stuck = []
        for server in self._switched:
            kept = self._keep[server.name]
            before = self._champion or (kept[0] if len(kept) == 1 else None)
            if before is None:
                stuck.append(f"{server.name} (what it served before is not known)")
                continue
            try:
                keep = [self.pack, *kept]
                server.load(before, keep)
                server.serve(before, keep)
            except DapoError as error:
                stuck.append(f"{server.name} ({error})")
        if stuck:
            return f"Not back: {', '.join(stuck)}. 'dapo triton reconcile --follow' puts a champion back."
        return "Servers serve what they served before."


def _now() -> datetime:
    return datetime.now(UTC)
