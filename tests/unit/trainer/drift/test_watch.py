"""A line is looked at through its archive: what is told, by whom it is asked, and what keeps it from being told."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dapo.pack import Pack
from dapo.pack_changes import with_usual
from dapo.pack_io import read_pack
from pipeline.archive.archiver import Archiver, Item
from pipeline.archive.policy import Policy as Keeping
from pipeline.bundled import default_pack_path
from pipeline.testing import MemoryStore
from tests.contract.archive_tree import result
from tests.unit.trainer.periodic import plant
from trainer.drift import watch as watching
from trainer.drift.cli import as_json, table_of
from trainer.drift.look import drawn_frames, look, with_usual_frames
from trainer.drift.watch import DriftMetrics, DriftWatch

EVENING = plant.NOON + timedelta(hours=6)
DAY = timedelta(days=1)
BUNDLED = read_pack(default_pack_path())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> MemoryStore:
    store = MemoryStore("images")
    plant.archive(store, tmp_path_factory.mktemp("frames"))
    return store


@pytest.fixture(scope="module")
def knowing(images: MemoryStore) -> Pack:
    """The champion, which knows what the archive shows."""
    frames = drawn_frames(plant.dataset(images), 1.0)
    settings = plant.settings()
    return with_usual_frames(plant.champion(), frames, settings.model, settings.run.batch)


def watch(images: MemoryStore, pack: Pack, window: timedelta = DAY) -> DriftWatch:
    return DriftWatch(lambda: pack, images, plant.settings(), window=window)


def sample(metrics: DriftMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_line_that_looks_as_ever_is_told_so(images: MemoryStore, knowing: Pack) -> None:
    looking = watch(images, knowing)
    found = looking.look(EVENING)
    assert [(one.product, one.of) for one in found.drifts] == [
        (product, of) for product in plant.PRODUCTS for of in ("scores", "features")
    ]
    assert found.drifted == []
    assert sample(looking.metrics, "dapo_drift_distance", product="ring", of="scores") == 0
    assert sample(looking.metrics, "dapo_drift_frames", product="plate") == 30 + plant.FRESH
    assert sample(looking.metrics, "dapo_drift_looked_timestamp_seconds") == EVENING.timestamp()


def test_a_product_that_looks_otherwise_has_drifted(images: MemoryStore, knowing: Pack) -> None:
    frames = drawn_frames(plant.dataset(images), 1.0)
    settings = plant.settings()
    ring = look(knowing, {"ring": frames["ring"]}, settings.model, settings.run.batch)["ring"]
    other = with_usual(knowing, "plate", ring.scores + 0.5, -ring.features)
    found = watch(images, other).look(EVENING)
    assert {one.product for one in found.drifted} == {"plate"}
    said = as_json(found)
    assert said["drifted"] == ["plate"]
    json.dumps(said, allow_nan=False)
    assert table_of(found).row_count == 4


def test_what_the_pack_does_not_know_is_told_and_not_guessed(images: MemoryStore) -> None:
    looking = watch(images, plant.champion())
    found = looking.look(EVENING)
    assert found.drifts == []
    assert set(found.unknown) == set(plant.PRODUCTS)
    assert sample(looking.metrics, "dapo_drift_unknown", product="ring") == 1


def test_names_that_the_pack_does_not_know_are_one_label(images: MemoryStore) -> None:
    """They come from outside: there may be thousands."""
    looking = watch(images, BUNDLED)
    assert set(looking.look(EVENING).unknown) == set(plant.PRODUCTS)
    assert sample(looking.metrics, "dapo_drift_unknown", product="*") == len(plant.PRODUCTS)
    assert sample(looking.metrics, "dapo_drift_unknown", product="ring") is None


def test_what_was_not_looked_at_yet_is_counted_from_the_start() -> None:
    told = sample(DriftMetrics(), "dapo_drift_looked_timestamp_seconds")
    assert told is not None
    assert abs(told - datetime.now(UTC).timestamp()) < 60


def test_only_the_last_hours_are_looked_at(images: MemoryStore, knowing: Pack) -> None:
    found = watch(images, knowing, timedelta(hours=6) - timedelta(seconds=100)).look(EVENING)
    assert found.unknown
    assert all("too few" in why for why in found.unknown.values())
    empty = watch(images, knowing, timedelta(hours=1)).look(EVENING)
    assert (empty.drifts, empty.unknown) == ([], {})


def test_frames_are_drawn_by_chance_whatever_was_said_of_them(images: MemoryStore) -> None:
    data = plant.dataset(images)
    half = drawn_frames(data, 0.5)
    assert 10 < len(half["plate"]) < 45
    assert {sample.state.value for sample in half["plate"]} == {"good", "defective", "unlabelled"}
    assert [len(own) for own in drawn_frames(data, 1.0, 7).values()] == [7, 7]


def test_it_is_ready_while_it_can_look(images: MemoryStore, knowing: Pack) -> None:
    looking, stop, looked = watch(images, knowing), threading.Event(), []
    assert looking.missing() == {"look": "no look yet"}
    images.away = True

    def tell(found: object) -> None:
        looked.append(found)
        stop.set()

    failing = threading.Thread(target=looking.run, args=(stop, timedelta(seconds=0.05), tell))
    failing.start()
    try:
        deadline = datetime.now(UTC) + timedelta(seconds=20)
        while "no look" in looking.missing()["look"] and datetime.now(UTC) < deadline:
            threading.Event().wait(0.01)
        assert "away" in looking.missing()["look"] or "answer" in looking.missing()["look"]
        assert looked == []
    finally:
        images.away = False
        failing.join(60)
    assert not failing.is_alive()
    assert len(looked) == 1


def test_a_picture_that_is_gone_is_left_out(
    knowing: Pack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore("images")
    plant.archive(store, tmp_path)
    gone = next(one.key for one in store.list("frames/"))
    store.delete(gone)
    found = watch(store, knowing).look(EVENING)
    assert gone in caplog.text
    assert sum(one.frames for one in found.drifts if one.of == "scores") == 2 * (30 + plant.FRESH) - 1


def test_a_product_whose_name_can_be_no_files_is_left_out(knowing: Pack, tmp_path: Path) -> None:
    """Names come in the headers of frames."""
    store = MemoryStore("images")
    plant.archive(store, tmp_path)
    row = result("odd", product_id="4711/2", captured_at=plant.NOON)
    Archiver(store, Keeping(audit_rate=1.0)).archive([Item(row, b"no picture", 0, 1000)])
    assert {one.product for one in watch(store, knowing).look(EVENING).drifts} == set(plant.PRODUCTS)


def test_frames_of_another_pack_count_too(images: MemoryStore, knowing: Pack) -> None:
    """They are judged again: scores of rows would be of the pack that made them."""
    worded = replace(knowing, generic_words=(*knowing.generic_words, "flaw"))
    assert watch(images, worded).look(EVENING).drifted == []


def test_the_encoder_is_loaded_once_for_each_champion(
    images: MemoryStore, knowing: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look comes every hour for months."""
    loaded: list[Pack] = []
    real = watching.Pair

    def noted(champion: Pack, *rest: Any) -> Any:
        loaded.append(champion)
        return real(champion, *rest)

    monkeypatch.setattr(watching, "Pair", noted)
    packs = [knowing, knowing, replace(knowing, generic_words=(*knowing.generic_words, "flaw"))]
    looking = DriftWatch(lambda: packs[0], images, plant.settings(), window=DAY)
    for _ in range(3):
        looking.look(EVENING)
        packs.append(packs.pop(0))
    assert len(loaded) == 2
