"""Single frames of the frames topic by their place, for whoever joins a result with its image."""

from __future__ import annotations

import time

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from dapo.errors import LogRefused, ServiceUnavailable
from pipeline.kafka.connect import connection, reading
from pipeline.kafka.log import record_of
from pipeline.ports import Record
from pipeline.settings import KafkaSettings

_WAIT_S = 10.0  # for one frame; the broker answers in milliseconds, or is away
_FORWARD = 64  # records that are read over rather than sought over: they mostly lie in the same answer


class FrameReader:
    """Reads frames one by one; forward reading within a partition costs one request for many.

    Raises:
        ServiceUnavailable: no broker answers.
    """

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._topic = topic
        self._settings = settings
        self._consumers: dict[int, KafkaConsumer] = {}
        self._ready: dict[int, list[Record]] = {}

    def read(self, partition: int, offset: int) -> Record | None:
        """The frame's message; None where retention has deleted it.

        Raises:
            ServiceUnavailable: the broker does not give it now.
            LogRefused: it may not be read.
        """
        try:
            return self._read(partition, offset)
        except kafka_errors.OffsetOutOfRangeError:
            self._forget(partition)
            return None
        except kafka_errors.AuthorizationError as error:
            raise LogRefused(f"topic {self._topic}: may not be read: {error}. Check the ACLs.") from error
        except kafka_errors.KafkaError as error:
            self._forget(partition)
            raise ServiceUnavailable(f"a frame can't be read now: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Close all connections."""
        for partition in list(self._consumers):
            self._forget(partition)

    def _read(self, partition: int, offset: int) -> Record | None:
        at = TopicPartition(self._topic, partition)
        consumer = self._consumers.get(partition) or self._open(partition)
        waiting = self._ready.setdefault(partition, [])
        if waiting and waiting[0].offset > offset:
            waiting.clear()
        position = waiting[0].offset if waiting else consumer.position(at, timeout_ms=int(_WAIT_S * 1000))
        if position is None or not position <= offset <= position + _FORWARD:
            waiting.clear()
            consumer.seek(at, offset)
        deadline = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline:
            while waiting:
                record = waiting.pop(0)
                if record.offset == offset:
                    return record
                if record.offset > offset:
                    waiting.insert(0, record)
                    return None  # it was deleted, or was never committed
            found = consumer.poll(500, _FORWARD)
            waiting += [record_of(one) for records in found.values() for one in records]
        raise ServiceUnavailable(
            f"{self._topic}: the broker does not give offset {offset} of partition {partition}"
        )

    def _open(self, partition: int) -> KafkaConsumer:
        consumer = KafkaConsumer(
            **connection(self._settings, "dapo-frame-reader"), **reading(self._settings.max_message_bytes)
        )
        at = TopicPartition(self._topic, partition)
        consumer.assign([at])
        consumer.seek_to_beginning(at)
        self._consumers[partition] = consumer
        return consumer

    def _forget(self, partition: int) -> None:
        self._ready.pop(partition, None)
        consumer = self._consumers.pop(partition, None)
        if consumer is not None:
            consumer.close(autocommit=False)
