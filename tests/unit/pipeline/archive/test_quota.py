"""Daily quotas of OK frames: first come, first served, and a restart does not begin again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline.archive.archiver import Archiver, Report
from pipeline.archive.policy import Policy, Reason
from pipeline.archive.quota import QuotaBook
from pipeline.store.errors import StoreUnavailable
from pipeline.testing import MemoryStore
from tests.unit.pipeline.archive.rows import NOON, make_item, make_row

THREE = Policy(audit_rate=1, ok_per_day=3)


def archive(store: MemoryStore, *items: object, policy: Policy = THREE) -> Report:
    return Archiver(store, policy).archive(items)  # type: ignore[arg-type]


def test_a_camera_has_its_quota_and_no_more() -> None:
    report = archive(MemoryStore(), *(make_item(number, "OK") for number in range(5)))
    assert (dict(report.kept), report.over_quota) == ({Reason.AUDIT: 3}, 2)


def test_every_camera_line_and_day_has_its_own() -> None:
    places = [{}, {"camera_id": "cam-2"}, {"line_id": "l2"}, {"captured_at": NOON + timedelta(days=1)}]
    items = [make_item(10 * n + k, "OK", **fields) for n, fields in enumerate(places) for k in range(4)]
    report = archive(MemoryStore(), *items)
    assert (report.kept[Reason.AUDIT], report.over_quota) == (12, 4)


def test_a_day_ends_at_midnight_utc() -> None:
    late = NOON.replace(hour=23, minute=59, second=59)
    items = [make_item(n, "OK", captured_at=late + timedelta(seconds=n // 4)) for n in range(8)]
    report = archive(MemoryStore(), *items)
    assert (report.kept[Reason.AUDIT], report.over_quota) == (6, 2)


def test_what_is_not_ok_has_no_quota_and_uses_none() -> None:
    items = [make_item(n, "NotOK") for n in range(5)]
    items += [make_item(10 + n, "NotDecidable") for n in range(5)]
    items += [make_item(20 + n, "Undefined", result_state="Failed") for n in range(5)]
    items += [make_item(30 + n, "OK") for n in range(4)]
    report = archive(MemoryStore(), *items)
    assert dict(report.kept) == {Reason.NOT_OK: 5, Reason.NOT_DECIDABLE: 5, Reason.FAILED: 5, Reason.AUDIT: 3}


def test_near_frames_and_the_sample_share_the_quota() -> None:
    policy = Policy(near_margin=0.5, audit_rate=0, ok_per_day=2)
    items = [make_item(n, "OK", anomaly_score=0.35) for n in range(3)]
    report = archive(MemoryStore(), *items, policy=policy)
    assert (dict(report.kept), report.over_quota) == ({Reason.NEAR_THRESHOLD: 2}, 1)


def test_a_restart_goes_on_counting() -> None:
    store = MemoryStore()
    archive(store, make_item(0, "OK"), make_item(1, "OK"))
    report = archive(store, make_item(2, "OK"), make_item(3, "OK"))
    assert (report.kept[Reason.AUDIT], report.over_quota) == (1, 1)


def test_a_batch_that_is_archived_again_keeps_the_same_frames() -> None:
    store = MemoryStore()
    batch = [make_item(number, "OK") for number in range(5)]
    first = archive(store, *batch)
    before = [(one.key, one.etag) for one in store.list()]
    assert archive(store, *batch) == first
    assert [(one.key, one.etag) for one in store.list()] == before


def test_a_promised_image_is_kept_beyond_the_quota_and_counts() -> None:
    def promised(number: int) -> object:
        row = make_row(number, "OK")
        return make_item(
            number, "OK", image_uri=f"s3://memory/frames/l1/cam-1/2026/01/31/12/{row.frame_key}.png"
        )

    report = archive(MemoryStore(), *(promised(n) for n in range(5)), make_item(9, "OK"))
    assert (report.kept[Reason.AUDIT], report.over_quota, report.problems) == (5, 1, ())


def test_what_another_archiver_kept_meanwhile_counts_after_a_reassignment() -> None:
    store = MemoryStore()
    mine, other = Archiver(store, THREE), Archiver(store, THREE)
    mine.archive([make_item(0, "OK")])
    other.archive([make_item(1, "OK"), make_item(2, "OK")])
    mine.reassigned()
    assert mine.archive([make_item(3, "OK")]).over_quota == 1


def test_hostile_cameras_have_a_quota_each() -> None:
    items = [
        make_item(4 * n + k, "OK", camera_id=name)
        for n, name in enumerate(["a/b", "a_b", None])
        for k in range(4)
    ]
    store = MemoryStore()
    assert archive(store, *items).kept[Reason.AUDIT] == 9
    assert archive(store, make_item(99, "OK", camera_id="a/b")).over_quota == 1


def test_a_store_that_is_away_counts_nothing() -> None:
    store = MemoryStore()
    archive(store, make_item(0, "OK"))
    book = QuotaBook(store, 2)
    store.away = True
    with pytest.raises(StoreUnavailable):
        book.admits(make_row(1, "OK"))
    store.away = False
    assert [book.admits(make_row(number, "OK")) for number in (1, 2, 0, 1)] == [True, False, True, True]


def test_memory_does_not_grow_with_days() -> None:
    book = QuotaBook(MemoryStore(), 2)
    for day in range(500):
        assert book.admits(make_row(day, "OK", captured_at=NOON + timedelta(days=day)))
    assert len(book._kept) == 64
