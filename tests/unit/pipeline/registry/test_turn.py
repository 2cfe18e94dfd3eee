"""One retuning at a time, and a turn whose holder died is free again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import pipeline.registry.turn as module
from pipeline.registry.lease import LEASE_S, UnderWay, leased
from pipeline.registry.pointers import Lease, RegistryError
from pipeline.registry.registry import RETUNING, Registry
from pipeline.registry.turn import turn
from pipeline.store.errors import StoreUnavailable
from pipeline.testing import MemoryStore
from tests.integration.stream_line import until

PACK = "a" * 64


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn is renewed, and looked at, many times a second."""
    monkeypatch.setattr(module, "_RENEW_S", 0.02)
    monkeypatch.setattr(module, "_LOOK_S", 0.1)


def test_a_second_one_is_told_who_is_at_it_and_the_next_may_go_on() -> None:
    registry = Registry(MemoryStore("models"))
    with turn(registry, PACK, "ann@one"):
        with (
            pytest.raises(UnderWay, match=r"ann@one is retuning aaaaaaaaaaaa already"),
            turn(registry, PACK, "bob@two"),
        ):
            pass
        with leased(registry, PACK, "carl@three"):
            pass  # who promotes is not kept waiting
    with turn(registry, PACK, "bob@two"):
        pass


def test_one_that_died_is_waited_for_until_its_time_is_over() -> None:
    registry = Registry(MemoryStore("models"))
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    registry.change_turn(lambda now: Lease(PACK, "ann@one", soon, "1"))
    told: list[str] = []
    with turn(registry, PACK, "bob@two", told.append):
        assert datetime.now(UTC) >= soon
    assert told == ["ann@one is retuning aaaaaaaaaaaa; waiting to see whether it still works"]


def held_until(registry: Registry) -> datetime:
    """Until when the turn is held now."""
    found: list[Lease | None] = []

    def look(now: Lease | None) -> Lease | None:
        found.append(now)
        return now

    registry.change_turn(look)
    assert found[0] is not None
    return found[0].until


def test_it_is_held_for_as_long_as_its_holder_works() -> None:
    registry = Registry(MemoryStore("models"))
    with turn(registry, PACK, "ann@one") as held:
        first = held_until(registry)
        until(lambda: held_until(registry) > first, 10, "the turn to be renewed")
        held.check()


def test_whose_turn_was_taken_over_is_told_before_it_does_more() -> None:
    registry = Registry(MemoryStore("models"))
    with turn(registry, PACK, "ann@one") as held:
        other = Lease(PACK, "bob@two", datetime.now(UTC) + timedelta(seconds=LEASE_S), "other")
        registry.change_turn(lambda now: other)

        def lost() -> bool:
            try:
                held.check()
            except UnderWay:
                return True
            return False

        until(lost, 10, "the loss to be noticed")
    assert held_until(registry) == other.until, "what is another's is not given back"


def test_what_goes_wrong_inside_ends_the_turn_too() -> None:
    registry = Registry(MemoryStore("models"))
    with pytest.raises(ValueError, match="inside"), turn(registry, PACK, "ann"):
        raise ValueError("inside")
    with turn(registry, PACK, "bob"):
        pass


def test_a_store_that_went_away_meanwhile_hides_no_result() -> None:
    store = MemoryStore("models")
    with turn(Registry(store), PACK, "ann"):
        store.away = True
    store.away = False
    assert held_until(Registry(store)) > datetime.now(UTC), "it ends by itself"
    store.away = True
    with pytest.raises(StoreUnavailable), turn(Registry(store), PACK, "bob"):
        pass


@pytest.mark.parametrize("written", [b'{"lease": 3}', b"[]", b'{"lease": {"pack": "x"}}'])
def test_an_object_of_somebody_else_is_told(written: bytes) -> None:
    store = MemoryStore("models")
    store.put(RETUNING, written)
    with pytest.raises(RegistryError), turn(Registry(store), PACK, "ann"):
        pass
