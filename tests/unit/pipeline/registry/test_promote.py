"""Promotion and the way back: one at a time, all servers or none, and the pointer last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dapo.errors import DapoError, PackError
from dapo.pack import Pack
from pipeline.registry.evidence import NotProven
from pipeline.registry.lease import UnderWay, leased, operator
from pipeline.registry.pointers import Lease, Move, RegistryError
from pipeline.registry.promote import PromotionFailed, name_challenger, promote, rollback
from pipeline.registry.registry import Registry
from pipeline.store.errors import StoreUnavailable
from pipeline.testing import FakeServer, MemoryStore
from tests.unit.pipeline.registry.packs import champion, tuned, with_word

A, B, C = champion(), with_word(), tuned()
HASH_A, HASH_B, HASH_C = (one.configuration_hash for one in (A, B, C))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("models")


@pytest.fixture
def registry(store: MemoryStore) -> Registry:
    """Three packs; A is the champion."""
    made = Registry(store)
    for pack in (A, B, C):
        made.push(pack)
    promote(made, HASH_A, by="ann")
    return made


@pytest.fixture
def servers() -> list[FakeServer]:
    return [FakeServer("one", A), FakeServer("two", A)]


def pointed(registry: Registry) -> dict[str, str]:
    assert registry.pointers().lease is None
    return registry.pointers().names


class Hooked(FakeServer):
    """A server at which something happens while it works."""

    def __init__(
        self,
        serving: Pack,
        *,
        on_load: Callable[[], object] = lambda: None,
        on_serve: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__("one", serving)
        self._on_load, self._on_serve = on_load, on_serve

    def load(self, pack: Pack, keep: Sequence[Pack]) -> None:
        super().load(pack, keep)
        self._on_load()

    def serve(self, pack: Pack, keep: Sequence[Pack]) -> None:
        super().serve(pack, keep)
        self._on_serve()


def test_the_first_champion_needs_no_evidence(store: MemoryStore) -> None:
    registry, server = Registry(store), FakeServer("one")
    registry.push(A)
    move = promote(registry, HASH_A, [server], by="ann@press")
    assert move is not None
    assert (move.before, move.after, move.evidence) == (None, HASH_A, "first champion")
    assert server.serving == HASH_A
    assert pointed(registry) == {"champion": HASH_A}


def test_servers_switch_first_and_the_pointer_last(registry: Registry, servers: list[FakeServer]) -> None:
    seen: list[str] = []
    servers.append(Hooked(A, on_serve=lambda: seen.append(registry.pointers().names["champion"])))
    move = promote(registry, HASH_B, servers, by="ann")
    assert move is not None
    assert "no worse by construction" in move.evidence
    assert seen == [HASH_A]
    assert pointed(registry) == {"champion": HASH_B, "previous": HASH_A}
    for server in servers:
        assert server.asked == [("load", HASH_B), ("serve", HASH_B)]
        assert server.packs == {HASH_A, HASH_B}, "the way back stays loaded"
    assert [one.after for one in registry.history()] == [HASH_B, HASH_A]


def test_doing_it_twice_is_doing_it_once(registry: Registry, servers: list[FakeServer]) -> None:
    promote(registry, HASH_B, servers, by="ann")
    servers.append(FakeServer("new", B))
    assert promote(registry, HASH_B, servers, by="ann") is None
    assert pointed(registry) == {"champion": HASH_B, "previous": HASH_A}
    assert len(registry.history()) == 2


def test_without_evidence_nothing_is_touched(registry: Registry, servers: list[FakeServer]) -> None:
    with pytest.raises(NotProven):
        promote(registry, HASH_C, servers, by="ann")
    assert [server.asked for server in servers] == [[], []]
    assert pointed(registry) == {"champion": HASH_A}
    move = promote(registry, HASH_C, servers, by="ann", force="the camera was changed")
    assert move is not None
    assert (move.evidence, move.why) == ("forced", "the camera was changed")
    assert registry.history()[0] == move


def test_back_is_only_to_point(registry: Registry, servers: list[FakeServer]) -> None:
    promote(registry, HASH_B, servers, by="ann")
    move = rollback(registry, servers, by="bob", why="false alarms")
    assert (move.what, move.before, move.after, move.why) == ("rollback", HASH_B, HASH_A, "false alarms")
    assert pointed(registry) == {"champion": HASH_A, "previous": HASH_B}
    for server in servers:
        assert server.asked[-1] == ("serve", HASH_A)
        assert ("load", HASH_A) not in server.asked
    rollback(registry, servers, by="bob")
    assert pointed(registry) == {"champion": HASH_B, "previous": HASH_A}


def test_there_is_no_way_back_from_the_first_champion(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="no previous champion"):
        rollback(registry, by="ann")


def test_a_pack_that_one_server_cannot_load_changes_nothing(
    registry: Registry, servers: list[FakeServer]
) -> None:
    servers[1].broken.add(HASH_B)
    with pytest.raises(PromotionFailed, match=r"two: can't load .* Nothing has moved"):
        promote(registry, HASH_B, servers, by="ann")
    assert [server.serving for server in servers] == [HASH_A, HASH_A]
    assert all(verb != "serve" for server in servers for verb, _ in server.asked)
    assert pointed(registry) == {"champion": HASH_A}


def test_a_server_that_cannot_switch_takes_the_others_back(
    registry: Registry, servers: list[FakeServer]
) -> None:
    servers[1].stuck.add(HASH_B)
    with pytest.raises(PromotionFailed, match=r"two: .*Servers serve what they served before"):
        promote(registry, HASH_B, servers, by="ann")
    assert [server.serving for server in servers] == [HASH_A, HASH_A]
    assert pointed(registry) == {"champion": HASH_A}
    servers[1].stuck = {HASH_A, HASH_B}
    servers[1].serving = HASH_B
    with pytest.raises(PromotionFailed, match=r"Not back: two .*reconcile --follow"):
        promote(registry, HASH_B, servers, by="ann")


def test_a_damaged_pack_is_not_promoted(
    registry: Registry, store: MemoryStore, servers: list[FakeServer]
) -> None:
    store.rot(f"prompts/packs/{HASH_B}.pack")
    with pytest.raises(PackError, match=f"{HASH_B}.pack: .*push FILE"):
        promote(registry, HASH_B, servers, by="ann")
    assert [server.asked for server in servers] == [[], []]
    assert pointed(registry) == {"champion": HASH_A}


def test_where_the_first_promotion_fails_servers_serve_what_they_did(store: MemoryStore) -> None:
    registry = Registry(store)
    for pack in (A, B):
        registry.push(pack)
    servers = [FakeServer("one", A), FakeServer("two", A)]
    servers[1].stuck.add(HASH_B)
    with pytest.raises(PromotionFailed, match="served before"):
        promote(registry, HASH_B, servers, by="ann")
    assert [server.serving for server in servers] == [HASH_A, HASH_A]
    assert registry.pointers().names == {}


def test_a_champion_that_got_lost_does_not_keep_anybody_from_going_back(
    registry: Registry, store: MemoryStore, servers: list[FakeServer]
) -> None:
    promote(registry, HASH_B, servers, by="ann")
    store.rot(f"prompts/packs/{HASH_B}.pack")
    rollback(registry, servers, by="ann")
    assert pointed(registry)["champion"] == HASH_A
    assert [server.serving for server in servers] == [HASH_A, HASH_A]


def test_topics_are_made_before_a_server_is_touched(registry: Registry, servers: list[FakeServer]) -> None:
    def refuse(pack: Pack) -> None:
        assert pack.configuration_hash == HASH_B
        raise DapoError("no permission to make a topic")

    with pytest.raises(DapoError, match="no permission"):
        promote(registry, HASH_B, servers, by="ann", prepare=refuse)
    assert [server.asked for server in servers] == [[], []]
    assert pointed(registry) == {"champion": HASH_A}


def test_a_pack_that_a_server_answers_with_stays_loaded(registry: Registry) -> None:
    challenged = FakeServer("one", A)
    challenged.served = lambda: {HASH_A, HASH_C}  # type: ignore[method-assign]
    promote(registry, HASH_B, [challenged], by="ann")
    assert challenged.packs == {HASH_A, HASH_B, HASH_C}


def test_a_server_with_a_pack_that_the_registry_lacks_says_what_to_do(store: MemoryStore) -> None:
    registry = Registry(store)
    registry.push(B)
    with pytest.raises(PromotionFailed, match=r"one: the registry has no pack .*models push FILE"):
        promote(registry, HASH_B, [FakeServer("one", A)], by="ann")


def test_a_store_that_goes_away_after_the_switch_takes_servers_back(
    registry: Registry, store: MemoryStore
) -> None:
    server = Hooked(A, on_serve=lambda: setattr(store, "away", True))
    with pytest.raises(PromotionFailed, match=r"pointer could not be moved.*they served before"):
        promote(registry, HASH_B, [server], by="ann", patience_s=0)
    assert server.serving == HASH_A
    store.away = False
    assert registry.pointers().names == {"champion": HASH_A}


def test_a_store_that_is_away_for_a_moment_is_waited_for(registry: Registry, store: MemoryStore) -> None:
    def away() -> None:
        store.away = True
        threading.Timer(0.1, lambda: setattr(store, "away", False)).start()

    promote(registry, HASH_B, [Hooked(A, on_serve=away)], by="ann")
    assert pointed(registry)["champion"] == HASH_B


def test_of_twenty_who_race_exactly_one_wins(registry: Registry) -> None:
    packs = [tuned(number) for number in range(2, 22)]
    for pack in packs:
        registry.push(pack)
        registry.keep_gate(HASH_A, pack.configuration_hash, {"outcome": "promote"})
    told, start = threading.Event(), threading.Barrier(len(packs))
    server = Hooked(A, on_load=lambda: told.wait(20))
    won: list[Move] = []
    lost: list[DapoError] = []

    def race(pack: Pack) -> None:
        start.wait()
        try:
            move = promote(registry, pack.configuration_hash, [server], by=f"racer {pack.temperature}")
            assert move is not None
            won.append(move)
        except DapoError as error:
            lost.append(error)
            told.set()

    threads = [threading.Thread(target=race, args=(pack,)) for pack in packs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(won) == 1
    assert len(lost) == 19
    assert all(isinstance(error, UnderWay | NotProven) for error in lost)
    assert any("racer" in str(error) for error in lost), "they are told who is promoting"
    assert pointed(registry) == {"champion": won[0].after, "previous": HASH_A}
    assert server.serving == won[0].after
    assert [verb for verb, _ in server.asked] == ["load", "serve"]


def leased_by(registry: Registry, seconds: float) -> None:
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    registry.change(lambda now: replace(now, lease=Lease(HASH_C, "carl@press", until, "other")))


def test_whoever_comes_while_another_promotes_is_told_who(
    registry: Registry, servers: list[FakeServer]
) -> None:
    leased_by(registry, 30)
    for call in (
        lambda: promote(registry, HASH_B, servers, by="ann"),
        lambda: promote(registry, HASH_A, servers, by="ann"),
    ):
        with pytest.raises(UnderWay, match=rf"carl@press is promoting {HASH_C[:12]}, until"):
            call()
    assert registry.pointers().lease is not None
    assert [server.asked for server in servers] == [[], []]


def test_the_lease_of_a_promoter_that_died_can_be_taken_over(
    registry: Registry, servers: list[FakeServer]
) -> None:
    leased_by(registry, -1)
    assert promote(registry, HASH_B, servers, by="ann") is not None
    assert pointed(registry)["champion"] == HASH_B


def test_a_lease_of_a_wrong_clock_does_not_lock_everybody_out(
    registry: Registry, servers: list[FakeServer]
) -> None:
    leased_by(registry, 10 * 3600)
    assert promote(registry, HASH_B, servers, by="ann") is not None
    assert pointed(registry)["champion"] == HASH_B


def test_servers_go_back_where_the_lease_was_lost_and_nobody_else_has_it(registry: Registry) -> None:
    def lost() -> None:
        registry.change(lambda now: replace(now, lease=None))

    server = Hooked(A, on_serve=lost)
    with pytest.raises(PromotionFailed, match=r"lease was lost.*served before"):
        promote(registry, HASH_B, [server], by="ann")
    assert server.serving == HASH_A


def test_a_promoter_whose_lease_was_taken_over_stops(registry: Registry) -> None:
    server = Hooked(A, on_load=lambda: leased_by(registry, 30))
    with pytest.raises(UnderWay, match="has taken over"):
        promote(registry, HASH_B, [server], by="ann")
    assert server.serving == HASH_A
    assert registry.pointers().names == {"champion": HASH_A}
    lease = registry.pointers().lease
    assert lease is not None
    assert lease.by == "carl@press"


def test_a_challenger_is_named_and_no_longer_one_when_it_is_champion(registry: Registry) -> None:
    name_challenger(registry, HASH_B, by="ann")
    assert pointed(registry) == {"champion": HASH_A, "challenger": HASH_B}
    promote(registry, HASH_B, by="ann")
    assert pointed(registry) == {"champion": HASH_B, "previous": HASH_A}
    assert [one.what for one in registry.history()] == ["promote", "challenger", "promote"]


def test_a_move_whose_answer_was_lost_is_found_done() -> None:
    class Deaf(MemoryStore):
        """Carries out the move, and is away for a moment before it can say so."""

        armed = False

        def replace(self, key: str, data: bytes, etag: str, *, content_type: str = "") -> str:
            found = super().replace(key, data, etag, content_type=content_type)
            if self.armed:
                self.armed = False
                self.away = True
                threading.Timer(0.1, lambda: setattr(self, "away", False)).start()
                raise StoreUnavailable("no answer")
            return found

    store = Deaf("models")
    registry = Registry(store)
    for pack in (A, B):
        registry.push(pack)
    promote(registry, HASH_A, by="ann")
    server = Hooked(A, on_serve=lambda: setattr(store, "armed", True))
    move = promote(registry, HASH_B, [server], by="ann")
    assert move is not None
    assert server.serving == HASH_B
    assert pointed(registry) == {"champion": HASH_B, "previous": HASH_A}


def test_a_lease_is_held_for_as_long_as_it_is_renewed(registry: Registry) -> None:
    with leased(registry, HASH_B, "ann") as held:
        first = registry.pointers().lease
        held.renew()
        second = registry.pointers().lease
        assert first is not None
        assert second is not None
        assert second.until > first.until
        assert (second.token, second.by) == (first.token, "ann")
        leased_by(registry, 30)
        with pytest.raises(UnderWay, match="taken over"):
            held.renew()
    lease = registry.pointers().lease
    assert lease is not None, "the lease of another is not given back"


def test_who_promotes_is_a_user_on_a_host() -> None:
    user, _, host = operator().partition("@")
    assert user
    assert host
