"""The fake's own switches; what it shares with real stores is in the conformance suite."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipeline.store.errors import ObjectDamaged, StoreUnavailable, UploadDamaged
from pipeline.testing import MemoryStore


def test_a_store_that_comes_back_has_what_it_had() -> None:
    store = MemoryStore()
    store.put("a", b"1")
    store.away = True
    with pytest.raises(StoreUnavailable):
        store.get("a")
    store.away = False
    assert store.get("a") == b"1"


def test_a_full_store_still_reads_and_deletes() -> None:
    store = MemoryStore()
    store.put("a", b"1")
    store.full = True
    with pytest.raises(StoreUnavailable):
        store.put("b", b"1")
    assert store.get("a") == b"1"
    store.delete("a")
    assert store.calls == [("put", "a"), ("get", "a"), ("delete", "a")]


def test_a_store_goes_away_after_so_many_calls() -> None:
    store = MemoryStore()
    store.calls_left = 2
    store.put("a", b"1")
    store.put("b", b"1")
    with pytest.raises(StoreUnavailable):
        store.put("c", b"1")
    store.away, store.calls_left = False, None
    assert [one.key for one in store.list()] == ["a", "b"]


def test_a_damaged_upload_can_t_be_read_until_it_is_sent_again() -> None:
    store = MemoryStore()
    store.damaged_uploads = 1
    with pytest.raises(UploadDamaged):
        store.put("a", b"12")
    with pytest.raises(ObjectDamaged):
        store.get("a")
    store.put("a", b"12")
    assert store.get("a") == b"12"


def test_bytes_that_rot_are_noticed() -> None:
    store = MemoryStore()
    store.put("a", b"12")
    store.rot("a")
    with pytest.raises(ObjectDamaged):
        store.get("a")


def test_the_clock_is_the_test_s() -> None:
    day = datetime(2026, 1, 31, tzinfo=UTC)
    store = MemoryStore(clock=lambda: day)
    store.put("a", b"1")
    assert store.stat("a").modified == day
