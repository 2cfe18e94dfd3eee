"""The archiver's loop over a log and a store in memory."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import replace

import pytest
from kafka.errors import KafkaError

from dapo.errors import ServiceUnavailable
from pipeline.archive.archiver import Archiver
from pipeline.archive.policy import Policy
from pipeline.ports import Message, Record
from pipeline.settings import load
from pipeline.store.errors import StoreError
from pipeline.stream.archiving import Archiving
from pipeline.stream.compose import archiving
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import Teller
from pipeline.testing import DAY, MemoryBroker, MemoryLog, MemoryStore, encoded, surface
from tests.unit.pipeline.stream.test_verdicts import result

TOPICS = Topics("t")
TELLER = Teller(TOPICS)
PICTURE = encoded(surface())


def until(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


class Frames:
    """Frames by their place."""

    def __init__(self) -> None:
        self.there: dict[tuple[int, int], Record] = {}

    def read(self, partition, offset):
        return self.there.get((partition, offset))


class Plant:
    """Results of NotOK frames on a broker, and their frames."""

    def __init__(self, count: int = 10) -> None:
        self.broker, self.frames, self.store = MemoryBroker(), Frames(), MemoryStore()
        for number in range(count):
            self.add(number)

    def add(
        self, number: int, data: bytes = PICTURE, headers=(), kept: bool = True, sha: str | None = None
    ) -> None:
        given = result(sequence=number)
        record = replace(given.frame.record, offset=number, value=data, headers=headers)
        frame = replace(given.frame, frame_id=f"f{number}", record=record)
        sha = hashlib.sha256(data or PICTURE).hexdigest() if sha is None else sha
        for message in TELLER.tell(replace(given, frame=frame, image_sha256=sha)).messages:
            self.broker.write(message)
        if kept:
            self.frames.there[(record.partition, number)] = record

    def images(self):
        return sorted(one.key for one in self.store.list("frames/"))

    def loop(self, stop: threading.Event, fetch=lambda uri: None, log=None, **options) -> Archiving:
        log = log or MemoryLog(self.broker, TOPICS.results, "archive")
        archiver = Archiver(self.store, Policy())
        options = {"batch": 4, "batch_s": 0.05, **options}
        return Archiving(log, archiver, self.frames, fetch, stop=stop, **options)

    def run(self, condition, stop=None, **options) -> Archiving:
        stop = stop or threading.Event()
        loop = self.loop(stop, **options)
        thread = threading.Thread(target=loop.run, daemon=True)
        thread.start()
        until(lambda: condition(loop))
        stop.set()
        thread.join(10)
        assert not thread.is_alive()
        return loop


class WatchedLog(MemoryLog):
    """Remembers what was committed, and tells whoever waits that it was polled."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker, TOPICS.results, "archive")
        self.polled = threading.Condition()
        self.polls = 0
        self.commits: list[int] = []

    def poll(self, timeout_s, max_records):
        """Counts it."""
        with self.polled:
            self.polls += 1
            self.polled.notify_all()
        return super().poll(timeout_s, max_records)

    def commit(self, messages, consumed):
        """Keeps the offsets."""
        self.commits += consumed.values()
        return super().commit(messages, consumed)


def done(plant: Plant, count: int):
    return lambda loop: sum(plant.broker.offsets.values()) >= count


def test_every_wanted_image_is_kept_once_however_often_the_archiver_starts():
    plant = Plant(10)
    first = plant.run(done(plant, 10))
    assert (first.archived.kept, first.archived.problems) == (10, 0)
    assert len(plant.images()) == 10
    plant.broker.offsets.clear()  # as if nothing had been committed
    plant.run(done(plant, 10))
    assert len(plant.images()) == 10


def test_a_store_that_is_away_is_waited_for_and_nothing_is_committed_meanwhile():
    plant = Plant(10)
    plant.store.away = True
    stop = threading.Event()
    loop = plant.loop(stop)
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    until(lambda: loop.waits >= 2)
    assert plant.broker.offsets == {}
    plant.store.away = False
    until(lambda: done(plant, 10)(loop))
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert len(plant.images()) == 10


def test_a_frame_that_retention_took_is_told_not_hidden():
    plant = Plant(3)
    plant.add(3, kept=False)
    loop = plant.run(done(plant, 4))
    assert (loop.archived.kept, loop.archived.problems) == (3, 1)


def test_bytes_that_are_not_those_inspected_are_not_archived():
    plant = Plant(1)
    plant.frames.there[(2, 0)] = replace(plant.frames.there[(2, 0)], value=b"something else")
    loop = plant.run(done(plant, 1))
    assert (loop.archived.kept, loop.archived.problems) == (0, 1)
    assert plant.images() == []


def test_a_large_frame_comes_from_where_its_message_says():
    plant = Plant(0)
    plant.add(0, data=b"", headers=(("ce_dataref", b"s3://b/claims/x"),))
    loop = plant.run(done(plant, 1), fetch=lambda uri: PICTURE if uri == "s3://b/claims/x" else None)
    assert loop.archived.kept == 1


def test_a_message_that_is_no_row_is_counted_and_passed():
    plant = Plant(2)
    plant.broker.write(Message(TOPICS.results, b"cam", b"nonsense"))
    loop = plant.run(done(plant, 3))
    assert (loop.archived.kept, loop.archived.unreadable) == (2, 1)


def test_a_commit_that_is_undone_is_done_again_and_leaves_the_same_objects():
    plant = Plant(6)
    log = MemoryLog(plant.broker, TOPICS.results, "archive")
    log.failing = 2
    plant.run(done(plant, 6), log=log)
    assert len(plant.images()) == 6


def test_a_group_that_moves_beside_a_commit_leaves_the_same_objects():
    plant = Plant(6)
    log = MemoryLog(plant.broker, TOPICS.results, "archive")
    log.moving = 2
    plant.run(done(plant, 6), log=log)
    assert len(plant.images()) == 6


def test_the_day_is_that_of_the_picture():
    plant = Plant(1)
    plant.run(done(plant, 1))
    [key] = plant.images()
    assert f"/{DAY:%Y/%m/%d/%H}/" in key


def test_a_slow_store_costs_no_membership():
    """A member that does not poll is put out of its group, and its commits are undone: the same batch for ever."""
    plant = Plant(3)
    log = WatchedLog(plant.broker)

    class Slow(MemoryStore):
        def put(self, key, data, **options):
            with log.polled:
                seen = log.polls
                assert log.polled.wait_for(lambda: log.polls > seen, 5), "nobody polls"
            return super().put(key, data, **options)

    plant.store = Slow()
    plant.run(done(plant, 3), log=log)
    assert len(plant.images()) == 3


def test_a_long_batch_is_committed_in_slices():
    plant = Plant(10)
    log = WatchedLog(plant.broker)
    plant.run(done(plant, 10), log=log, slice_s=0.0)
    assert log.commits == list(range(1, 11))
    log = WatchedLog(plant.broker)
    plant.broker.offsets.clear()
    plant.broker.share("archive")
    plant.run(done(plant, 10), log=log)
    assert log.commits == [4, 8, 10]


def test_a_stop_amid_a_batch_commits_what_is_archived():
    plant, stop = Plant(4), threading.Event()

    class Stopping(MemoryStore):
        def put(self, key, data, **options):
            if len(list(self.list("frames/"))) == 1:
                stop.set()
            return super().put(key, data, **options)

    plant.store = Stopping()
    plant.run(lambda loop: stop.is_set(), stop=stop)
    assert list(plant.broker.offsets.values()) == [2]
    assert len(plant.images()) == 2


def test_results_that_come_one_by_one_share_a_batch():
    plant = Plant(4)

    class Trickling(WatchedLog):
        def poll(self, timeout_s, max_records):
            """One record, then none."""
            return super().poll(timeout_s, 1) if self.polls % 2 == 0 else self._none()

        def _none(self):
            self.polls += 1
            return []

    log = Trickling(plant.broker)
    plant.run(done(plant, 4), log=log, batch_s=20.0)
    assert log.commits == [4]


def test_a_lone_result_waits_no_longer_than_it_may():
    plant = Plant(1)
    log = WatchedLog(plant.broker)
    plant.run(done(plant, 1), log=log, batch_s=0.05)
    assert log.commits == [1]


@pytest.mark.parametrize("moves", ["commit", "wait"])
def test_quotas_are_counted_anew_whenever_reading_starts_over(moves: str):
    """Meanwhile another archiver may have kept frames of the same cameras."""
    plant, stop = Plant(4), threading.Event()
    log = MemoryLog(plant.broker, TOPICS.results, "archive")
    told: list[int] = []

    class Told(Archiver):
        def reassigned(self) -> None:
            told.append(log.epoch)
            super().reassigned()

    loop = Archiving(
        log, Told(plant.store, Policy()), plant.frames, lambda uri: None, batch=4, batch_s=0.05, stop=stop
    )
    if moves == "commit":
        log.failing = 1
    else:
        plant.store.away = True
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    if moves == "wait":
        until(lambda: loop.waits >= 1)
        plant.broker.share("archive")
        plant.store.away = False
    until(lambda: done(plant, 4)(loop))
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert told == [2]


def test_images_whose_rows_name_no_hash_are_counted():
    plant = Plant(1)
    plant.add(1, sha="")
    loop = plant.run(done(plant, 2))
    assert (loop.archived.kept, loop.archived.unverified) == (2, 1)


def test_a_store_that_refuses_us_ends_the_archiver_and_commits_nothing():
    plant = Plant(0)
    plant.add(0, data=b"", headers=(("ce_dataref", b"s3://b/claims/x"),))

    def refused(uri: str) -> bytes:
        raise StoreError("403 InvalidAccessKeyId. Check store.access_key.")

    with pytest.raises(StoreError, match=r"store\.access_key"):
        plant.loop(threading.Event(), fetch=refused).run()
    assert plant.broker.offsets == {}


def sample(loop: Archiving, name: str, **labels) -> float | None:
    return loop.metrics.registry.get_sample_value(f"dapo_archive_{name}", labels)


def test_a_store_that_is_away_is_told_and_so_is_its_return(monkeypatch):
    monkeypatch.setattr("pipeline.stream.copying._BEAT_S", 0.0)
    plant, stop = Plant(4), threading.Event()
    plant.store.away = True
    loop = plant.loop(stop)
    assert "broker" in loop.missing()
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    until(lambda: "store" in loop.missing())
    until(lambda: sample(loop, "waiting", what="store") == 1)
    until(lambda: sample(loop, "oldest_seconds") > 0)
    plant.store.away = False
    until(lambda: sample(loop, "results_total") == 4)
    until(lambda: sample(loop, "oldest_seconds") == 0)
    assert loop.missing() == {}
    assert sample(loop, "waiting", what="store") == 0
    assert sample(loop, "images_total", reason="not-ok") == 4
    assert sample(loop, "lag_results") == 0
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_an_image_that_is_not_what_was_inspected_is_counted():
    plant = Plant(0)
    plant.add(0, sha="0" * 64)
    loop = plant.run(lambda loop: loop.archived.results == 1)
    assert sample(loop, "problems_total", kind="sha256-mismatch") == 1


def test_what_was_waited_for_is_forgotten_with_the_results_that_needed_it():
    """Another archiver has them now, and this one may have none for hours."""
    plant, stop = Plant(4), threading.Event()
    plant.store.away = True
    log = MemoryLog(plant.broker, TOPICS.results, "archive")
    loop = plant.loop(stop, log=log)
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    until(lambda: "store" in loop.missing())
    plant.broker.topics[TOPICS.results, 0].clear()
    plant.broker.share("archive")
    until(lambda: loop.missing() == {})
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_an_archiver_says_from_its_start_on_that_there_is_no_broker(tmp_path, monkeypatch):
    def refused(*arguments):
        raise KafkaError("no route")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("pipeline.stream.compose.KafkaLog", refused)
    store = {"store.endpoint": "127.0.0.1:1", "store.access_key": "a", "store.secret_key": "b"}
    settings = load(store, environment={}).settings
    stop, said = threading.Event(), []

    def run() -> None:
        with suppress(ServiceUnavailable), archiving(settings, "", stop, said.append, 0):
            raise AssertionError("there is no broker")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: said)
    with pytest.raises(urllib.error.HTTPError) as told:
        urllib.request.urlopen(said[0].split(": ")[1] + "readyz", timeout=10)
    with told.value as answer:
        assert (answer.code, list(json.load(answer)["missing"])) == (503, ["broker"])
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
