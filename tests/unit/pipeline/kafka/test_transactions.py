"""How long a transaction is waited for, with a producer that takes its time."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from dapo.errors import ServiceUnavailable
from pipeline.kafka import transactions
from pipeline.kafka.transactions import TRANSACTION_TIMEOUT_MS, Transactions
from pipeline.ports import Message
from pipeline.settings import KafkaSettings

AT = ("frames", 0)


class Producer:
    """As much of a KafkaProducer as a transaction asks of it; its link carries 1 MB/s."""

    def __init__(self, **arguments: Any) -> None:
        self.bytes, self.offsets = 0, {}

    def init_transactions(self) -> None: ...

    def begin_transaction(self) -> None: ...

    def send(self, topic: str, value: bytes, **rest: Any) -> Any:
        self.bytes += len(value)
        return SimpleNamespace(get=lambda timeout: None)

    def send_offsets_to_transaction(self, offsets: Any, membership: Any) -> None:
        self.offsets |= offsets

    def commit_transaction(self) -> None:
        time.sleep(self.bytes / 1e6)

    def close(self, timeout: float) -> None: ...


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> Producer:
    made = Producer()
    monkeypatch.setattr("pipeline.kafka.transactions.KafkaProducer", lambda **arguments: made)
    return made


def message(size: int) -> Message:
    return Message("frames", None, bytes(size))


def test_what_is_large_may_take_as_long_as_it_needs(
    producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.kafka.transactions._COMMIT_S", 0.5)
    Transactions(KafkaSettings(), "a").commit([message(700_000)], {AT: 1}, "a")
    monkeypatch.setattr("pipeline.kafka.transactions._BYTES_PER_S", 1e9)
    with pytest.raises(ServiceUnavailable, match=r"no answer within 0\.5"):
        Transactions(KafkaSettings(), "a").commit([message(700_000)], {AT: 1}, "a")


def test_it_ends_before_the_broker_undoes_it() -> None:
    assert transactions._allowed_s([]) == transactions._COMMIT_S
    assert 7 < transactions._allowed_s([message(2**20)] * 4) < 9
    assert transactions._allowed_s([message(2**20)] * 32) < TRANSACTION_TIMEOUT_MS / 1000


def test_the_mark_goes_with_the_offset(producer: Producer) -> None:
    Transactions(KafkaSettings(), "a").commit([], {AT: 7}, "a", mark="0f")
    assert [(one.offset, one.metadata) for one in producer.offsets.values()] == [(7, "0f")]
