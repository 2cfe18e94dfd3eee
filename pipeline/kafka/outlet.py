"""Writing to Kafka exactly once from a source that is no topic: the source's position travels in the same transaction."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors

from dapo.errors import Fenced, LogRefused, ServiceUnavailable
from pipeline.kafka.connect import connection, producing, reading
from pipeline.kafka.log import REFUSED, ROOM_BYTES, TRANSACTION_TIMEOUT_MS
from pipeline.ports import Message
from pipeline.settings import KafkaSettings
from pipeline.stream.patience import patiently

_LOG = logging.getLogger(__name__)
_BLOCK_MS = 15_000


class KafkaOutlet:
    """Messages in transactions, each with the position that the source had after it.

    The position is the committed offset of a consumer group that nobody reads with, so that messages and position are
    written together or not at all. The broker forgets a group that is not written for `offsets.retention.minutes` (7 days
    by default): a source that is taken up again later starts at its beginning, and readers drop what they know.

    Args:
        name: of the source; also its transactional.id: a second process with the same name fences this one.
        topic: whose first partition the position is kept under.
        stop: ends the waiting for a broker that is away.

    Raises:
        Fenced, LogRefused: see `pipeline.ports.Log.commit`.
        ServiceUnavailable: `stop` was set while no broker answered.
    """

    def __init__(self, settings: KafkaSettings, name: str, topic: str, stop: threading.Event) -> None:
        self._settings, self._name, self._stop = settings, name, stop
        self._at = TopicPartition(topic, 0)
        self._producer: KafkaProducer | None = None
        patiently(self._connect, stop, _note)

    def position(self) -> int:
        """What the last `write` gave; 0 where there was none."""
        return patiently(self._position, self._stop, _note)

    def write(self, messages: Sequence[Message], position: int) -> None:
        """Write all of it once, however often the broker goes away meanwhile."""
        patiently(lambda: self._write(messages, position), self._stop, _note)

    def close(self) -> None:
        """Close the connection; all that was written is there."""
        self._drop()

    def _write(self, messages: Sequence[Message], position: int) -> None:
        try:
            if self._producer is None:
                self._connect()  # completes or undoes the transaction in doubt
                if self._position() == position:
                    return  # it was written after all
            producer = self._producer
            assert producer is not None
            producer.begin_transaction()
            for one in messages:
                producer.send(one.topic, one.value, key=one.key, headers=list(one.headers))
            producer.send_offsets_to_transaction({self._at: OffsetAndMetadata(position, "", -1)}, self._name)
            producer.commit_transaction()
        except kafka_errors.ProducerFencedError as error:
            self._drop()
            raise Fenced(f"another process feeds '{self._name}' too. Stop one of them.") from error
        except REFUSED as error:
            self._drop()
            raise LogRefused(
                f"the broker refuses what is written: {type(error).__name__}: {error}"
            ) from error
        except kafka_errors.KafkaError as error:
            self._drop()
            raise ServiceUnavailable(f"{type(error).__name__}: {error}") from error

    def _connect(self) -> None:
        try:
            producer = KafkaProducer(
                **connection(self._settings, self._name),
                **producing(self._settings.max_message_bytes + ROOM_BYTES),
                transactional_id=self._name,
                transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
                max_block_ms=_BLOCK_MS,
                linger_ms=5,
                batch_size=1 << 20,
            )
        except kafka_errors.KafkaError as error:
            raise ServiceUnavailable(f"no broker at {self._settings.bootstrap}: {error}") from error
        try:
            producer.init_transactions()
        except kafka_errors.KafkaError as error:
            with suppress(kafka_errors.KafkaError):
                producer.close(timeout=0)
            raise ServiceUnavailable(f"{type(error).__name__}: {error}") from error
        self._producer = producer

    def _position(self) -> int:
        try:
            consumer = KafkaConsumer(
                **connection(self._settings, self._name),
                **reading(self._settings.max_message_bytes),
                group_id=self._name,
            )
            try:
                found = consumer.committed(self._at, timeout_ms=_BLOCK_MS)
            finally:
                consumer.close(autocommit=False)
        except kafka_errors.KafkaError as error:
            raise ServiceUnavailable(f"{type(error).__name__}: {error}") from error
        return int(found or 0)

    def _drop(self) -> None:
        if self._producer is not None:
            with suppress(kafka_errors.KafkaError):
                self._producer.close(timeout=0)
            self._producer = None


def _note(error: ServiceUnavailable) -> None:
    _LOG.warning("the broker is away: %s", error)
