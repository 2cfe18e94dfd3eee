"""The archiver: verified, idempotent, and nothing lost while the store comes and goes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from dapo.errors import ServiceUnavailable
from pipeline.archive import manifest
from pipeline.archive.archiver import Archiver, Item, Problem, Report
from pipeline.archive.keys import image_key_of
from pipeline.archive.policy import Policy, Reason
from pipeline.archive.table import read
from pipeline.store.errors import ObjectDamaged, StoreUnavailable, UploadDamaged
from pipeline.testing import MemoryStore
from tests.unit.pipeline.archive.rows import image_of, make_item, make_row

POLICY = Policy(near_margin=0, audit_rate=0)
HOSTILE = "../../ä\r\nx: y"


def archive(store: MemoryStore, *items: Item, policy: Policy = POLICY) -> Report:
    return Archiver(store, policy).archive(items)


def rows(store: MemoryStore) -> list[dict[str, object]]:
    found = []
    for _, files in manifest.parts(store):
        for file in files:
            found += read(store, file.key).to_pylist()
    return found


def contents(store: MemoryStore) -> dict[str, bytes]:
    return {one.key: store.get(one.key) for one in store.list()}


def mixed(count: int = 8) -> list[Item]:
    kinds = ["NotOK", "OK", "NotDecidable", "Undefined"]
    return [make_item(number, kinds[number % 4], line_id=f"l{number // 4}") for number in range(count)]


def test_images_lie_under_their_key_with_their_hash() -> None:
    store = MemoryStore()
    report = archive(store, make_item(1))
    key = image_key_of(make_row(1), "png")
    found = store.stat(key)
    assert store.get(key) == image_of(1)
    assert found.content_type == "image/png"
    assert found.metadata["sha256"] == hashlib.sha256(image_of(1)).hexdigest()
    assert report == Report(kept={Reason.NOT_OK: 1}, bytes=len(image_of(1)))
    assert [(row["object_key"], row["kept_because"]) for row in rows(store)] == [(key, "not-ok")]


def test_only_what_the_policy_wants_is_loaded() -> None:
    asked = []

    def loader(number: int) -> Callable[[], bytes]:
        def load() -> bytes:
            asked.append(number)
            return image_of(number)

        return load

    items = [Item(one.row, loader(one.offset), 0, one.offset) for one in mixed()]
    report = archive(MemoryStore(), *items)
    assert asked == [0, 2, 4, 6]
    assert dict(report.kept) == {Reason.NOT_OK: 2, Reason.NOT_DECIDABLE: 2}
    assert report.passed == 4


def test_the_same_batch_twice_leaves_the_same_objects() -> None:
    store = MemoryStore()
    first = archive(store, *mixed())
    before = contents(store)
    assert archive(store, *mixed()) == first
    assert contents(store) == before


def test_an_empty_batch_touches_nothing() -> None:
    store = MemoryStore()
    assert archive(store) == Report()
    assert store.calls == []


@pytest.mark.parametrize("calls", range(12))
def test_a_store_that_goes_away_anywhere_loses_and_doubles_nothing(calls: int) -> None:
    whole = MemoryStore()
    policy = Policy(audit_rate=1, ok_per_day=1)
    expected = archive(whole, *mixed(), policy=policy)
    assert len(whole.calls) == 12  # so that the parameters above cover every call
    store = MemoryStore()
    archiver = Archiver(store, policy)
    store.calls_left = calls
    with pytest.raises(StoreUnavailable):
        archiver.archive(mixed())
    store.away, store.calls_left = False, None
    for row in rows(store):
        assert store.get(str(row["object_key"]))  # no row without its image, at any time
    assert archiver.archive(mixed()) == expected
    assert contents(store) == contents(whole)
    assert Archiver(store, policy).archive(mixed()) == expected
    assert contents(store) == contents(whole)


def test_a_full_store_is_transient() -> None:
    store = MemoryStore()
    store.full = True
    with pytest.raises(StoreUnavailable):
        archive(store, make_item(1))
    store.full = False
    archive(store, make_item(1))
    assert len(rows(store)) == 1


def test_a_damaged_upload_is_noticed_and_no_row_points_at_it() -> None:
    store = MemoryStore()
    store.damaged_uploads = 1
    with pytest.raises(UploadDamaged):
        archive(store, make_item(1))
    assert rows(store) == []
    with pytest.raises(ObjectDamaged):
        store.get(image_key_of(make_row(1), "png"))
    archive(store, make_item(1))
    assert store.get(str(rows(store)[0]["object_key"])) == image_of(1)


def test_bytes_other_than_those_inspected_are_reported_and_not_kept() -> None:
    store = MemoryStore()
    wrong = Item(make_row(1), image_of(2), 0, 1)
    report = archive(store, wrong, make_item(3))
    ((problem, key, message),) = report.problems
    assert (problem, key) == (Problem.SHA256_MISMATCH, wrong.row.frame_key)
    assert hashlib.sha256(image_of(2)).hexdigest() in message
    assert dict(report.kept) == {Reason.NOT_OK: 1}
    assert [row["frame_id"] for row in rows(store)] == ["3"]


@pytest.mark.parametrize("image", [lambda: None, lambda: b"", b""])
def test_a_frame_that_is_gone_is_reported(image: bytes | Callable[[], bytes | None]) -> None:
    store = MemoryStore()
    report = archive(store, Item(make_row(1), image, 0, 1))
    assert [kind for kind, _, _ in report.problems] == [Problem.GONE]
    assert contents(store) == {}


def test_a_frame_that_may_come_later_stops_the_batch() -> None:
    def away() -> bytes:
        raise ServiceUnavailable("the broker is away")

    store = MemoryStore()
    with pytest.raises(ServiceUnavailable):
        archive(store, make_item(1), Item(make_row(2), away, 0, 2))
    assert rows(store) == []
    archive(store, make_item(1), make_item(2))
    assert len(rows(store)) == 2


def test_a_result_without_a_hash_is_kept_and_counted() -> None:
    report = archive(MemoryStore(), make_item(1, "Undefined", result_state="Failed", image_sha256=None))
    assert (dict(report.kept), report.unverified) == ({Reason.FAILED: 1}, 1)


def test_bytes_that_are_no_image_are_never_served_as_one() -> None:
    page = b"<html><script>alert(1)</script>"
    row = make_row(1, "Undefined", result_state="Failed", image_sha256=hashlib.sha256(page).hexdigest())
    store = MemoryStore()
    archive(store, Item(row, page, 0, 1))
    (key,) = (key for key in contents(store) if key.startswith("frames/"))
    assert key.endswith(f"/{row.frame_key}.bin")
    assert store.stat(key).content_type == "application/octet-stream"


def test_a_published_link_that_points_elsewhere_is_reported() -> None:
    right = f"s3://memory/{image_key_of(make_row(1), 'png')}"
    store = MemoryStore()
    report = archive(store, make_item(1, "OK", image_uri=right), make_item(2, "OK", image_uri="s3://other/x"))
    assert [kind for kind, _, _ in report.problems] == [Problem.LINK_MISMATCH]
    assert dict(report.kept) == {Reason.AUDIT: 2}
    assert len(rows(store)) == 2


def test_hostile_ids_stay_inside_the_archive() -> None:
    store = MemoryStore()
    items = [
        make_item(
            0, line_id=HOSTILE, camera_id=HOSTILE, frame_key=HOSTILE, frame_id=HOSTILE, result_id=HOSTILE
        ),
        make_item(1, line_id="", camera_id=None),
        make_item(2, line_id="_", camera_id="_"),
        make_item(3, line_id="x" * 10_000, camera_id="\x00"),
    ]
    report = archive(store, *items)
    assert report.kept[Reason.NOT_OK] == 4
    assert len([key for key in contents(store) if key.startswith("frames/")]) == 4
    assert {row["line_id"] for row in rows(store)} == {HOSTILE, "", "_", "x" * 10_000}
    for row in rows(store):
        assert store.get(str(row["object_key"]))


def test_two_results_of_one_frame_share_its_image() -> None:
    store = MemoryStore()
    archive(store, make_item(1), make_item(1, "NotDecidable", result_id="another configuration"))
    assert len([key for key in contents(store) if key.startswith("frames/")]) == 1
    assert sorted(str(row["kept_because"]) for row in rows(store)) == ["not-decidable", "not-ok"]


def test_a_report_accounts_for_every_item() -> None:
    policy = Policy(audit_rate=0.5, ok_per_day=1)
    items = [*mixed(40), Item(make_row(50), b"", 0, 50), Item(make_row(51), image_of(52), 0, 51)]
    report = archive(MemoryStore(), *items, policy=policy)
    unkept = [kind for kind, _, _ in report.problems if kind is not Problem.LINK_MISMATCH]
    assert sum(report.kept.values()) + report.passed + report.over_quota + len(unkept) == len(items)
    assert report.over_quota > 0
