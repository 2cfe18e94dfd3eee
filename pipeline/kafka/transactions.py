"""A transactional producer that survives everything: each transaction is committed, or in doubt until the next is opened.

Opening makes a new producer under the same `transactional.id`, which completes or undoes what its predecessor left. So
after any error the answer is the same: drop the producer, open another, and ask what is committed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors

from dapo.errors import Fenced, LogRefused, ServiceUnavailable
from pipeline.kafka.connect import connection, producing
from pipeline.ports import Message, Partition
from pipeline.settings import KafkaSettings
from pipeline.stream.retention import ROOM_BYTES

# An open transaction holds back every reader of committed messages behind it: after a kill -9 for this long at most,
# unless the same transactional.id comes back earlier. Above it lies only what a broker needs to fail over.
TRANSACTION_TIMEOUT_MS = 10_000
# A transaction that takes longer is given up and settled by a new producer: kafka-python waits without end for a broker
# that was killed in its middle. What is large takes its time on the way: else the same bytes would be given up for ever.
_COMMIT_S = 4.0
_BYTES_PER_S = 1_000_000  # of the slowest link to a broker that a line is run over
_LONGEST_S = 9.0  # below the broker's own time-out, so that it is we who undo it
# A transaction that follows hard on another is told to ask again, while the broker still marks the last one's end.
_RETRY_MS = 20
_OPEN_MS = 5_000  # of one attempt; whoever waits longer tries again
# Fenced twice within this long: somebody else really writes under the same id. Once: the broker's time-out did it.
_FENCED_AGAIN_S = 60.0
_REFUSED = (
    kafka_errors.AuthorizationError,
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.InvalidTopicError,
    kafka_errors.InvalidRecordError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedVersionError,
)


class Transactions:
    """Transactions under one name.

    Args:
        name: the transactional.id; two live processes must not share one.
        batch_bytes: of messages of one partition that travel together.
        compress: with gzip, which every Kafka client decodes; images are compressed already.
    """

    def __init__(
        self, settings: KafkaSettings, name: str, *, batch_bytes: int = 256 * 1024, compress: bool = True
    ) -> None:
        self.name = name
        self._settings, self._batch_bytes, self._compress = settings, batch_bytes, compress
        self._producer: KafkaProducer | None = None
        self._fenced_at = float("-inf")

    @property
    def settled(self) -> bool:
        """Whether a producer is open: then nothing that was written before is in doubt."""
        return self._producer is not None

    def open(self) -> None:
        """Settle what is in doubt, and be ready.

        Raises:
            LogRefused: the credentials are not taken.
            ServiceUnavailable: no broker answers.
        """
        if self._producer is not None:
            return
        try:
            producer = KafkaProducer(
                **connection(self._settings, self.name),
                **producing(self._settings.max_message_bytes + 2 * ROOM_BYTES),
                compression_type="gzip" if self._compress else None,
                transactional_id=self.name,
                transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
                max_block_ms=_OPEN_MS,
                bootstrap_timeout_ms=_OPEN_MS,
                linger_ms=5,
                retry_backoff_ms=_RETRY_MS,
                batch_size=self._batch_bytes,
            )
        except kafka_errors.KafkaError as error:
            raise self._explained(error) from error
        try:
            producer.init_transactions()
        except kafka_errors.KafkaError as error:
            _close(producer)
            raise self._explained(error) from error
        self._producer = producer

    def commit(
        self,
        messages: Sequence[Message],
        offsets: Mapping[Partition, int],
        membership: Any,
        *,
        mark: str = "",
        meanwhile: Callable[[], bool] = lambda: False,
    ) -> None:
        """Write messages and offsets as one transaction; opens a producer where there is none.

        Args:
            membership: of the group that the offsets are committed for: its metadata, or its name.
            mark: metadata of the offsets.
            meanwhile: called in this thread again and again while the broker is waited for, until it says no; each call
                short, since it is not cut short when the answer comes.

        Raises:
            ServiceUnavailable: it was undone or is in doubt; `open` settles it.
            Fenced: another process writes under this name.
            LogRefused: the broker will never take it.
        """
        self.open()
        producer = self._producer
        assert producer is not None
        places = {TopicPartition(*at): OffsetAndMetadata(offset, mark, -1) for at, offset in offsets.items()}
        try:
            _within(
                _allowed_s(messages), lambda: _transaction(producer, messages, places, membership), meanwhile
            )
        except kafka_errors.KafkaError as error:
            self.drop()
            raise self._explained(error) from error

    def drop(self) -> None:
        """Forget the producer, without waiting for it: what it left open is settled by the next."""
        producer, self._producer = self._producer, None
        if producer is not None:
            threading.Thread(target=_close, args=(producer,), name="close", daemon=True).start()

    def _explained(self, error: Exception) -> Exception:
        said = f"{type(error).__name__}: {error}"
        if isinstance(error, kafka_errors.ProducerFencedError):
            now, before = time.monotonic(), self._fenced_at
            self._fenced_at = now
            if now - before < _FENCED_AGAIN_S:
                return Fenced(
                    f"transactional id {self.name}: another process writes under it. Stop one of them."
                )
        if isinstance(error, _REFUSED):
            return LogRefused(f"the broker at {self._settings.bootstrap} refuses what is written: {said}")
        return ServiceUnavailable(
            f"the broker at {self._settings.bootstrap} does not answer as it should: {said}"
        )


def _transaction(
    producer: KafkaProducer,
    messages: Sequence[Message],
    offsets: Mapping[TopicPartition, Any],
    membership: Any,
) -> None:
    """Step 1: begin. Step 2: hand over all messages. Step 3: the offsets, under the membership they were read with, so
    that a member that was put out of the group is refused. Step 4: commit."""
    producer.begin_transaction()
    sent = [producer.send(one.topic, one.value, key=one.key, headers=list(one.headers)) for one in messages]
    producer.send_offsets_to_transaction(offsets, membership)
    producer.commit_transaction()
    for future in sent:
        future.get(timeout=0)


def _allowed_s(messages: Sequence[Message]) -> float:
    """Seconds that a transaction of these messages may take."""
    return min(_LONGEST_S, _COMMIT_S + sum(len(one.value) for one in messages) / _BYTES_PER_S)


def _within(seconds: float, call: Callable[[], None], meanwhile: Callable[[], bool]) -> None:
    """Run `call` in a thread and wait for it: kafka-python's transactional calls know no time-out of their own.

    Raises:
        KafkaTimeoutError: it takes longer. It goes on in its thread until its producer is closed.
    """
    done = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            failed.append(error)
        done.set()

    threading.Thread(target=run, name="transaction", daemon=True).start()
    deadline = time.monotonic() + seconds
    while not done.is_set() and time.monotonic() < deadline and meanwhile():
        pass
    if not done.wait(max(0.0, deadline - time.monotonic())):
        raise kafka_errors.KafkaTimeoutError(f"no answer within {seconds:g} s")
    if failed:
        raise failed[0]


def _close(producer: KafkaProducer) -> None:
    with suppress(kafka_errors.KafkaError):
        producer.close(timeout=0)
