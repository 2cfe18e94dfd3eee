"""A model server that came back without the pack is given it again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from dapo.testing import small_encoder
from pipeline.triton.reconcile import Reconciler, Sight, State
from tests.unit.pipeline.triton.test_client import PACK
from triton_models.connection import Address
from triton_models.deploy import deploy
from triton_models.server import ModelServer
from triton_models.testing import FakeTriton

OTHER = PACK.with_products({"one": replace(PACK.product("one"), mask_threshold=0.7)})


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with FakeTriton(small_encoder()) as server:
        yield server


def _deploy(triton: FakeTriton, pack: object) -> None:
    with ModelServer(Address(triton.url)) as control:
        deploy(control, pack)  # type: ignore[arg-type]


def test_a_look_says_what_there_is(triton: FakeTriton) -> None:
    address = Address(triton.url)
    watch = Reconciler(PACK, [address])
    assert watch.look(address) == Sight(State.EMPTY)
    triton.states = {"dapo_head": "LOADING"}
    assert watch.look(address) == Sight(State.LOADING)
    triton.states = {}
    _deploy(triton, PACK)
    assert watch.look(address) == Sight(State.SERVES)
    assert Reconciler(OTHER, [address]).look(address) == Sight(
        State.OTHER, f"it serves pack {PACK.configuration_hash}"
    )
    triton.stop()
    assert watch.look(address).state is State.AWAY


def test_only_an_empty_server_is_given_the_pack(triton: FakeTriton) -> None:
    address = Address(triton.url)
    watch = Reconciler(PACK, [address])
    assert watch.mend(address) == Sight(State.SERVES)
    pushed = list(triton.pushes)
    assert watch.mend(address) == Sight(State.SERVES)
    assert Reconciler(OTHER, [address]).mend(address).state is State.OTHER
    triton.forget()
    triton.states = {"dapo_head": "LOADING"}
    assert watch.mend(address).state is State.LOADING
    assert triton.pushes == pushed


def test_who_decides_may_replace_another_pack(triton: FakeTriton) -> None:
    address = Address(triton.url)
    _deploy(triton, OTHER)
    assert Reconciler(PACK, [address], replace=True).mend(address) == Sight(State.SERVES)


def test_what_cannot_be_pushed_is_said(triton: FakeTriton) -> None:
    address = Address(triton.url)
    triton.broken = True
    found = Reconciler(PACK, [address]).mend(address)
    assert found.state is State.FAILED
    assert "out of disk" in found.why


def test_all_servers_are_kept_at_the_pack(triton: FakeTriton) -> None:
    with FakeTriton(small_encoder()) as second:
        addresses = [Address(triton.url), Address(second.url)]
        watch, stop, told = Reconciler(PACK, addresses), threading.Event(), _Told()
        thread = threading.Thread(target=watch.run, args=(stop, 0.05, told))
        thread.start()
        for address in addresses:
            assert told.wait(lambda seen, url=address.url: seen[-1:] == [State.SERVES], address.url)
        second.forget()
        triton.stop()
        assert told.wait(lambda seen: seen[-1] is State.AWAY, triton.url)
        triton.start()
        for server in (triton, second):
            assert told.wait(lambda seen: seen[-1] is State.SERVES, server.url)
            assert _eventually(lambda server=server: "dapo" in server.models)
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def test_a_pack_that_is_no_longer_wanted_is_not_pushed_again(triton: FakeTriton) -> None:
    """A worker that waits for frames holds on to the champion of before, and its server may restart meanwhile."""
    asked, stop = threading.Event(), threading.Event()

    def wanted() -> bool:
        asked.set()
        return False

    watch, told = Reconciler(PACK, [Address(triton.url)]), _Told()
    thread = threading.Thread(target=watch.run, args=(stop, 0.05, told, wanted))
    thread.start()
    assert asked.wait(20)
    assert told.wait(lambda seen: seen == [State.EMPTY], triton.url)
    stop.set()
    thread.join(10)
    assert "dapo" not in triton.models


class _Told:
    """What a reconciler told of each server."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._seen: dict[str, list[State]] = {}

    def __call__(self, address: Address, sight: Sight) -> None:
        with self._changed:
            self._seen.setdefault(address.url, []).append(sight.state)
            self._changed.notify_all()

    def wait(self, condition: Callable[[list[State]], bool], url: str) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: condition(self._seen.get(url, [])), 20)


def _eventually(condition: Callable[[], bool]) -> bool:
    tick = threading.Event()
    return any(condition() or tick.wait(0.02) for _ in range(500))
