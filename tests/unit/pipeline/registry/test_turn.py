"""One retuning at a time, and a turn whose holder died is free again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.registry.lease import LEASE_S, UnderWay, leased
from pipeline.registry.pointers import Lease, RegistryError
from pipeline.registry.registry import RETUNING, Registry
from pipeline.registry.turn import turn
from pipeline.store.errors import StoreUnavailable
from pipeline.testing import MemoryStore

PACK = "a" * 64


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


def test_the_turn_of_one_that_died_is_free_when_its_time_is_over() -> None:
    registry = Registry(MemoryStore("models"))
    gone = datetime.now(UTC) - timedelta(seconds=1)
    registry.change_turn(lambda now: Lease(PACK, "ann@one", gone, "1"))
    with turn(registry, PACK, "bob@two"):
        pass
    registry.change_turn(lambda now: Lease(PACK, "ann@one", gone + timedelta(seconds=LEASE_S / 2), "2"))
    with pytest.raises(UnderWay), turn(registry, PACK, "bob@two"):
        pass


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
    with pytest.raises(UnderWay), turn(Registry(store), PACK, "bob"):
        pass
    store.away = True
    with pytest.raises(StoreUnavailable), turn(Registry(store), PACK, "bob"):
        pass


@pytest.mark.parametrize("written", [b'{"lease": 3}', b"[]", b'{"lease": {"pack": "x"}}'])
def test_an_object_of_somebody_else_is_told(written: bytes) -> None:
    store = MemoryStore("models")
    store.put(RETUNING, written)
    with pytest.raises(RegistryError), turn(Registry(store), PACK, "ann"):
        pass
