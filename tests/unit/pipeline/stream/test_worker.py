"""The worker over a log in memory: every frame one row, whatever fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from dapo.errors import LogRefused, ServiceUnavailable
from pipeline.decode import Limits as FrameLimits
from pipeline.inspect import Inspector, Preparer
from pipeline.ports import Frame, Message
from pipeline.stream.frames import write_frame
from pipeline.stream.inspection import Inspection
from pipeline.stream.patience import PatientInfer
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import Teller
from pipeline.stream.worker import Limits, Worker
from pipeline.testing import FakeInfer, MemoryBroker, MemoryLog, encoded, frame, small_pack, surface
from schemas.codec import decode_defects, decode_results

TOPICS = Topics("test")
PACK = small_pack()


class Watching:
    """A watcher that counts."""

    def __init__(self) -> None:
        self.frames, self.rows, self.forgotten, self.missing, self.beats = 0, 0, 0, 0, 0
        self.oldest_ms: float | None = None

    def read(self, record) -> None:
        self.frames += 1

    def published(self, told) -> None:
        self.rows += 1

    def undone(self, records) -> None:
        self.forgotten += records

    def lost(self, count) -> None:
        self.missing += count

    def beat(self, in_flight, oldest_ms, lag, stopping) -> None:
        self.beats += 1
        self.oldest_ms = oldest_ms


def fetched(given: Frame) -> bytes:
    raise AssertionError(f"{given.frame_id} has its image with it")


class Line:
    """A broker, and workers on it."""

    def __init__(self, partitions: int = 2) -> None:
        self.broker = MemoryBroker(test_frames=partitions)
        self.watching = Watching()

    def send(self, count: int, *, first: int = 0, **fields) -> list[str]:
        ids = [f"f{number:04d}" for number in range(first, first + count)]
        for number, name in enumerate(ids, first):
            picture = encoded(surface(number, defect=number % 3 == 0))
            camera = f"camera-{number % 4}"
            self.broker.write(write_frame(frame(name, picture, camera_id=camera, **fields), TOPICS.frames))
        return ids

    def rows(self):
        return [row for record in self.broker.read(TOPICS.results) for row in decode_results(record.value)]

    def worker(self, log=None, infer=None, *, stop=None, realtime=lambda line: False, **limits) -> Worker:
        stop = stop or threading.Event()
        patient = PatientInfer(infer or FakeInfer(PACK), stop)
        stages = Inspection(
            Preparer(patient, FrameLimits()),
            Inspector(patient, batch=4),
            fetch=fetched,
            ahead=8,
            stop=stop,
        )
        teller = Teller(TOPICS)
        return Worker(
            log or MemoryLog(self.broker, TOPICS.frames), stages, teller.tell, self.watching,
            limits=Limits(**{"transaction_ms": 20.0, "shutdown_s": 5.0, **limits}), realtime=realtime, stop=stop,
        )  # fmt: skip

    @contextmanager
    def running(self, worker: Worker, stop: threading.Event) -> Iterator[None]:
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(10)
            assert not thread.is_alive()

    def until(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{len(self.rows())} rows, {self.watching.__dict__}"
            threading.Event().wait(0.005)


def run(line: Line, count: int, **options) -> None:
    stop = threading.Event()
    worker = line.worker(stop=stop, **options)
    with line.running(worker, stop):
        line.until(lambda: len(line.broker.read(TOPICS.results)) >= count)


def test_every_frame_gets_one_row_in_the_order_of_its_camera():
    line = Line()
    ids = line.send(40)
    run(line, 40)
    rows = line.rows()
    assert sorted(row.frame_id for row in rows) == ids
    for camera in {row.camera_id for row in rows}:
        mine = [row.frame_id for row in rows if row.camera_id == camera]
        assert mine == sorted(mine)
    assert line.watching.rows == 40


def test_each_defect_is_on_the_topic_of_its_type():
    line = Line()
    line.send(9)
    run(line, 9)
    told = {(row.result_id, index) for row in line.rows() for index, _ in enumerate(row.defects)}
    found = set()
    for slug in ("scratch", "hole", "unknown"):
        for record in line.broker.read(TOPICS.defects(slug)):
            for row in decode_defects(record.value):
                assert row.defect["type"] == slug
                found.add((row.result_id, row.defect_index))
    assert told
    assert found == told


def test_a_transaction_that_is_undone_is_done_again():
    line = Line()
    ids = line.send(30)
    log = MemoryLog(line.broker, TOPICS.frames)
    log.failing = 3
    run(line, 30, log=log)
    assert sorted(row.frame_id for row in line.rows()) == ids
    assert line.watching.forgotten > 0


def test_a_group_that_moves_beside_a_transaction_doubles_nothing():
    line = Line()
    ids = line.send(30)
    log = MemoryLog(line.broker, TOPICS.frames)
    log.moving = 2
    run(line, 30, log=log)
    assert sorted(row.frame_id for row in line.rows()) == ids
    assert line.watching.rows == 30


def test_workers_that_come_and_go_lose_and_double_nothing():
    line = Line(partitions=6)
    ids = line.send(60)
    stops = [threading.Event() for _ in range(3)]
    with line.running(line.worker(stop=stops[0]), stops[0]):
        line.until(lambda: len(line.rows()) >= 5)
        with line.running(line.worker(stop=stops[1]), stops[1]):
            ids += line.send(60, first=60)
            line.until(lambda: len(line.rows()) >= 30)
        with line.running(line.worker(stop=stops[2]), stops[2]):
            line.until(lambda: len(line.rows()) >= 120)
    assert sorted(row.frame_id for row in line.rows()) == ids


def test_a_frame_that_cannot_be_decoded_goes_to_the_dead_letters_as_it_came():
    line = Line()
    line.send(3)
    own = (("ce_id", b"bad"), ("ce_source", b"s"), ("x-plant", b"\xff\x00"))
    line.broker.write(Message(TOPICS.frames, b"key", b"no image", own))
    line.broker.write(Message(TOPICS.frames, None, b"no headers"))
    run(line, 5)
    letters = line.broker.read(TOPICS.dead_letters)
    failed = {row.frame_id: row for row in line.rows() if row.result_state == "Failed"}
    assert len(letters) == len(failed) == 2
    letter = next(one for one in letters if one.value == b"no image")
    assert letter.key == b"key"
    assert letter.headers[:3] == own
    added = dict(letter.headers[3:])
    assert added["inspect.stage"] == b"decode"
    assert added["inspect.code"] == b"not-an-image"
    assert added["__connect.errors.topic"] == TOPICS.frames.encode()
    assert failed["bad"].reason_code == "not-an-image"


class Flaky(FakeInfer):
    """A model server that is away for a while."""

    def __init__(self) -> None:
        super().__init__(PACK)
        self.back = threading.Event()
        self.asked = threading.Event()

    def infer(self, images, products):
        self.asked.set()
        if not self.back.is_set():
            raise ServiceUnavailable("the model server is away")
        return super().infer(images, products)


def test_a_model_that_is_away_is_waited_for():
    line = Line()
    ids = line.send(20)
    infer, stop = Flaky(), threading.Event()
    with line.running(line.worker(infer=infer, stop=stop), stop):
        assert infer.asked.wait(10)
        assert line.rows() == []
        infer.back.set()
        line.until(lambda: len(line.rows()) == 20)
    assert sorted(row.frame_id for row in line.rows()) == ids


def test_the_beat_tells_the_age_of_the_oldest_frame_since_its_capture():
    line = Line(partitions=1)
    now = datetime.now(UTC)
    for number, age in enumerate((100, 5000, -3600)):  # one camera's clock is ahead
        shot = frame(f"f{number}", encoded(surface(number)), captured_at=now - timedelta(seconds=age))
        line.broker.write(write_frame(shot, TOPICS.frames))
    infer, stop = Flaky(), threading.Event()
    with line.running(line.worker(infer=infer, stop=stop, shutdown_s=0.1), stop):
        line.until(lambda: line.watching.oldest_ms is not None)
    assert line.watching.oldest_ms is not None
    assert 5000e3 <= line.watching.oldest_ms < 5100e3


def test_stopping_while_the_model_is_away_leaves_frames_for_the_next():
    line = Line()
    ids = line.send(10)
    infer, stop = Flaky(), threading.Event()
    with line.running(line.worker(infer=infer, stop=stop, shutdown_s=0.5), stop):
        assert infer.asked.wait(10)
    assert line.rows() == []
    run(line, 10)
    assert sorted(row.frame_id for row in line.rows()) == ids


@pytest.mark.parametrize("realtime", [False, True])
def test_a_capacity_line_waits_and_a_realtime_line_drops_the_oldest_with_a_row_each(realtime):
    line = Line(partitions=1)
    ids = line.send(40)
    infer, stop = Flaky(), threading.Event()
    worker = line.worker(infer=infer, stop=stop, realtime=lambda _: realtime, max_frames=8)
    with line.running(worker, stop):
        assert infer.asked.wait(10)
        line.until(lambda: line.watching.frames >= (40 if realtime else 8))
        infer.back.set()
        line.until(lambda: len(line.rows()) == 40)
    rows = line.rows()
    assert [row.frame_id for row in rows] == ids
    dropped = [row for row in rows if row.result_state == "Aborted"]
    assert bool(dropped) is realtime
    assert all(row.reason_code == "overload" for row in dropped)
    assert line.broker.read(TOPICS.dead_letters) == []


def test_frames_deleted_before_they_were_read_are_counted():
    line = Line(partitions=1)
    line.send(10)
    line.broker.deleted[(TOPICS.frames, 0)] = 4
    run(line, 6)
    assert line.watching.missing == 4


def test_what_the_broker_refuses_ends_the_worker_with_its_reason():
    line = Line()
    line.send(4)

    class Refusing(MemoryLog):
        def commit(self, messages, consumed):
            raise LogRefused("topic test.results: the broker has none")

    with pytest.raises(LogRefused, match="the broker has none"):
        line.worker(log=Refusing(line.broker, TOPICS.frames)).run()
