"""One odd frame, label or name ends no night's run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dapo.errors import SourceError
from pipeline.archive import labels
from pipeline.archive.archiver import Archiver, Item
from pipeline.archive.policy import Policy as Keeping
from pipeline.testing import MemoryStore
from schemas.labels import GOOD, label_row
from tests.contract.archive_tree import result
from trainer.data.sample import Sample, State
from trainer.periodic.collect import usable

from . import plant

Add = Callable[..., str]
LATER = plant.NOON + timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    made = MemoryStore("images")
    plant.archive(made, tmp_path / "frames")
    return made


@pytest.fixture
def add(store: MemoryStore) -> Add:
    """Archive one more labelled frame; returns its key."""
    count = 500

    def added(name: str, picture: bytes, label: str = GOOD, product: str = "ring", **more: Any) -> str:
        nonlocal count
        count += 1
        row = result(name, product_id=product, part_id=f"part of {name}", captured_at=LATER)
        Archiver(store, Keeping(audit_rate=1.0)).archive([Item(row, picture, 0, count)])
        said = label_row(row.result_id, label, plant.NOON, "cli", author="ann", **more)
        labels.write(store, [labels.Entry(said, 0, count)])
        return row.frame_key

    return added


def collected(store: MemoryStore, *products: str) -> tuple[dict[str, tuple[Sample, ...]], list[str]]:
    said: list[str] = []
    found = usable(plant.dataset(store), products, lambda what, done, total: None, said.append)
    return found, said


def keys(found: dict[str, tuple[Sample, ...]]) -> set[str]:
    return {s.key for own in found.values() for s in own if s.state is not State.UNLABELLED}


def picture_of(store: MemoryStore, product: str) -> bytes:
    return store.get(plant.dataset(store).judged(product)[0][1].object_key)


def test_all_that_can_be_used_is_there(store: MemoryStore) -> None:
    found, said = collected(store)
    assert len(keys(found)) == 60
    assert said == []


def test_copies_of_a_picture_count_once(store: MemoryStore, add: Add) -> None:
    """A camera that stands shows one picture of many parts."""
    before = keys(collected(store)[0])
    picture = picture_of(store, "ring")
    state = plant.dataset(store).judged("ring")[0][0].word
    for number in range(3):
        add(f"again {number}", picture, state or GOOD)
    found, said = collected(store)
    assert keys(found) == before
    assert said == ["3 labelled frames are left out: each is the very picture of another"]


def test_one_picture_that_is_labelled_in_two_ways_is_left_out_wholly(store: MemoryStore, add: Add) -> None:
    before = keys(collected(store)[0])
    first = plant.dataset(store).judged("plate")[0][0]
    assert first.word == GOOD
    again = add("again", picture_of(store, "plate"), "hole", product="ring")
    found, said = collected(store)
    assert keys(found) == before - {first.key}
    assert first.key in said[0]
    assert again in said[0]
    assert "labelled good and hole" in said[0]


def test_a_name_that_is_no_files_is_left_out_unless_it_is_asked_for(store: MemoryStore, add: Add) -> None:
    add("odd", picture_of(store, "ring"), product="4711/2")
    found, said = collected(store)
    assert set(found) == set(plant.PRODUCTS)
    assert said[0].startswith("product 4711/2 is left out")
    with pytest.raises(SourceError, match="4711/2"):
        collected(store, "4711/2")


def test_frames_that_are_gone_damaged_or_no_pictures_are_left_out(store: MemoryStore, add: Add) -> None:
    rows = plant.dataset(store).judged("ring")
    store.delete(rows[0][1].object_key)
    store.put(rows[1][1].object_key, b"other bytes")
    broken = add("broken", b"no picture")
    found, said = collected(store)
    gone = {rows[0][0].key, rows[1][0].key, broken}
    assert len(keys(found)) == 58
    assert not keys(found) & gone
    assert all(any(line.startswith(f"{key} is left out: ") for line in said) for key in gone)


def test_a_mask_of_another_size_leaves_out_its_frame_alone(store: MemoryStore, add: Add) -> None:
    picture = picture_of(store, "ring") + b"\0"  # a picture of its own
    odd = add("odd", picture, "hole", mask={"size": [4, 4], "counts": "04"})
    found, said = collected(store)
    assert odd not in keys(found)
    assert len(keys(found)) == 60
    assert len(said) == 1


def test_a_store_that_is_away_is_no_fault_of_frames(store: MemoryStore) -> None:
    data = plant.dataset(store)
    data.products()
    store.away = True
    with pytest.raises(SourceError):
        usable(data, (), lambda what, done, total: None, lambda text: None)
