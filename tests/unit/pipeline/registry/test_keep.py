"""Model servers kept at the champion, and left alone while somebody promotes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.registry.keep import ChampionKeeper
from pipeline.registry.pointers import Lease
from pipeline.registry.promote import promote, rollback
from pipeline.registry.registry import Registry
from pipeline.registry.servers import TritonServer
from pipeline.testing import MemoryStore
from tests.unit.pipeline.triton.test_client import ENCODER, PACK
from tests.unit.pipeline.triton.test_reconcile import OTHER
from triton_models.connection import Address
from triton_models.contract import CHALLENGER
from triton_models.deploy import deploy
from triton_models.server import ModelServer
from triton_models.testing import FakeTriton

FIRST, SECOND = PACK.configuration_hash, OTHER.configuration_hash


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with FakeTriton(ENCODER) as server:
        yield server


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("models")


@pytest.fixture
def registry(store: MemoryStore) -> Registry:
    made = Registry(store)
    for pack in (PACK, OTHER):
        made.push(pack)
    return made


def served(triton: FakeTriton) -> str | None:
    with ModelServer(Address(triton.url)) as server:
        found = server.served()
    return found.configuration_hash if found else None


def test_promotion_and_the_way_back_on_a_model_server(triton: FakeTriton, registry: Registry) -> None:
    server = TritonServer(Address(triton.url))
    promote(registry, FIRST, [server], by="ann")
    assert served(triton) == FIRST
    promote(registry, SECOND, [server], by="ann", force="a trial")
    assert served(triton) == SECOND
    pushed = len(triton.pushes)
    rollback(registry, [server], by="ann")
    assert served(triton) == FIRST
    assert triton.pushes[pushed:] == ["dapo"], "what is loaded is not loaded again"


def test_a_challenger_that_is_served_beside_it_stays(triton: FakeTriton, registry: Registry) -> None:
    server = TritonServer(Address(triton.url))
    promote(registry, FIRST, [server], by="ann")
    with ModelServer(Address(triton.url)) as control:
        deploy(control, OTHER, [PACK], ensemble=CHALLENGER)
        assert server.served() == {FIRST, SECOND}
        control.unload(CHALLENGER)
        control.unload(CHALLENGER)
    assert server.served() == {FIRST}


def test_a_server_that_came_back_empty_is_given_champion_and_previous(
    triton: FakeTriton, registry: Registry
) -> None:
    keeper = ChampionKeeper(registry, [Address(triton.url)])
    keeper.turn(threading.Event())
    assert served(triton) is None, "there is no champion yet"
    registry.change(lambda now: replace(now, champion=SECOND, previous=FIRST))
    keeper.turn(threading.Event())
    assert served(triton) == SECOND
    triton.forget()
    keeper.turn(threading.Event())
    assert served(triton) == SECOND
    assert len(triton.models["dapo_head"]) == 2, "the way back is loaded too"


def test_servers_follow_the_pointer(triton: FakeTriton, registry: Registry) -> None:
    keeper = ChampionKeeper(registry, [Address(triton.url)])
    for digest in (FIRST, SECOND, FIRST):
        registry.change(lambda now, digest=digest: replace(now, champion=digest, previous=now.champion))  # type: ignore[misc]
        keeper.turn(threading.Event())
        assert served(triton) == digest


def test_while_somebody_promotes_servers_are_left_alone(triton: FakeTriton, registry: Registry) -> None:
    def leased(seconds: float) -> None:
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        lease = Lease(SECOND, "ann", until, "t")
        registry.change(lambda now: replace(now, champion=FIRST, lease=lease))

    keeper = ChampionKeeper(registry, [Address(triton.url)])
    leased(30)
    with ModelServer(Address(triton.url)) as control:
        deploy(control, OTHER, [PACK])
    keeper.turn(threading.Event())
    assert served(triton) == SECOND, "it is on its way to the next champion"
    leased(-1)
    keeper.turn(threading.Event())
    assert served(triton) == FIRST, "whoever promoted has died"


def test_a_registry_that_is_away_changes_nothing(
    triton: FakeTriton, registry: Registry, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    registry.change(lambda now: replace(now, champion=FIRST))
    keeper = ChampionKeeper(registry, [Address(triton.url)])
    keeper.turn(threading.Event())
    store.away = True
    for _ in range(3):
        keeper.turn(threading.Event())
    assert served(triton) == FIRST
    assert caplog.text.count("the champion is not known now") == 1
