"""What every adapter of the Log port must do. Run on the fake by test_log.py, on Kafka by tests/integration/test_log.py."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from pipeline.ports import Message


class LogSuite(ABC):
    """Subclasses make logs and look at topics; `frames` has two partitions, `out` one."""

    @abstractmethod
    def open(self, slot: str = "a"):
        """A member of the group under test, reading `frames`."""

    @abstractmethod
    def write(self, *messages: Message) -> None: ...

    @abstractmethod
    def committed(self) -> list[bytes]:
        """Values on `out`, as a reader of committed messages sees them."""

    frames, out = "suite.frames", "suite.out"

    def send(self, count, first=0):
        self.write(
            *(
                Message(self.frames, b"k%d" % (n % 5), b"%d" % n, (("h", b"%d" % n),))
                for n in range(first, first + count)
            )
        )

    @staticmethod
    def take(log, count, seconds=30.0):
        """Records until there are so many; those of an epoch that ended are forgotten."""
        found, epoch = [], log.epoch
        deadline = time.monotonic() + seconds
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} records"
            records = log.poll(0.1, 100)
            if log.epoch != epoch:
                found, epoch = [], log.epoch
            found += records
        return found

    def answer(self, log, records):
        consumed = {}
        for one in records:
            consumed[(one.topic, one.partition)] = one.offset + 1
        return log.commit([Message(self.out, one.key, one.value) for one in records], consumed)

    def test_records_come_as_they_were_sent_in_order_within_a_partition(self):
        log = self.open()
        try:
            self.send(20)
            found = self.take(log, 20)
            assert sorted(int(one.value) for one in found) == list(range(20))
            assert all(one.headers == (("h", one.value),) for one in found)
            for partition in (0, 1):
                offsets = [one.offset for one in found if one.partition == partition]
                assert offsets == sorted(offsets)
        finally:
            log.close()

    def test_what_is_committed_is_seen_once_and_not_read_again(self):
        log = self.open()
        self.send(10)
        assert self.answer(log, self.take(log, 10))
        log.close()
        assert sorted(int(v) for v in self.committed()) == list(range(10))
        again = self.open()
        try:
            self.send(5, first=10)
            assert sorted(int(one.value) for one in self.take(again, 5)) == list(range(10, 15))
        finally:
            again.close()

    def test_what_was_not_committed_is_read_again_by_the_next(self):
        log = self.open()
        self.send(10)
        self.take(log, 10)
        log.close()
        again = self.open()
        try:
            assert len(self.take(again, 10)) == 10
            assert self.committed() == []
        finally:
            again.close()

    def test_a_paused_log_gives_nothing_until_it_is_resumed(self):
        log = self.open()
        try:
            self.send(4)
            assert self.answer(log, self.take(log, 4))
            log.pause()
            self.send(4, first=4)
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                assert log.poll(0.05, 10) == []
            log.resume()
            assert len(self.take(log, 4)) == 4
        finally:
            log.close()

    def test_what_is_in_flight_when_the_group_moves_is_read_again(self):
        first = self.open("a")
        self.send(20)
        self.take(first, 20)
        epoch = first.epoch
        second = self.open("b")
        try:
            found, epochs = {}, {}
            deadline = time.monotonic() + 40
            while first.epoch == epoch or len({v for values in found.values() for v in values}) < 20:
                assert time.monotonic() < deadline, {name: len(values) for name, values in found.items()}
                for name, log in (("a", first), ("b", second)):
                    records = log.poll(0.1, 100)
                    if epochs.get(name) != log.epoch:
                        epochs[name], found[name] = log.epoch, set()
                    found[name] |= {int(one.value) for one in records}
            assert not found["a"] & found["b"]
        finally:
            second.close()
            first.close()

    def test_a_second_member_takes_over_and_nothing_is_doubled(self):
        first = self.open("a")
        self.send(20)
        taken = self.take(first, 20)
        assert self.answer(first, taken[:10] if len({one.partition for one in taken}) == 1 else taken)
        second = self.open("b")
        try:
            self.send(20, first=20)
            done = set()
            deadline = time.monotonic() + 40
            while len(self.committed()) < 40:
                assert time.monotonic() < deadline, f"{len(self.committed())} of 40"
                for log in (first, second):
                    records = log.poll(0.1, 100)
                    epoch = log.epoch
                    if records and self.answer(log, records) and log.epoch == epoch:
                        done |= {int(one.value) for one in records}
            assert sorted(int(v) for v in self.committed()) == list(range(40))
        finally:
            second.close()
            first.close()
