"""What every object store must do. Run on the fake by test_store.py, on real servers by tests/integration/test_store.py."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.ports import ObjectStore
from pipeline.store.errors import BadName, Conflict, NotFound, StoreUnavailable, TooLarge

PAGE = 1000  # objects that S3 lists at once
VERBS: dict[str, Callable[[ObjectStore, str], object]] = {
    "put": lambda store, key: store.put(key, b"1"),
    "put_if_absent": lambda store, key: store.put_if_absent(key, b"1"),
    "replace": lambda store, key: store.replace(key, b"1", "0" * 32),
    "get": lambda store, key: store.get(key),
    "stat": lambda store, key: store.stat(key),
    "delete": lambda store, key: store.delete(key),
}


class StoreSuite(ABC):
    """Subclasses make stores."""

    @abstractmethod
    def empty(self) -> ObjectStore:
        """An empty bucket of its own."""

    @abstractmethod
    def away(self) -> ObjectStore:
        """A bucket whose server does not answer."""

    @pytest.fixture
    def store(self) -> Iterator[ObjectStore]:
        made = self.empty()
        yield made
        made.close()

    @pytest.mark.parametrize("data", [b"", b"one", bytes(range(256)) * 4096], ids=["empty", "small", "1 MB"])
    def test_what_was_put_is_given_back(self, store: ObjectStore, data: bytes) -> None:
        before = datetime.now(UTC)
        etag = store.put(
            "a/b.png", data, content_type="image/png", metadata={"frame-id": "left/part 1 (a=b, c)"}
        )
        assert store.get("a/b.png") == data
        found = store.stat("a/b.png")
        assert (found.key, found.size, found.etag, found.content_type) == (
            "a/b.png",
            len(data),
            etag,
            "image/png",
        )
        assert found.metadata == {
            "frame-id": "left/part 1 (a=b, c)",
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        assert abs(found.modified - before) < timedelta(minutes=2)

    def test_putting_twice_is_putting_once(self, store: ObjectStore) -> None:
        assert store.put("a", b"1", metadata={"n": "1"}) == store.put("a", b"1", metadata={"n": "1"})
        assert [one.key for one in store.list()] == ["a"]
        assert store.stat("a").metadata["n"] == "1"

    def test_a_put_replaces_bytes_type_and_metadata(self, store: ObjectStore) -> None:
        first = store.put("a", b"1", content_type="image/png", metadata={"old": "1"})
        second = store.put("a", b"22")
        found = store.stat("a")
        assert first != second == found.etag
        assert store.get("a") == b"22"
        assert found.content_type == "application/octet-stream"
        assert set(found.metadata) == {"sha256"}

    def test_what_is_not_there_is_not_found(self, store: ObjectStore) -> None:
        store.put("a/b", b"1")
        for ask in (store.get, store.stat):
            for key in ("c", "a/c", "a"):
                with pytest.raises(NotFound):
                    ask(key)

    def test_deleting_twice_is_deleting_once(self, store: ObjectStore) -> None:
        store.put("a/b", b"1")
        store.put("a/c", b"1")
        for _ in range(2):
            store.delete("a/b")
            assert [one.key for one in store.list()] == ["a/c"]
        store.delete("never/there")

    def test_only_the_first_put_if_absent_counts(self, store: ObjectStore) -> None:
        etag = store.put_if_absent("prompts/champion", b"1", content_type="application/json")
        with pytest.raises(Conflict):
            store.put_if_absent("prompts/champion", b"2")
        assert store.get("prompts/champion") == b"1"
        found = store.stat("prompts/champion")
        assert (found.etag, found.content_type, dict(found.metadata)) == (etag, "application/json", {})

    def test_a_replace_needs_the_etag_of_what_it_replaces(self, store: ObjectStore) -> None:
        first = store.put_if_absent("a", b"1")
        second = store.replace("a", b"2", first)
        assert store.stat("a").etag == second
        assert store.get("a") == b"2"
        with pytest.raises(Conflict):
            store.replace("a", b"3", first)
        assert store.get("a") == b"2"
        store.replace("a", b"4", second)
        assert store.get("a") == b"4"

    def test_of_a_deleted_object_nothing_is_left(self, store: ObjectStore) -> None:
        store.put("a", b"1", metadata={"n": "1"})
        store.delete("a")
        store.put_if_absent("a", b"2")
        assert store.get("a") == b"2"
        assert not store.stat("a").metadata

    def test_what_is_gone_is_not_replaced(self, store: ObjectStore) -> None:
        etag = store.put_if_absent("a", b"1")
        store.delete("a")
        with pytest.raises(Conflict):
            store.replace("a", b"2", etag)
        with pytest.raises(NotFound):
            store.get("a")

    def test_of_many_writers_one_is_first(self, store: ObjectStore) -> None:
        def write(number: int) -> bool:
            try:
                store.put_if_absent("a", str(number).encode())
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(write, range(8)))
        assert won.count(True) == 1
        assert store.get("a") == str(won.index(True)).encode()

    def test_a_listing_is_ordered_and_cut_by_any_prefix(self, store: ObjectStore) -> None:
        keys = [
            "x/a",
            "x-a/1",
            "x/a-b",
            "x.a/1",
            "x/day=2026-01-01/f",
            "x/day=2026-01-02/f",
            "X/a",
            "x/a.b",
            "y",
            "x/_/1",
        ]
        for number, key in enumerate(keys):
            store.put(key, b"1" * number)
        listed = list(store.list())
        assert [one.key for one in listed] == sorted(keys)
        assert {one.key: one.size for one in listed} == {key: number for number, key in enumerate(keys)}
        for one in listed:
            assert one.etag == store.stat(one.key).etag
            assert one.modified.tzinfo is not None
        for prefix in ("x", "x/", "x/day=2026-01-0", "x/a", "y", "z", "x/day=2026-01-01/"):
            assert [one.key for one in store.list(prefix)] == sorted(
                key for key in keys if key.startswith(prefix)
            )

    def test_a_listing_goes_on_after_a_page_and_its_objects_may_be_deleted_meanwhile(
        self, store: ObjectStore
    ) -> None:
        keys = [f"f/{number:05d}" for number in range(PAGE + 5)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(key, b"1"), keys))
        seen = []
        for one in store.list("f/"):
            seen.append(one.key)
            if len(seen) < PAGE:
                store.delete(one.key)
        assert seen == keys
        assert [one.key for one in store.list()] == keys[PAGE - 1 :]

    def test_an_object_above_the_limit_is_not_read(self, store: ObjectStore) -> None:
        store.put("a", b"12345")
        assert store.get("a", max_bytes=5) == b"12345"
        with pytest.raises(TooLarge, match="5 bytes, more than the limit of 4"):
            store.get("a", max_bytes=4)
        assert store.get("a") == b"12345"  # the connection is still good

    @pytest.mark.parametrize("verb", VERBS)
    def test_a_hostile_key_reaches_no_server(self, verb: str) -> None:
        away = self.away()  # a key that was sent would raise StoreUnavailable
        for key in (
            "",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a/../b",
            "a/.",
            ".hidden",
            "a\\b",
            "a b",
            "ä",
            "a\n",
            "a?x=1",
            "-a",
            "x" * 2000,
        ):
            with pytest.raises(BadName, match="object key"):
                VERBS[verb](away, key)
        away.close()

    def test_a_hostile_prefix_or_metadata_is_refused(self, store: ObjectStore) -> None:
        for prefix in ("../", "/", "a//", "a b"):
            with pytest.raises(BadName, match="object key"):
                store.list(prefix)
        for metadata in (
            {"a": "ä"},
            {"A": "1"},
            {"a": "1\r\nx: y"},
            {"": "1"},
            {"a": " 1"},
            {"a": "1" * 2000, "b": "1" * 100},
        ):
            with pytest.raises(BadName, match="metadata"):
                store.put("a", b"1", metadata=metadata)
        assert list(store.list()) == []

    @pytest.mark.parametrize("verb", [*VERBS, "list"])
    def test_a_server_that_is_away_is_a_transient_error(self, verb: str) -> None:
        away = self.away()
        with pytest.raises(StoreUnavailable):
            list(away.list()) if verb == "list" else VERBS[verb](away, "a/b")
        away.close()

    def test_a_store_says_its_bucket(self, store: ObjectStore) -> None:
        assert store.bucket
        store.close()
        store.close()


class AtomicReplaceSuite(StoreSuite):
    """For servers that compare an etag and write in one step. versitygw v1.8.0 does not: docs/archive.md says what follows."""

    def test_no_change_is_lost_between_writers(self, store: ObjectStore) -> None:
        store.put_if_absent("counter", b"0")

        def count(times: int) -> None:
            while times:
                etag = store.stat("counter").etag
                seen = int(store.get("counter"))
                try:
                    store.replace("counter", str(seen + 1).encode(), etag)
                except Conflict:
                    continue
                times -= 1

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count, [5] * 4))
        assert store.get("counter") == b"20"
