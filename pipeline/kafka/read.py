"""Whole topics, read once and without a group: committed messages only, up to where a topic ended when it was asked.

Nothing is committed and no worker notices. Memory does not grow with the topic: records are given as they are fetched.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from dapo.errors import LogRefused, ServiceUnavailable
from pipeline.kafka.connect import connection, reading
from pipeline.kafka.log import record_of, unreadable
from pipeline.ports import Record
from pipeline.settings import KafkaSettings

_LOG = logging.getLogger(__name__)
_POLL_MS = 500
_MAX_RECORDS = 500  # handed on at once
_FETCH_BYTES = 32 * 2**20  # in one answer: bounds the memory of large frames
_OPEN_MS = 5_000  # for the first answer of any broker
_ANSWER_MS = 15_000  # of one request; a broker that fails over needs about ten seconds
_STALLED_S = 30.0  # without any progress the broker is away


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a topic: offsets `begin` up to, not including, `end` of each partition."""

    topic: str
    begin: Mapping[int, int]
    end: Mapping[int, int]

    def last(self, count: int) -> Span:
        """The last offsets of each partition, `count` at most; ends of transactions take some of them."""
        begin = {number: max(first, self.end[number] - count) for number, first in self.begin.items()}
        return Span(self.topic, begin, self.end)

    def after(self, earlier: Span) -> Span:
        """What lies behind an earlier look at the same topic."""
        return Span(
            self.topic, {n: max(first, earlier.end.get(n, 0)) for n, first in self.begin.items()}, self.end
        )

    def only(self, partition: int, first: int | None = None, end: int | None = None) -> Span:
        """One partition of it, cut to these offsets; empty where it has none of them."""
        low, high = self.begin.get(partition, 0), self.end.get(partition, 0)
        low = low if first is None else max(low, first)
        return Span(self.topic, {partition: low}, {partition: high if end is None else min(high, end)})


class TopicReader:
    """Reads topics, one after the other.

    Args:
        client: name of this client in the broker's logs.

    Raises:
        ServiceUnavailable: no broker answers.
        LogRefused: the credentials are not taken.
    """

    def __init__(self, settings: KafkaSettings, client: str = "dapo-read") -> None:
        self._settings, self._client = settings, client
        self._consumer = self._open(None)

    def topics(self) -> set[str]:
        """Names of all topics that may be seen."""
        with self._explained():
            return set(self._consumer.topics())

    def span(self, topic: str, since: datetime | None = None) -> Span:
        """All of a topic as it stands, or what was written from a time on.

        Args:
            since: by the records' own timestamps; with a time zone.

        Raises:
            LogRefused: the topic is missing, or may not be read.
            ServiceUnavailable: the broker does not answer.
        """
        with self._explained(topic):
            places = self._places(topic)
            begin = self._consumer.beginning_offsets(places, timeout_ms=_ANSWER_MS)
            end = self._consumer.end_offsets(places, timeout_ms=_ANSWER_MS)
            if since is not None:
                stamp = max(0, int(since.timestamp() * 1000))
                found = self._consumer.offsets_for_times(dict.fromkeys(places, stamp), timeout_ms=_ANSWER_MS)
                begin = {at: found[at].offset if found.get(at) else end[at] for at in places}
        return Span(
            topic, {at.partition: begin[at] for at in places}, {at.partition: end[at] for at in places}
        )

    def read(self, span: Span) -> Iterator[Record]:
        """All records of a span, in order within a partition. Records that are deleted meanwhile are left out.

        Raises:
            LogRefused, ServiceUnavailable: as `span`.
        """
        ends = {TopicPartition(span.topic, n): end for n, end in span.end.items() if span.begin[n] < end}
        with self._explained(span.topic):
            self._start({at: span.begin[at.partition] for at in ends})
            moved = time.monotonic()
            while ends:
                for at, records in self._poll().items():
                    moved = time.monotonic()
                    for record in records:
                        if at in ends and record.offset < ends[at]:
                            yield record_of(record)
                # The position, not the last record: a topic may end with what is no record (the end of a transaction).
                done = [at for at, end in ends.items() if (self._consumer.position(at) or 0) >= end]
                for at in done:
                    moved = time.monotonic()
                    del ends[at]
                    self._consumer.pause(at)
                if time.monotonic() - moved > _STALLED_S:
                    raise ServiceUnavailable(
                        f"{span.topic}: the broker has given nothing for {_STALLED_S:.0f} s. Try again later."
                    )

    def follow(self, spans: Sequence[Span], stop: threading.Event) -> Iterator[list[Record]]:
        """What is written from the end of these spans on, until `stop` is set.

        Gives what there is at least twice a second, also when that is nothing.

        Raises:
            LogRefused: a topic may not be read.
        """
        with self._explained():
            self._start({TopicPartition(one.topic, n): end for one in spans for n, end in one.end.items()})
            while not stop.is_set():
                yield [record_of(record) for records in self._poll().values() for record in records]

    def committed(self, group: str, topic: str) -> dict[int, int | None]:
        """Per partition the next offset that a group would read; None where it has read nothing.

        Raises:
            LogRefused, ServiceUnavailable: as `span`.
        """
        with self._explained(topic):
            consumer = self._open(group)
            try:
                return {
                    at.partition: consumer.committed(at, timeout_ms=_ANSWER_MS) for at in self._places(topic)
                }
            finally:
                consumer.close(autocommit=False)

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close(autocommit=False)

    def __enter__(self) -> TopicReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, group: str | None) -> KafkaConsumer:
        with self._explained():
            arguments = connection(self._settings, self._client) | reading(self._settings.max_message_bytes)
            return KafkaConsumer(
                **arguments | {"bootstrap_timeout_ms": _OPEN_MS},
                group_id=group,
                fetch_max_bytes=_FETCH_BYTES,
                fetch_max_wait_ms=_POLL_MS,
            )

    def _places(self, topic: str) -> list[TopicPartition]:
        numbers = self._consumer.partitions_for_topic(topic)
        if not numbers:
            raise LogRefused(
                f"topic {topic}: the broker has none, or none that this user may see."
                " Make it with 'dapo topics create', or check the ACLs (deploy/acl)."
            )
        return [TopicPartition(topic, number) for number in sorted(numbers)]

    def _start(self, positions: Mapping[TopicPartition, int]) -> None:
        self._consumer.unsubscribe()  # also forgets what was paused
        self._consumer.assign(list(positions))
        for at, offset in positions.items():
            self._consumer.seek(at, offset)

    def _poll(self) -> dict[TopicPartition, list[Any]]:
        try:
            found: dict[TopicPartition, list[Any]] = self._consumer.poll(_POLL_MS, _MAX_RECORDS)
            return found
        except kafka_errors.OffsetOutOfRangeError as error:
            deleted = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
            places = list(deleted) or list(self._consumer.assignment())
            _LOG.warning("records of %s were deleted before they were read", ", ".join(map(str, places)))
            starts = self._consumer.beginning_offsets(places, timeout_ms=_ANSWER_MS)
            for at, start in starts.items():
                if (self._consumer.position(at) or 0) < start:
                    self._consumer.seek(at, start)
            return {}

    @contextmanager
    def _explained(self, topic: str = "") -> Iterator[None]:
        where = f"topic {topic}" if topic else f"the broker at {self._settings.bootstrap}"
        try:
            yield
        except (
            kafka_errors.AuthorizationError,
            kafka_errors.SaslAuthenticationFailedError,
            kafka_errors.UnsupportedCodecError,
            kafka_errors.CorruptRecordError,
        ) as error:
            raise unreadable(where, error) from error
        except kafka_errors.KafkaError as error:
            raise ServiceUnavailable(
                f"{where}: does not answer: {type(error).__name__}: {error}. Is it running ('dapo doctor')?"
            ) from error
