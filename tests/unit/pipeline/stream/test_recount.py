"""The recount over topics in memory: every kind of loss and doubling is found, and nothing else is called one."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cli.ledger import recount
from pipeline.decode import Limits as FrameLimits
from pipeline.inspect import Inspector, Preparer
from pipeline.kafka.read import Span
from pipeline.ports import Message, Record
from pipeline.stream.frames import write_frame
from pipeline.stream.inspection import Inspection
from pipeline.stream.ledger import Ledger
from pipeline.stream.metrics import Metrics
from pipeline.stream.recount import Recount, totals
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import Teller
from pipeline.stream.worker import Limits, Worker
from pipeline.testing import FakeInfer, MemoryBroker, MemoryLog, encoded, frame, small_pack, surface

TOPICS = Topics("test")
PACK = small_pack()


class Plant:
    """A stream in memory."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(test_frames=2)

    def feed(self, count, *, first=0, camera="c", good=True, **headers):
        for number in range(first, first + count):
            data = encoded(surface(number, defect=number % 2 == 0)) if good else b"no image"
            one = frame(f"{camera}-{number}", data, camera_id=camera, sequence=number, headers=headers)
            self.broker.write(write_frame(one, TOPICS.frames))

    def work(self, rows: int) -> None:
        """Run a worker until there are so many rows."""
        stop = threading.Event()
        stages = Inspection(
            Preparer(FakeInfer(PACK), FrameLimits()), Inspector(FakeInfer(PACK), batch=4),
            fetch=lambda given: given.data, ahead=8, stop=stop,
        )  # fmt: skip
        teller = Teller(TOPICS)
        ledger = Ledger(Metrics(), worker_id="w", configuration_hash=PACK.configuration_hash)
        worker = Worker(
            MemoryLog(self.broker, TOPICS.frames, "inspect"), stages, teller.tell, ledger,
            limits=Limits(transaction_ms=5.0, shutdown_s=5.0), stop=stop,
        )  # fmt: skip
        thread = threading.Thread(target=worker.run)
        thread.start()
        waited = threading.Event()
        for _ in range(4000):
            if len(self.broker.read(TOPICS.results)) >= rows:
                break
            waited.wait(0.005)
        stop.set()
        thread.join(20)
        assert len(self.broker.read(TOPICS.results)) == rows

    def drop(self, topic, at=0):
        """Take one message out of a topic, as no broker would."""
        for place in self.broker.partitions(topic):
            records = self.broker.topics.get(place, [])
            if at < len(records):
                del records[at]
                return
            at -= len(records)
        raise AssertionError(f"{topic} has no such message")

    def double(self, topic):
        record = self.broker.read(topic)[0]
        self.broker.write(Message(topic, record.key, record.value, record.headers))

    def defect_topics(self):
        return [TOPICS.defects(slug) for slug in ("scratch", "hole", "unknown")]

    def count(self, due=None):
        count = Recount(due)
        for record in self.broker.read(TOPICS.frames):
            count.frame(record)
        for record in self.broker.read(TOPICS.results):
            count.result(record)
        for record in self.broker.read(TOPICS.dead_letters):
            count.dead_letter(record)
        for topic in self.defect_topics():
            for record in self.broker.read(topic):
                count.defect(record)
        return totals(count.cameras(), count.unreadable), count.cameras()


@pytest.fixture
def plant():
    made = Plant()
    made.feed(6, camera="a")
    made.feed(4, camera="b")
    made.feed(2, camera="b", first=10, good=False)
    made.work(12)
    return made


def test_a_stream_that_lost_nothing_is_balanced(plant):
    said, cameras = plant.count()
    assert said["balanced"]
    assert (said["cameras"], said["frames"], said["messages"], said["rows"]) == (2, 12, 12, 12)
    assert (said["completed"], said["failed"], said["dead_letters"]) == (10, 2, 2)
    assert (said["missing"], said["doubled"], said["fed_again"], said["waiting"]) == (0, 0, 0, 0)
    assert said["listed"] == said["published"] > 0
    assert (cameras["a"].gaps, cameras["b"].gaps) == (0, 6)


def test_a_frame_without_a_row_is_missing(plant):
    plant.drop(TOPICS.results)
    said, _ = plant.count()
    assert said["missing"] == 1
    assert not said["balanced"]


def test_a_second_row_of_one_frame_is_doubled(plant):
    plant.double(TOPICS.results)
    said, _ = plant.count()
    assert said["doubled"] == 1
    assert not said["balanced"]


def test_a_frame_that_was_fed_twice_rightly_has_two_rows(plant):
    plant.feed(6, camera="a")
    plant.work(18)
    said, cameras = plant.count()
    assert said["balanced"]
    assert (said["frames"], said["messages"], said["rows"], said["fed_again"]) == (12, 18, 18, 6)
    assert cameras["a"].gaps == 0


def test_a_failed_row_without_its_dead_letter_is_told(plant):
    plant.drop(TOPICS.dead_letters)
    said, _ = plant.count()
    assert (said["unmatched"], said["dead_letters_match"], said["balanced"]) == (1, False, False)


def test_a_dead_letter_without_its_row_is_told(plant):
    plant.double(TOPICS.dead_letters)
    said, cameras = plant.count()
    assert (said["unmatched"], said["dead_letters_match"]) == (1, False)
    assert not cameras["b"].balanced
    assert cameras["a"].balanced


def test_a_defect_that_is_listed_and_not_published_is_told(plant):
    plant.drop(next(topic for topic in plant.defect_topics() if plant.broker.read(topic)))
    said, _ = plant.count()
    assert (said["listed"] - said["published"], said["defects_match"], said["balanced"]) == (1, False, False)


def test_what_is_no_row_is_told(plant):
    plant.broker.write(Message(TOPICS.results, b"k", b"no arrow"))
    plant.broker.write(Message(TOPICS.dead_letters, b"k", b"", ()))
    plant.broker.write(Message(TOPICS.defects("hole"), b"k", b""))
    said, _ = plant.count()
    assert (said["unreadable"], said["balanced"]) == (3, False)


def test_frames_that_no_worker_has_come_to_are_waiting_not_missing(plant):
    due = {at[1]: offset for (_, at), offset in plant.broker.offsets.items()}
    plant.feed(5, camera="a", first=100)
    said, _ = plant.count(due)
    assert said["balanced"]
    assert (said["waiting"], said["frames"]) == (5, 12)
    said, _ = plant.count()
    assert said["missing"] == 5


def test_rows_that_come_while_it_counts_are_not_doubled(plant):
    """The workers go on between reading their place and reading the results."""
    due = {at[1]: offset for (_, at), offset in plant.broker.offsets.items()}
    plant.feed(5, camera="a", first=100)
    plant.feed(1, camera="b", first=200, good=False)
    plant.work(18)
    said, _ = plant.count(due)
    assert said["balanced"]
    assert (said["rows"], said["waiting"], said["dead_letters"]) == (12, 6, 2)


def test_rows_of_frames_that_retention_deleted_do_not_count(plant):
    for place in plant.broker.partitions(TOPICS.frames):
        del plant.broker.topics.get(place, [])[:2]
    said, _ = plant.count()
    assert said["balanced"]
    assert said["rows"] == said["frames"] < 12


def test_a_replay_out_of_turn_makes_no_gap(plant):
    plant.feed(1, camera="a", first=2, **{"inspect.attempt": "1"})
    plant.feed(1, camera="a", first=6)
    plant.work(14)
    said, cameras = plant.count()
    assert said["balanced"]
    assert cameras["a"].gaps == 0


def test_frames_whose_headers_cannot_be_read_have_their_row_and_letter():
    plant = Plant()
    plant.broker.write(Message(TOPICS.frames, b"k", b"x"))
    plant.broker.write(Message(TOPICS.frames, b"k", b"y", (("ce_id", b"\xff"),)))
    plant.work(2)
    said, cameras = plant.count()
    assert said["balanced"]
    assert (cameras[""].frames, cameras[""].failed, cameras[""].dead_letters) == (2, 2, 2)


def test_a_frame_that_lies_about_its_place_is_matched_by_the_workers_word():
    plant = Plant()
    own = (("ce_id", b"1"), ("ce_source", b"s"), ("__connect.errors.offset", b"77"), ("inspect.code", b"x"))
    plant.broker.write(Message(TOPICS.frames, b"k", b"no image", own))
    plant.work(1)
    said, _ = plant.count()
    assert said["balanced"]
    assert said["dead_letters"] == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["results", "deadletter", "defects.scratch", "defects.hole"]),
            st.integers(0, 40), st.booleans(),
        ),
        min_size=1, max_size=3,
    )
)  # fmt: skip
def test_any_single_message_that_is_lost_or_doubled_is_found(changes):
    base = _base()
    broker = MemoryBroker(test_frames=2)
    broker.topics = {at: list(records) for at, records in base.topics.items()}
    plant = Plant()
    plant.broker = broker
    changed: dict[Record, int] = {}
    for name, number, lost in changes:
        records = broker.read(f"test.{name}")
        if not records:
            continue
        record = records[number % len(records)]
        _edit(broker, record, lost)
        same = dataclasses.replace(record, offset=0, partition=0)
        changed[same] = changed.get(same, 0) + (-1 if lost else 1)
    said, _ = plant.count()
    assert said["balanced"] is not any(changed.values())


def _edit(broker: MemoryBroker, record: Record, lost: bool) -> None:
    records = broker.topics[(record.topic, record.partition)]
    index = records.index(record)
    if lost:
        del records[index]
    else:
        records.insert(index, record)


_BASE: list[MemoryBroker] = []


def _base() -> MemoryBroker:
    if not _BASE:
        plant = Plant()
        plant.feed(8, camera="a")
        plant.feed(3, camera="b", good=False)
        plant.work(11)
        _BASE.append(plant.broker)
    return _BASE[0]


class LateReader:
    """Reads a plant's topics; everything but frames is shown only from the third look on."""

    def __init__(self, plant: Plant) -> None:
        self._plant, self._looks = plant, {}

    def topics(self):
        return {*self._plant.defect_topics(), TOPICS.results, TOPICS.frames}

    def committed(self, group, topic):
        return {number: len(self._plant.broker.topics.get((topic, number), [])) for number in range(2)}

    def span(self, topic, since=None):
        looks = self._looks[topic] = self._looks.get(topic, 0) + 1
        shown = looks > 2 or topic == TOPICS.frames
        places = self._plant.broker.partitions(topic)
        ends = {n: len(self._plant.broker.topics.get((t, n), [])) if shown else 0 for t, n in places}
        return Span(topic, dict.fromkeys(ends, 0), ends)

    def read(self, span):
        for number, end in span.end.items():
            yield from self._plant.broker.topics.get((span.topic, number), [])[span.begin[number] : end]


def test_rows_of_a_transaction_that_ends_just_now_are_waited_for():
    plant = Plant()
    plant.feed(6)
    plant.work(6)
    said = totals(recount(LateReader(plant), TOPICS, "inspect").cameras())
    assert said["balanced"], said
    assert said["rows"] == 6
