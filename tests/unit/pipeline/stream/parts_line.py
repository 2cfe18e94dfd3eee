"""Results of parts on a log in memory that can be killed, undone and doubted, with a clock of its own."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from pipeline.ports import Message
from pipeline.stream.joining import Joiner
from pipeline.stream.parts import Parts, keys_of
from pipeline.testing import DAY, MemoryBroker, MemoryLog
from schemas.codec import decode, encode
from schemas.ids import frame_key, result_id
from schemas.parts import PartRow
from schemas.results import ResultRow

RESULTS, PARTS = "test.results", "test.parts"
TIMEOUT = 30.0


def result(part="p1", view=0, *, evaluation="OK", state="Completed", **fields):
    key = frame_key(f"camera-{view}", part or f"none-{view}")
    given_ = {
        "result_id": result_id(key, "c"), "frame_key": key, "frame_id": f"{part}/{view}", "camera_id": f"camera-{view}",
        "line_id": "l1", "product_id": "bottle", "part_id": part, "result_state": state, "evaluation": evaluation,
        "captured_at": DAY + timedelta(milliseconds=view), "started_at": DAY, "finished_at": DAY,
        "configuration_hash": "c", **fields,
    }  # fmt: skip
    return ResultRow(**given_)


class Clocked(MemoryBroker):
    """A broker whose records are a second apart."""

    def __init__(self, **partitions: int) -> None:
        super().__init__(**partitions)
        self.now = DAY

    def write(self, message: Message) -> None:
        before = {at: len(records) for at, records in self.topics.items()}
        super().write(message)
        self.now += timedelta(seconds=1)
        for records in self.topics.values():
            if records and before.get((records[-1].topic, records[-1].partition), 0) < len(records):
                records[-1] = dataclasses.replace(records[-1], timestamp=self.now)


class InDoubt(MemoryLog):
    """A log whose commits may be carried out although they are reported as undone."""

    carried_out = 0

    def poll(self, timeout_s, max_records):
        return super().poll(0, max_records)

    def commit(self, messages, consumed):
        if not self.carried_out or self.failing:
            return super().commit(messages, consumed)
        self.carried_out -= 1
        assert super().commit(messages, consumed)
        self.epoch += 1
        self._start_over(list(self._positions))
        return False


class Line:
    """A results topic, and whoever joins its parts."""

    def __init__(self, partitions: int = 3, **options) -> None:
        self.broker = Clocked(test_results=partitions, test_parts=2)
        self.clock = 0.0
        self.options = options
        self.asked: list[object] = []
        self.start()

    def start(self, **options) -> None:
        self.log = InDoubt(self.broker, RESULTS, "parts")
        given_ = {"joiner": Joiner(TIMEOUT), "clock": lambda: self.clock, **self.options, **options}
        self.parts = Parts(self.log, PARTS, self.published, **given_)

    def kill(self) -> None:
        self.log.close()
        self.start()

    def published(self, since):
        self.asked.append(since)
        return keys_of(record for record in self.broker.read(PARTS) if record.timestamp >= since)

    def send(self, row: ResultRow, expected: int | None = 2, key: bytes | None = None) -> None:
        headers = (("frame_key", row.frame_key.encode()),)
        if expected is not None:
            headers += (("views_expected", str(expected).encode()),)
        self.broker.write(Message(RESULTS, key or (row.camera_id or "").encode(), encode([row]), headers))

    def turns(self, count: int = 3) -> None:
        for _ in range(count):
            self.parts.turn()

    def wait(self, seconds: float = TIMEOUT) -> None:
        self.clock += seconds
        self.turns()

    @property
    def told(self) -> list[PartRow]:
        return [row for record in self.broker.read(PARTS) for row in decode(record.value, PartRow)]
