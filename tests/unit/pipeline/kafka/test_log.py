"""What the Log on Kafka makes of errors and of silence, with a client that does as it is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka import errors as kafka_errors

from dapo.errors import LogRefused
from pipeline.kafka.log import KafkaLog
from pipeline.ports import Loss
from pipeline.settings import KafkaSettings

AT = TopicPartition("frames", 0)


class Consumer:
    """As much of a KafkaConsumer as the log asks of it; holds `AT`, of which `start` to `end` are there."""

    def __init__(self, **arguments: Any) -> None:
        self.troubles: dict[str, deque[Exception]] = {}
        self.start, self.end, self.highest, self.at = 0, 0, 0, 0
        self.written = 0  # records up to here are there to be polled
        self.asked_for_ends = 0
        self.held = self.silent = self.joining = False
        self.within: Callable[[], None] = lambda: (
            None
        )  # what a poll brings with it, before it gives or raises

    def fail(self, call: str, *errors: Exception) -> None:
        """Let the next calls of this name raise."""
        self.troubles.setdefault(call, deque()).extend(errors)

    def _happen(self, call: str) -> None:
        if self.troubles.get(call):
            raise self.troubles[call].popleft()

    def topics(self) -> set[str]:
        return {AT.topic}

    def subscribe(self, topics: list[str], listener: Any) -> None:
        self.held = True

    def assignment(self) -> set[TopicPartition]:
        return {AT}

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        self.within()
        self._happen("poll")
        if self.silent:
            return {}
        first, self.at = self.at, min(self.at + max_records, max(self.at, self.written))
        return {AT: [_record(offset) for offset in range(first, self.at)]} if self.at > first else {}

    def group_metadata(self) -> Any:
        return SimpleNamespace(generation_id=1)

    @property
    def _coordinator(self) -> Any:
        return SimpleNamespace(need_rejoin=lambda: self.joining)

    def committed(self, at: TopicPartition, timeout_ms: int) -> int:
        self._happen("committed")
        return 3

    def seek(self, at: TopicPartition, offset: int) -> None:
        self.at = offset

    def position(self, at: TopicPartition, timeout_ms: int) -> int:
        return self.at

    def highwater(self, at: TopicPartition) -> int:
        return self.highest

    def beginning_offsets(self, places: list[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        self._happen("beginning_offsets")
        return dict.fromkeys(places, self.start)

    def end_offsets(self, places: list[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        self.asked_for_ends += 1
        self._happen("end_offsets")
        return dict.fromkeys(places, self.end)

    def pause(self, *places: TopicPartition) -> None:
        self.silent = True

    def paused(self) -> set[TopicPartition]:
        return {AT}

    def resume(self, *places: TopicPartition) -> None:
        self.silent = False

    def close(self, autocommit: bool, timeout_ms: int) -> None: ...


def _record(offset: int) -> Any:
    return SimpleNamespace(
        topic=AT.topic, partition=0, offset=offset, key=None, value=b"", headers=(), timestamp=0
    )


class Transactions:
    """Nothing is ever in doubt; a commit takes as long as there is something to do meanwhile."""

    def __init__(self, settings: KafkaSettings, name: str) -> None: ...

    def commit(self, *arguments: Any, meanwhile: Callable[[], bool]) -> None:
        while meanwhile():
            pass

    def open(self) -> None: ...

    def drop(self) -> None: ...


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> Consumer:
    made = Consumer()
    monkeypatch.setattr("pipeline.kafka.log.KafkaConsumer", lambda **arguments: made)
    monkeypatch.setattr("pipeline.kafka.log.Transactions", Transactions)
    monkeypatch.setattr("pipeline.kafka.log._RETRY_S", 0.0)
    return made


@pytest.fixture
def log(consumer: Consumer) -> KafkaLog:
    return KafkaLog(KafkaSettings(), AT.topic, "group", "a")


@pytest.mark.parametrize(
    "error",
    [kafka_errors.KafkaTimeoutError(), kafka_errors.NodeNotReadyError(), kafka_errors.LogTruncationError({})],
)
def test_what_may_go_better_starts_over(log: KafkaLog, consumer: Consumer, error: Exception) -> None:
    consumer.at = 9
    consumer.fail("poll", error)
    assert log.poll(0, 10) == []
    assert log.epoch == 1
    assert log.poll(0, 10) == []
    assert consumer.at == 3, "reading goes on at what is committed"


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (kafka_errors.GroupAuthorizationFailedError("group"), "deploy/acl"),
        (kafka_errors.UnsupportedCodecError("Libraries for lz4 compression codec not found"), "gzip"),
        (kafka_errors.CorruptRecordError("failed crc check"), "log of the broker"),
    ],
)
def test_what_would_come_again_is_told_with_its_cure(
    log: KafkaLog, consumer: Consumer, error: Exception, cure: str
) -> None:
    consumer.fail("poll", error)
    with pytest.raises(LogRefused, match=f"topic frames: .*{error.args[0]}.*{cure}"):
        log.poll(0, 10)


@pytest.mark.parametrize("call", ["beginning_offsets", "end_offsets", "committed"])
def test_a_broker_that_goes_while_it_is_asked_what_was_deleted_is_asked_again(
    log: KafkaLog, consumer: Consumer, call: str
) -> None:
    consumer.start, consumer.end = 7, 20
    gone = kafka_errors.OffsetOutOfRangeError()  # without a place: what is committed is asked for
    consumer.fail("poll", gone, gone)
    consumer.fail(call, kafka_errors.KafkaTimeoutError())
    for _ in range(3):
        assert log.poll(0, 10) == []
    assert log.losses == [Loss(AT.topic, AT.partition, 3, 7)]
    assert consumer.at == 7


def test_the_lag_of_a_paused_log_is_asked_for_and_not_every_time(
    log: KafkaLog, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer.at, consumer.highest, consumer.end = 10, 12, 50
    assert log.lag() == 2
    assert consumer.asked_for_ends == 0, "while frames are fetched each answer says it"
    log.pause()
    assert log.lag() == 40
    consumer.end = 60
    assert log.lag() == 40
    monkeypatch.setattr("pipeline.kafka.log._ASK_ENDS_S", 0.0)
    assert log.lag() == 50
    assert consumer.asked_for_ends == 2
    consumer.fail("end_offsets", kafka_errors.KafkaTimeoutError())
    assert log.lag() == 50, "the last that is known"
    log.resume()
    consumer.highest = 70
    assert log.lag() == 60


def offsets(log: KafkaLog, count: int) -> list[int]:
    return [record.offset for record in log.poll(0, count)]


def test_what_is_read_beside_a_transaction_is_given_next_and_in_order(
    log: KafkaLog, consumer: Consumer
) -> None:
    consumer.written = 25
    assert offsets(log, 10) == list(range(10))
    assert log.commit([], {})
    assert consumer.at == 20, "read while the broker was waited for"
    consumer.highest = 25
    assert log.lag() == 15, "what is read ahead still waits"
    log.pause()
    assert offsets(log, 10) == []
    log.resume()
    assert offsets(log, 10) == list(range(10, 20))
    assert offsets(log, 10) == list(range(20, 25))


def test_nothing_is_read_beside_a_transaction_where_little_waits(log: KafkaLog, consumer: Consumer) -> None:
    consumer.written = 4
    assert offsets(log, 10) == [0, 1, 2, 3]
    consumer.written = 20
    assert log.commit([], {})
    assert consumer.at == 4


def test_a_group_that_moves_beside_a_transaction_takes_with_it_what_was_read(
    log: KafkaLog, consumer: Consumer
) -> None:
    consumer.written = 25
    offsets(log, 10)
    log.commit([], {})
    log.moved(assigned=True)
    assert offsets(log, 10) == list(range(3, 13)), "reading goes on at what is committed"


def test_an_error_beside_a_transaction_is_left_to_the_next_poll(log: KafkaLog, consumer: Consumer) -> None:
    consumer.written = 25
    offsets(log, 10)
    consumer.fail("poll", kafka_errors.GroupAuthorizationFailedError("group"))
    assert log.commit([], {}), "the transaction itself went well"
    assert log.epoch == 0
    with pytest.raises(LogRefused):
        log.poll(0, 10)


def test_a_loss_beside_a_transaction_is_told_by_the_next_poll(log: KafkaLog, consumer: Consumer) -> None:
    consumer.written = 25
    offsets(log, 10)
    consumer.start, consumer.end = 17, 25
    consumer.fail("poll", kafka_errors.OffsetOutOfRangeError({AT: 10}))
    assert log.commit([], {})
    assert offsets(log, 10) == []
    assert log.losses == [Loss(AT.topic, AT.partition, 10, 17)]
    assert offsets(log, 10) == list(range(17, 25))


def test_nothing_is_joined_beside_a_transaction(log: KafkaLog, consumer: Consumer) -> None:
    consumer.written = 25
    offsets(log, 10)
    consumer.joining = True
    assert log.commit([], {})
    assert consumer.at == 10


@pytest.mark.parametrize("error", [None, kafka_errors.OffsetOutOfRangeError({AT: 20})])
def test_a_group_that_moves_within_the_poll_beside_a_transaction(
    log: KafkaLog, consumer: Consumer, error: Exception | None
) -> None:
    consumer.written = 25
    offsets(log, 10)
    consumer.start = 7  # what is committed, 3, is deleted by now

    def move() -> None:
        consumer.within = lambda: None
        log.moved(assigned=True)

    consumer.within = move
    if error is not None:
        consumer.fail("poll", error)
    assert log.commit([], {}), "it is committed all the same"
    assert log.epoch == 1
    assert log.losses == []
    assert offsets(log, 10) == list(range(3, 13)), "the error was of positions that are no more"


def test_a_log_that_was_short_for_a_moment_is_read_on_where_it_was(log: KafkaLog, consumer: Consumer) -> None:
    consumer.start, consumer.end, consumer.written, consumer.at = 0, 30, 30, 20
    consumer.fail("poll", kafka_errors.OffsetOutOfRangeError({AT: 20}))
    assert offsets(log, 5) == []
    assert (log.epoch, log.losses) == (0, [])
    assert offsets(log, 5) == list(range(20, 25))


def test_no_more_is_given_than_is_asked_for(log: KafkaLog, consumer: Consumer) -> None:
    consumer.written = 25
    offsets(log, 10)
    log.commit([], {})
    assert [offsets(log, 4), offsets(log, 4), offsets(log, 4)] == [
        [10, 11, 12, 13],
        [14, 15, 16, 17],
        [18, 19],
    ]
