"""A model that follows the champion: it moves between two calls, and goes on with what it has where it can't."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from dapo.errors import DapoError
from dapo.inspection import Prediction
from dapo.pack import Pack
from pipeline.registry.follow import FollowingInfer
from pipeline.registry.pointers import RegistryError
from pipeline.registry.registry import POINTERS, Registry
from pipeline.testing import SIZE, FakeInfer, MemoryStore
from pipeline.triton.client import UnexpectedPack
from tests.unit.pipeline.registry.packs import champion, tuned, with_word

A, B, C = champion(), with_word(), tuned()
IMAGES = np.zeros((1, SIZE, SIZE, 3), np.uint8)


class ModelServer:
    """Answers under one pack, whoever asks for which.

    Attributes:
        serving: that pack; None: whichever is asked for, as models in the process do.
        broken: packs that can't be made ready.
        fault: what none can be made ready for.
        open: packs whose models are open.
    """

    def __init__(self) -> None:
        self.serving: Pack | None = None
        self.broken: set[str] = set()
        self.fault: Exception | None = None
        self.open: list[str] = []
        self.prepared = threading.Event()

    def prepare(self, pack: Pack) -> FakeInfer:
        if self.fault is not None:
            raise self.fault
        if pack.configuration_hash in self.broken:
            raise DapoError("its type has no topic")
        self.check(pack)
        model = Asked(self, pack)
        self.open.append(pack.configuration_hash)
        self.prepared.set()
        return model

    def check(self, pack: Pack) -> None:
        if self.serving is not None and self.serving.configuration_hash != pack.configuration_hash:
            raise UnexpectedPack(f"the server serves pack {self.serving.configuration_hash}")


class Asked(FakeInfer):
    def __init__(self, server: ModelServer, pack: Pack) -> None:
        super().__init__(pack)
        self._server = server

    def infer(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]:
        self._server.check(self.pack)
        return super().infer(images, products)

    def close(self) -> None:
        self._server.open.remove(self.pack.configuration_hash)


class Line:
    """A registry whose champion is A, a model server, and what follows them."""

    def __init__(self, period_s: float = 0.01) -> None:
        self.store, self.server = MemoryStore("models"), ModelServer()
        self.registry = Registry(self.store)
        for pack in (A, B, C):
            self.registry.push(pack)
        self.point(A)
        self.in_force: list[str] = []
        self.behind = threading.Event()
        self.infer = FollowingInfer(
            self.registry,
            self.server.prepare,
            switched=lambda pack: self.in_force.append(pack.configuration_hash),
            behind=lambda found: self.behind.set() if found else self.behind.clear(),
            period_s=period_s,
        )

    def point(self, pack: Pack) -> None:
        self.registry.change(lambda now: replace(now, champion=pack.configuration_hash))

    def asked(self) -> str:
        self.infer.infer(IMAGES, ["*"])
        return self.infer.pack.configuration_hash

    def until(self, condition: Callable[[], bool]) -> None:
        tick = threading.Event()
        assert any(condition() or tick.wait(0.005) for _ in range(2000))


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.infer.close()
    assert made.server.open == []


def test_it_begins_with_the_champion(line: Line) -> None:
    assert line.infer.pack.configuration_hash == A.configuration_hash
    assert line.infer.image_size == SIZE
    assert line.asked() == A.configuration_hash
    assert line.in_force == [A.configuration_hash]


def test_without_a_champion_it_does_not_begin() -> None:
    with pytest.raises(RegistryError, match="no champion yet"):
        FollowingInfer(Registry(MemoryStore()), FakeInfer)


def test_a_new_champion_comes_in_force_between_two_calls(line: Line) -> None:
    line.point(B)
    line.until(lambda: line.asked() == B.configuration_hash)
    assert line.in_force == [A.configuration_hash, B.configuration_hash]
    assert line.server.open == [B.configuration_hash], "the old model is closed"
    line.point(A)
    line.until(lambda: line.asked() == A.configuration_hash)


def test_a_call_that_meets_a_server_under_way_waits_for_the_pointer() -> None:
    line = Line(period_s=60)  # by itself it would look in a minute
    try:
        line.server.serving = A
        assert line.asked() == A.configuration_hash
        line.server.serving = B
        mover = threading.Timer(0.1, line.point, args=(B,))
        mover.start()
        assert line.asked() == B.configuration_hash
        mover.join()
    finally:
        line.infer.close()


def test_a_server_with_a_pack_that_nobody_promoted_is_waited_for(line: Line) -> None:
    line.server.serving = C
    with pytest.raises(UnexpectedPack):
        line.infer.infer(IMAGES, ["*"])
    assert line.infer.pack.configuration_hash == A.configuration_hash
    line.server.serving = A
    assert line.asked() == A.configuration_hash


def test_a_champion_that_can_not_be_taken_leaves_the_old_one_in_force(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    line.server.broken.add(B.configuration_hash)
    line.point(B)
    assert line.behind.wait(10)
    assert line.asked() == A.configuration_hash
    said = [record.getMessage() for record in caplog.records if "can't be taken" in record.getMessage()]
    assert len(said) == 1
    assert "its type has no topic" in said[0]
    line.server.broken.clear()
    line.until(lambda: line.asked() == B.configuration_hash)
    assert not line.behind.is_set()


def test_a_fault_of_the_program_leaves_the_old_one_in_force_too(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    line.server.fault = ValueError("nobody foresaw it")
    line.point(B)
    assert line.behind.wait(10)
    line.server.fault = None
    line.until(lambda: line.asked() == B.configuration_hash)
    assert caplog.text.count("can't be taken") == 1
    assert "Traceback" in caplog.text


def test_a_damaged_champion_is_not_taken(line: Line) -> None:
    line.store.rot(f"prompts/packs/{B.configuration_hash}.pack")
    line.point(B)
    assert line.behind.wait(10)
    assert line.asked() == A.configuration_hash
    line.registry.push(B)
    line.until(lambda: line.asked() == B.configuration_hash)


def test_a_champion_for_another_image_size_needs_a_restart(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    large = replace(A, encoder=replace(A.encoder, image_size=2 * SIZE))
    line.registry.push(large)
    line.point(large)
    assert line.behind.wait(10)
    assert "restart it" in caplog.text
    assert line.asked() == A.configuration_hash


def test_a_champion_that_is_taken_back_before_a_frame_came_is_let_go(line: Line) -> None:
    line.server.prepared.clear()
    line.point(B)
    assert line.server.prepared.wait(10)
    line.point(A)
    line.until(lambda: line.server.open == [A.configuration_hash])
    assert line.asked() == A.configuration_hash
    assert line.in_force == [A.configuration_hash]


def test_a_store_that_is_away_changes_nothing(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    line.store.away = True
    line.until(lambda: "can't be looked at" in caplog.text)
    assert line.asked() == A.configuration_hash
    line.store.away = False
    line.point(C)
    line.until(lambda: line.asked() == C.configuration_hash)
    assert caplog.text.count("can't be looked at") == 1


def test_a_look_at_pointers_that_stay_is_one_request_without_a_body(line: Line) -> None:
    def looks() -> int:
        return line.store.calls.count(("stat", POINTERS))

    line.until(lambda: looks() > 2)
    before, reads = looks(), line.store.calls.count(("get", POINTERS))
    line.until(lambda: looks() > before + 5)
    assert line.store.calls.count(("get", POINTERS)) == reads
