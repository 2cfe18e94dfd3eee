"""Packs, pointers and counters in a bucket: whole, verified, and moved by one at a time."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dapo.errors import DapoError, PackError
from dapo.pack_io import pack_bytes
from pipeline.registry.pointers import Lease, Move, Pointers, RegistryError, pointers_json, read_pointers
from pipeline.registry.registry import POINTERS, Registry
from pipeline.store.errors import StoreError, StoreUnavailable
from pipeline.testing import MemoryStore
from tests.unit.pipeline.registry.packs import champion, tuned, with_word

A, B = champion(), with_word()
HASH_A, HASH_B = A.configuration_hash, B.configuration_hash
NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("models")


@pytest.fixture
def registry(store: MemoryStore) -> Registry:
    return Registry(store)


def key_of(digest: str) -> str:
    return f"prompts/packs/{digest}.pack"


def test_a_pack_is_kept_once_and_read_as_it_was(registry: Registry, store: MemoryStore) -> None:
    assert registry.push(A) == registry.push(A) == HASH_A
    registry.push(B)
    assert pack_bytes(registry.pack(HASH_A)) == pack_bytes(A)
    assert {one.digest for one in registry.packs()} == {HASH_A, HASH_B}


def test_a_damaged_pack_is_refused_and_mended_by_pushing_it_again(
    registry: Registry, store: MemoryStore
) -> None:
    registry.push(A)
    store.rot(key_of(HASH_A))
    with pytest.raises(PackError, match=f"{HASH_A}.pack: .*push FILE"):
        registry.pack(HASH_A)
    registry.push(A)
    assert registry.pack(HASH_A).configuration_hash == HASH_A


def test_a_pack_under_the_name_of_another_is_refused(registry: Registry, store: MemoryStore) -> None:
    store.put_if_absent(key_of(HASH_A), pack_bytes(B))
    with pytest.raises(PackError, match=f"holds pack {HASH_B}"):
        registry.pack(HASH_A)


def test_what_is_no_pack_is_not_listed(registry: Registry, store: MemoryStore) -> None:
    for key in ("prompts/packs/README.md", f"prompts/packs/{HASH_A}.pack.partial", "prompts/packs/abc.pack"):
        store.put_if_absent(key, b"x")
    assert list(registry.packs()) == []


def test_packs_are_found_by_role_and_by_the_start_of_their_hash(registry: Registry) -> None:
    registry.push(A)
    registry.push(B)
    registry.change(lambda now: replace(now, champion=HASH_A, previous=HASH_B))
    assert registry.find("champion") == registry.find(HASH_A) == registry.find(HASH_A[:6]) == HASH_A
    assert registry.find("previous") == HASH_B
    assert registry.champion().configuration_hash == HASH_A
    for name, message in [
        ("challenger", "has no challenger"),
        ("abc", "neither a file nor a pack"),
        ("../../etc", "neither a file nor a pack"),
        ("0000", "no pack"),
    ]:
        with pytest.raises(RegistryError, match=message):
            registry.find(name)


def test_an_empty_registry_says_how_to_begin(registry: Registry) -> None:
    assert registry.pointers() == Pointers()
    assert registry.etag() == ""
    with pytest.raises(RegistryError, match="no champion yet"):
        registry.champion()
    with pytest.raises(RegistryError, match="Push its file first"):
        registry.pack(HASH_A)


def test_pointers_are_the_same_after_writing_and_reading() -> None:
    lease = Lease(HASH_B, "ann@press", NOW + timedelta(seconds=60), "t")
    move = Move(NOW, "ann@press", "promote", HASH_A, HASH_B, "gate: promote", "fewer\nfalse alarms")
    pointers = Pointers(HASH_A, HASH_B, None, lease, move)
    found = read_pointers(pointers_json(pointers))
    assert found == replace(pointers, last=replace(move, why="fewer false alarms"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no JSON"),
        (b"[" * 20_000, "no JSON"),
        (b"[]", "expected a JSON object"),
        (b"{}", "format None"),
        (b'{"format": 2}', "Upgrade the program"),
        (b'{"format": 1, "champion": "../../secret"}', "is no hash"),
        (b'{"format": 1, "champion": 7}', "expected a text"),
        (b'{"format": 1, "lease": "x"}', "expected a JSON object"),
        (b'{"format": 1, "last": {"at": "yesterday"}}', "is no time"),
    ],
)
def test_pointers_that_somebody_else_wrote_are_refused(
    registry: Registry, store: MemoryStore, content: bytes, message: str
) -> None:
    store.put_if_absent(POINTERS, content)
    with pytest.raises(RegistryError, match=message):
        registry.pointers()
    with pytest.raises(RegistryError, match=message):
        registry.change(lambda now: now)


def test_pointers_that_are_too_large_are_not_read(registry: Registry, store: MemoryStore) -> None:
    store.put_if_absent(POINTERS, b" " * 100_000)
    with pytest.raises(StoreError, match="more than the limit"):
        registry.pointers()


def test_a_change_that_comes_second_is_made_on_what_is_there_then(registry: Registry) -> None:
    seen: list[Pointers] = []

    def slow(now: Pointers) -> Pointers:
        if not seen:
            registry.change(lambda other: replace(other, champion=HASH_A))
        seen.append(now)
        return replace(now, challenger=HASH_B)

    assert registry.change(slow).names == {"champion": HASH_A, "challenger": HASH_B}
    assert [one.champion for one in seen] == [None, HASH_A]


def test_each_move_leaves_its_audit_line(registry: Registry, store: MemoryStore) -> None:
    def move(number: int, digest: str) -> None:
        one = Move(NOW + timedelta(seconds=number), "ann", "promote", None, digest, "forced", f"why {number}")
        registry.change(lambda now: replace(now, champion=digest, last=one))

    move(0, HASH_A)
    move(1, HASH_B)
    assert [(one.after, one.why) for one in registry.history()] == [(HASH_B, "why 1"), (HASH_A, "why 0")]
    assert [one.after for one in registry.history(limit=1)] == [HASH_B]
    keys = [one.key for one in store.list("prompts/audit/")]
    assert keys[0] == f"prompts/audit/20260131T080000.000000Z-{HASH_A[:12]}.json"


def test_an_audit_line_that_could_not_be_written_is_written_before_the_next_move(store: MemoryStore) -> None:
    class Forgetful(MemoryStore):
        lost = 1

        def put_if_absent(self, key: str, data: bytes, *, content_type: str = "") -> str:
            if "/audit/" in key and self.lost:
                self.lost -= 1
                raise StoreUnavailable("away")
            return super().put_if_absent(key, data, content_type=content_type)

    registry = Registry(Forgetful())
    for number, digest in enumerate((HASH_A, HASH_B)):
        one = Move(NOW + timedelta(seconds=number), "ann", "promote", None, digest, "", "")
        registry.change(lambda now, one=one: replace(now, champion=one.after, last=one))  # type: ignore[misc]
    assert [one.after for one in registry.history()] == [HASH_B, HASH_A]


def test_a_write_whose_answer_was_lost_is_not_made_twice() -> None:
    class Deaf(MemoryStore):
        deaf = 1

        def put_if_absent(self, key: str, data: bytes, *, content_type: str = "") -> str:
            etag = super().put_if_absent(key, data, content_type=content_type)
            if self.deaf:
                self.deaf -= 1
                raise StoreUnavailable("no answer")
            return etag

    registry = Registry(Deaf())
    assert registry.count(HASH_A) == 1
    assert registry.uses(HASH_A) == 1


def test_uses_of_a_test_set_are_counted_by_all_who_use_it(registry: Registry, store: MemoryStore) -> None:
    assert registry.uses(HASH_A) == 0
    threads = [threading.Thread(target=registry.count, args=(HASH_A,)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.uses(HASH_A) == 12
    assert registry.uses(HASH_B) == 0
    with pytest.raises(RegistryError, match="is no hash"):
        registry.count("a test")
    store.put_if_absent(f"prompts/tests/{HASH_B}.json", json.dumps({"uses": -1}).encode())
    with pytest.raises(RegistryError, match="whole number"):
        registry.count(HASH_B)


def test_gate_records_are_kept_for_the_two_packs_they_are_of(registry: Registry) -> None:
    assert registry.gate(HASH_A, HASH_B) is None
    registry.keep_gate(HASH_A, HASH_B, {"outcome": "not-decidable", "label_more": 20})
    registry.keep_gate(HASH_A, HASH_B, {"outcome": "promote"})
    assert registry.gate(HASH_A, HASH_B) == {"outcome": "promote"}
    assert registry.gate(HASH_B, HASH_A) is None
    with pytest.raises(RegistryError, match="needs an outcome"):
        registry.keep_gate(HASH_A, HASH_B, {"said": "yes"})


def test_a_store_that_is_away_is_told_as_that(registry: Registry, store: MemoryStore) -> None:
    registry.push(tuned())
    store.away = True
    for call in (registry.pointers, registry.etag, lambda: registry.push(A), lambda: registry.count(HASH_A)):
        with pytest.raises(StoreUnavailable):
            call()
    assert issubclass(StoreUnavailable, DapoError)
