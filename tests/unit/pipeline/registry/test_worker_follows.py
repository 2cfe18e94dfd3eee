"""A worker on a log, with a registry whose champion moves while it works: exactly once, and one switch per partition."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

import pytest

from dapo.errors import SettingsError
from dapo.pack import Pack
from pipeline.registry.follow import FollowingInfer
from pipeline.registry.registry import Registry
from pipeline.settings import load
from pipeline.store.errors import StoreUnavailable
from pipeline.stream import compose
from pipeline.testing import FakeInfer, MemoryLog, MemoryStore
from tests.unit.pipeline.registry.packs import champion, tuned, with_word
from tests.unit.pipeline.stream.test_worker import TOPICS, Line

A, B, C = champion(), with_word(), tuned()


@pytest.fixture
def registry() -> Registry:
    made = Registry(MemoryStore())
    for pack in (A, B, C):
        made.push(pack)
    return made


@pytest.fixture
def follower(registry: Registry) -> Iterator[FollowingInfer]:
    point(registry, A)
    made = FollowingInfer(registry, FakeInfer, period_s=0.005)
    yield made
    made.close()


def point(registry: Registry, pack: Pack) -> None:
    registry.change(lambda now: replace(now, champion=pack.configuration_hash))


@pytest.mark.parametrize("failing", [0, 3])
def test_rows_change_their_pack_once_for_each_switch(
    registry: Registry, follower: FollowingInfer, failing: int
) -> None:
    line, stop = Line(partitions=2), threading.Event()
    log = MemoryLog(line.broker, TOPICS.frames)
    ids: list[str] = []
    with line.running(line.worker(log=log, infer=follower, stop=stop), stop):
        for pack in (A, B, C):
            point(registry, pack)
            log.failing = failing

            def judged_with(pack: Pack = pack) -> bool:
                if len(ids) < 600:
                    ids.extend(line.send(1, first=len(ids)))
                return any(row.configuration_hash == pack.configuration_hash for row in line.rows())

            line.until(judged_with)
        line.until(lambda: len(line.rows()) == len(ids))
    rows = line.rows()
    assert sorted(row.frame_id for row in rows) == ids
    packs = [one.configuration_hash for one in (A, B, C)]
    for partition in (0, 1):
        mine = sorted(
            (row for row in rows if row.frames_partition == partition), key=lambda row: row.frames_offset or 0
        )
        order = [digest for digest, _ in groupby(row.configuration_hash for row in mine)]
        assert order == [digest for digest in packs if digest in order]
    assert {row.prompt_version for row in rows} == {digest[:12] for digest in packs}


def test_a_file_and_the_registry_can_not_both_say_the_pack() -> None:
    settings = load({"pack.follow": True, "pack.path": "line.pack"}, environment={}).settings
    with (
        pytest.raises(SettingsError, match="Set one of them"),
        compose.worker(settings, threading.Event(), print),
    ):
        pass


def test_following_needs_a_store() -> None:
    settings = load({"pack.follow": True}, environment={}).settings
    with (
        pytest.raises(SettingsError, match=r"store\.endpoint"),
        compose.worker(settings, threading.Event(), print),
    ):
        pass


def test_a_registry_that_is_away_is_waited_for_as_the_pack() -> None:
    name = compose.named(load({}, environment={}).settings)
    assert name("model", StoreUnavailable("away")) == name("pack", StoreUnavailable("away")) == "pack"
    assert name("store", StoreUnavailable("away")) == "store"


def test_a_model_server_is_given_back_only_what_is_the_champion_still() -> None:
    store = MemoryStore()
    registry = Registry(store)
    for pack in (A, B):
        registry.push(pack)
    point(registry, A)
    assert compose.is_champion(registry, A)
    assert not compose.is_champion(registry, B)
    store.away = True
    assert compose.is_champion(registry, B), "a registry that is away keeps no line from coming back"
