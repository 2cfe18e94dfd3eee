"""The Log port on Kafka: consume, transform, produce, exactly once (KIP-98, KIP-447).

One rule keeps it right: whatever goes wrong, what is committed decides. The producer is made anew under the same
`transactional.id`, which completes or undoes the transaction in doubt, then the committed offsets are read (they wait for
open transactions) and reading starts over there. So no error needs to be understood to be survived.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors

from dapo.errors import Fenced, LogRefused
from pipeline.kafka.connect import connection, producing, reading
from pipeline.ports import Loss, Message, Partition, Record
from pipeline.settings import KafkaSettings

_LOG = logging.getLogger(__name__)

# An open transaction holds back every reader of committed messages behind it: after a kill -9 for this long at most,
# unless the same transactional.id comes back earlier. Above it lies only what a broker needs to fail over.
TRANSACTION_TIMEOUT_MS = 10_000
# A dead member's partitions stand still until it is noticed.
_SESSION_TIMEOUT_MS = 10_000
_HEARTBEAT_MS = 3_000
# A worker that waits for the model keeps polling, so only a hung one is put out of the group.
_MAX_POLL_INTERVAL_MS = 60_000
_INIT_BLOCK_MS = 15_000  # longer than the transaction that `init_transactions` may have to wait for
_OFFSETS_TIMEOUT_MS = 10_000
_CLOSE_S = 5.0
_FETCH_BYTES = 32 * 2**20  # in one answer, over all partitions: bounds the consumer's own memory
# Fenced twice within this long: somebody else really writes under the same id. Once: the broker's time-out did it.
_FENCED_AGAIN_S = 60.0
REFUSED = (
    kafka_errors.AuthorizationError,
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.InvalidTopicError,
    kafka_errors.InvalidRecordError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedVersionError,
)


class KafkaLog:
    """See `pipeline.ports.Log`.

    Args:
        settings: address, credentials and sizes.
        topic: what is read.
        group: consumer group.
        slot: stable name of this member: its transactional.id is `group-slot`. Two live members must not share one.

    Raises:
        LogRefused: the topic is missing, or the credentials are not taken.
        kafka.errors.KafkaError: the broker can't be reached.
    """

    def __init__(self, settings: KafkaSettings, topic: str, group: str, slot: str) -> None:
        self.epoch = 0
        self.losses: list[Loss] = []
        self.transactional_id = f"{group}-{slot}"
        self._group = group
        self._topic = topic
        self._settings = settings
        self._producer: KafkaProducer | None = None
        self._fenced_at = float("-inf")
        self._rewind = False
        self._paused = False
        arguments = connection(settings, f"{group}-{slot}") | reading(settings.max_message_bytes)
        self._consumer = KafkaConsumer(
            **arguments,
            group_id=group,
            fetch_max_bytes=_FETCH_BYTES,
            session_timeout_ms=_SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
            fetch_max_wait_ms=100,
        )
        if topic not in self._consumer.topics():
            self._consumer.close()
            raise LogRefused(f"topic {topic}: the broker has none. Make it with 'dapo topics create'.")
        self._new_producer()
        self._consumer.subscribe([topic], listener=_Listener(self))

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        """See `pipeline.ports.Log`. Deleted records are added to `losses`, and reading goes on behind them."""
        if self._rewind:
            self._start_at_committed()
        try:
            found = self._consumer.poll(int(timeout_s * 1000), max_records)
        except kafka_errors.NoOffsetForPartitionError:
            self._start_at_committed()
            return []
        except kafka_errors.OffsetOutOfRangeError as error:
            self._skip_deleted(error)
            return []
        except kafka_errors.AuthorizationError as error:
            raise LogRefused(f"topic {self._topic}: may not be read: {error}. Check the ACLs.") from error
        return [record_of(one) for records in found.values() for one in records]

    def commit(self, messages: Sequence[Message], consumed: Mapping[Partition, int]) -> bool:
        """See `pipeline.ports.Log`.

        Step 1: begin. Step 2: hand all messages to the producer. Step 3: add the offsets, with the membership they
        were read under, so that a member that was put out of the group is refused. Step 4: commit.
        """
        membership = self._consumer.group_metadata()
        if membership.generation_id < 0:  # put out of the group: the broker would not check such a membership
            self._start_over()
            return False
        try:
            producer = self._producer or self._new_producer()
            producer.begin_transaction()
            sent = [producer.send(m.topic, m.value, key=m.key, headers=list(m.headers)) for m in messages]
            offsets = {
                TopicPartition(*at): OffsetAndMetadata(offset, "", -1) for at, offset in consumed.items()
            }
            producer.send_offsets_to_transaction(offsets, membership)
            producer.commit_transaction()
            for future in sent:
                future.get(timeout=0)
            return True
        except kafka_errors.ProducerFencedError as error:
            now, before = time.monotonic(), self._fenced_at
            self._fenced_at = now
            if now - before < _FENCED_AGAIN_S:
                raise Fenced(
                    f"transactional id {self.transactional_id}: another process writes under it. "
                    "Give each worker a slot of its own (worker.slot)."
                ) from error
            self._start_over()
            return False
        except REFUSED as error:
            self._start_over()
            raise LogRefused(
                f"the broker refuses what is written: {type(error).__name__}: {error}"
            ) from error
        except kafka_errors.KafkaError as error:
            _LOG.warning("transaction undone: %s: %s", type(error).__name__, error)
            self._start_over()
            return False

    def pause(self) -> None:
        """See `pipeline.ports.Log`."""
        self._paused = True
        self._consumer.pause(*self._consumer.assignment())

    def resume(self) -> None:
        """See `pipeline.ports.Log`."""
        self._paused = False
        self._consumer.resume(*self._consumer.paused())

    def lag(self) -> int | None:
        """See `pipeline.ports.Log`. From the last fetch: costs no request."""
        waiting = 0
        for at in self._consumer.assignment():
            end, position = self._consumer.highwater(at), self._consumer.position(at, timeout_ms=0)
            if end is None or position is None:
                return None
            waiting += max(0, end - position)
        return waiting

    def close(self) -> None:
        """See `pipeline.ports.Log`."""
        self._drop_producer()
        with suppress(kafka_errors.KafkaError):
            self._consumer.close(autocommit=False, timeout_ms=int(_CLOSE_S * 1000))

    def moved(self, *, assigned: bool) -> None:
        """The group's assignment changed: what was read is read again by whoever holds it now."""
        self.epoch += 1
        if assigned and self._paused:
            self._consumer.pause(*self._consumer.assignment())

    def _new_producer(self) -> KafkaProducer:
        """A producer whose predecessor of the same id is fenced, and whose open transaction is completed or undone."""
        producer = KafkaProducer(
            **connection(self._settings, self.transactional_id),
            **producing(self._settings.max_message_bytes + ROOM_BYTES),
            compression_type="gzip",
            transactional_id=self.transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            max_block_ms=_INIT_BLOCK_MS,
            linger_ms=5,
            batch_size=256 * 1024,
        )
        try:
            producer.init_transactions()
        except BaseException:
            with suppress(kafka_errors.KafkaError):
                producer.close(timeout=0)
            raise
        self._producer = producer
        return producer

    def _drop_producer(self) -> None:
        if self._producer is not None:
            with suppress(kafka_errors.KafkaError):
                self._producer.close(timeout=_CLOSE_S if self._fenced_at < 0 else 0)
            self._producer = None

    def _start_over(self) -> None:
        self._drop_producer()
        self.epoch += 1
        self._rewind = True

    def _start_at_committed(self) -> None:
        """Set every position to what is committed; to the beginning where nothing ever was."""
        try:
            if self._producer is None:
                self._new_producer()  # first: it settles the transaction in doubt, and with it the offsets
            for at in self._consumer.assignment():
                offset = self._consumer.committed(at, timeout_ms=_OFFSETS_TIMEOUT_MS)
                if offset is None:
                    self._consumer.seek_to_beginning(at)
                    _LOG.info("%s has no committed offset: starting at its beginning", at)
                else:
                    self._consumer.seek(at, offset)
            self._rewind = False
        except kafka_errors.KafkaError as error:
            self._rewind = True
            _LOG.warning("the broker does not answer yet: %s: %s", type(error).__name__, error)
            time.sleep(_RETRY_S)

    def _skip_deleted(self, error: kafka_errors.OffsetOutOfRangeError) -> None:
        """Retention was shorter than the outage: go on behind what is gone, and say how much that is."""
        wanted: Mapping[TopicPartition, int] = (
            error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        )
        places = list(wanted) or list(self._consumer.assignment())
        starts = self._consumer.beginning_offsets(places)
        ends = self._consumer.end_offsets(places)
        for at in places:
            position = wanted.get(at)
            if position is None:
                position = self._consumer.committed(at, timeout_ms=_OFFSETS_TIMEOUT_MS) or 0
            if starts[at] > position:
                self.losses.append(Loss(at.topic, at.partition, position, starts[at]))
                _LOG.error(
                    "%s: records %d to %d were deleted before they were read", at, position, starts[at] - 1
                )
            elif position > ends[at]:
                # The log is shorter than what was read of it (it was made anew, or cut): all that it holds is new.
                _LOG.error(
                    "%s: %d records were read, it holds %d: starting at its beginning", at, position, ends[at]
                )
            self._consumer.seek(at, starts[at])
            self.epoch += 1


ROOM_BYTES = 64 * 1024  # a dead letter is a frame's message with more headers
_RETRY_S = 0.5


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, log: KafkaLog) -> None:
        self._log = log

    def on_partitions_revoked(self, revoked: Any) -> None:
        if revoked:
            self._log.moved(assigned=False)

    def on_partitions_assigned(self, assigned: Any) -> None:
        if assigned:
            self._log.moved(assigned=True)


def record_of(one: Any) -> Record:
    """A record of kafka-python as one of ours."""
    return Record(
        topic=one.topic,
        partition=one.partition,
        offset=one.offset,
        key=one.key,
        value=one.value or b"",
        headers=tuple((name, value or b"") for name, value in one.headers),
        timestamp=datetime.fromtimestamp(max(0, one.timestamp) / 1000, UTC),
    )
