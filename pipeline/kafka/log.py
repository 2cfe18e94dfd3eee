"""The Log port on Kafka: consume, transform, produce, exactly once (KIP-98, KIP-447).

One rule keeps it right: whatever goes wrong, what is committed decides. The producer is made anew under the same
`transactional.id`, which completes or undoes the transaction in doubt, then the committed offsets are read (they wait for
open transactions) and reading starts over there. So no error needs to be understood to be survived.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from dapo.errors import LogRefused, ServiceUnavailable
from pipeline.kafka.connect import connection, reading
from pipeline.kafka.transactions import Transactions
from pipeline.ports import Loss, Message, Partition, Record
from pipeline.settings import KafkaSettings

_LOG = logging.getLogger(__name__)

# A dead member's partitions stand still until it is noticed.
_SESSION_TIMEOUT_MS = 10_000
_HEARTBEAT_MS = 3_000
# A worker that waits for the model keeps polling, so only a hung one is put out of the group.
_MAX_POLL_INTERVAL_MS = 60_000
_OFFSETS_TIMEOUT_MS = 10_000
# While paused the broker is asked how far its log has come, so often at most; a late answer is not waited for.
_ASK_ENDS_S = 5.0
_ENDS_TIMEOUT_MS = 1_000
_CLOSE_S = 5.0
_AHEAD_S = 0.02  # of a poll beside a transaction: so much later at most its end is noticed
_FETCH_BYTES = 32 * 2**20  # in one answer, over all partitions: bounds the consumer's own memory


class KafkaLog:
    """See `pipeline.ports.Log`.

    Args:
        settings: address, credentials and sizes.
        topic: what is read.
        group: consumer group.
        slot: stable name of this member: its transactional.id is `group-slot`. Two live members must not share one.

    Raises:
        LogRefused: the topic is missing, or the credentials are not taken.
        SettingsError: the broker's certificate is not trusted, or a file can't be used.
        kafka.errors.KafkaError: the broker can't be reached.
    """

    def __init__(self, settings: KafkaSettings, topic: str, group: str, slot: str) -> None:
        self.epoch = 0
        self.losses: list[Loss] = []
        self._transactions = Transactions(settings, f"{group}-{slot}")
        self._topic = topic
        self._rewind = False
        self._paused = False
        self._ahead: list[Record] = []  # read while a transaction was on its way, for the next poll
        self._trouble: kafka_errors.KafkaError | None = None  # met at that, for the next poll too
        self._behind = 0  # records to ask for beside a transaction; none where the last poll gave few
        self._ends: dict[TopicPartition, int] = {}  # as they were asked for, at:
        self._ends_asked = float("-inf")
        arguments = connection(settings, f"{group}-{slot}") | reading(settings.max_message_bytes)
        self._consumer = KafkaConsumer(
            **arguments,
            group_id=group,
            fetch_max_bytes=_FETCH_BYTES,
            session_timeout_ms=_SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
            fetch_max_wait_ms=100,  # a broker is asked once at a time: what an idle partition waits for holds up the others
        )
        try:
            # First, so that the first joining knows the topic's partitions: else a second would follow at once.
            self._consumer.subscribe([topic], listener=_Listener(self))
            if not self._exists(topic):
                raise LogRefused(
                    f"topic {topic}: the broker has none, or none that this user may see."
                    " Make it with 'dapo topics create', or check the ACLs (deploy/acl)."
                )
            self._transactions.open()
        except BaseException:
            self._consumer.close(autocommit=False, timeout_ms=int(_CLOSE_S * 1000))
            raise

    def _exists(self, topic: str) -> bool:
        try:
            return topic in self._consumer.topics()
        except (kafka_errors.UnknownTopicOrPartitionError, kafka_errors.TopicAuthorizationFailedError):
            return False  # of our own subscription, whose answer may come first

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        """See `pipeline.ports.Log`. Deleted records are added to `losses`, and reading goes on behind them."""
        if self._rewind:
            self._start_at_committed()
        if not self._rewind:
            try:
                found = self._taken_ahead(max_records) or self._poll(timeout_s, max_records)
            except kafka_errors.KafkaError as error:
                self._survive(error)
            if not self._rewind:
                self._behind = max_records if len(found) >= max(1, max_records // 2) else 0
                return found
        # No position is sure yet; or the group moved within this poll, and what it gave may not be ours, or not be next.
        return []

    def _poll_raw(self, timeout_s: float, max_records: int) -> list[Record]:
        found = self._consumer.poll(int(timeout_s * 1000), max_records)
        return [record_of(one) for records in found.values() for one in records]

    def _poll(self, timeout_s: float, max_records: int) -> list[Record]:
        try:
            if self._trouble is not None:
                trouble, self._trouble = self._trouble, None
                raise trouble
            return self._poll_raw(timeout_s, max_records)
        except kafka_errors.NoOffsetForPartitionError:
            self._start_at_committed()
            return []
        except kafka_errors.OffsetOutOfRangeError as error:
            self._skip_deleted(error)
            return []

    def _taken_ahead(self, max_records: int) -> list[Record]:
        if self._paused:
            return []
        found, self._ahead = self._ahead[:max_records], self._ahead[max_records:]
        return found

    def _read_ahead(self) -> bool:
        """One short poll while a transaction is on its way; whether another may follow.

        Under load a worker would else wait for the broker half of its time. What goes wrong is left to the next poll, when
        no transaction is open; a group that moves takes with it what was read.
        """
        if not self._behind or self._ahead or self._trouble or self._rewind or self._paused:
            return False
        epoch = self.epoch
        try:
            found = self._poll_raw(_AHEAD_S, self._behind)
        except kafka_errors.KafkaError as error:
            if self.epoch == epoch:  # else of positions that are set anew
                self._trouble = error
            return False
        if self.epoch == epoch:
            self._ahead = found
        return not found  # a joining that has begun is gone on with: it ends in a rewind

    def _survive(self, error: kafka_errors.KafkaError) -> None:
        """Start over after what may go better a moment later; all else would come again, at the same record."""
        # A log that was cut below our position is met again from what is committed, and told there.
        if not (error.retriable or isinstance(error, kafka_errors.LogTruncationError)):
            raise unreadable(f"topic {self._topic}", error) from error
        _LOG.warning("reading starts over: %s", error)
        self._start_over()
        time.sleep(_RETRY_S)

    def commit(self, messages: Sequence[Message], consumed: Mapping[Partition, int]) -> bool:
        """See `pipeline.ports.Log`. Takes seconds at most: a broker that is away undoes it."""
        if self._consumer._coordinator.need_rejoin():
            self._behind = 0  # joining now would end the membership that this transaction is committed under
        membership = self._consumer.group_metadata()
        if membership.generation_id < 0:  # put out of the group: the broker would not check such a membership
            self._start_over()
            return False
        try:
            self._transactions.commit(messages, consumed, membership, meanwhile=self._read_ahead)
            return True
        except ServiceUnavailable as error:
            _LOG.warning("transaction undone: %s", error)
            self._start_over()
            return False
        except LogRefused:
            self._start_over()
            raise

    def pause(self) -> None:
        """See `pipeline.ports.Log`."""
        self._paused = True
        self._consumer.pause(*self._consumer.assignment())

    def resume(self) -> None:
        """See `pipeline.ports.Log`."""
        self._paused = False
        self._ends = {}
        self._consumer.resume(*self._consumer.paused())

    def lag(self) -> int | None:
        """See `pipeline.ports.Log`. From the last fetch; while paused nothing is fetched, and the broker is asked."""
        ends = self._asked_ends() if self._paused else {}
        waiting = len(self._ahead)
        try:
            for at in self._consumer.assignment():
                fetched, position = self._consumer.highwater(at), self._consumer.position(at, timeout_ms=0)
                end = ends.get(at, fetched)
                if end is None or position is None:
                    return None
                waiting += max(0, end - position)
        except kafka_errors.KafkaError:
            return None  # a partition that was just given to us has no position yet
        return waiting

    def _asked_ends(self) -> Mapping[TopicPartition, int]:
        now = time.monotonic()
        if now - self._ends_asked >= _ASK_ENDS_S:
            self._ends_asked = now
            with suppress(kafka_errors.KafkaError):  # away: the last ones are the best there are
                places = list(self._consumer.assignment())
                self._ends = self._consumer.end_offsets(places, timeout_ms=_ENDS_TIMEOUT_MS)
        return self._ends

    def close(self) -> None:
        """See `pipeline.ports.Log`."""
        self._transactions.drop()
        with suppress(kafka_errors.KafkaError):
            self._consumer.close(autocommit=False, timeout_ms=int(_CLOSE_S * 1000))

    def leaving(self) -> None:
        """The group is about to be joined again."""
        # kafka-python forgets a joining that new metadata caused when a poll ends in its middle, and the member stands for
        # ever without a heartbeat (as Kafka's own client did: KAFKA-9815). Asked for aloud, it is gone on with.
        self._consumer._coordinator.request_rejoin()

    def moved(self, *, assigned: bool) -> None:
        """The group's assignment changed: what was read is read again by whoever holds it now."""
        self._forget()
        if assigned:
            # kafka-python keeps the position of a partition that stays here, and with it would pass over all that is
            # in flight and forgotten.
            self._rewind = True
            if self._paused:
                self._consumer.pause(*self._consumer.assignment())

    def _forget(self) -> None:
        """All that was read since the last commit is read again."""
        self.epoch += 1
        self._ahead, self._trouble = [], None

    def _start_over(self) -> None:
        self._transactions.drop()
        self._forget()
        self._rewind = True

    def _start_at_committed(self) -> None:
        """Set every position to what is committed; to the beginning where nothing ever was."""
        try:
            self._transactions.open()  # first: it settles the transaction in doubt, and with it the offsets
            self._seek_committed(self._consumer.assignment())
            self._rewind = False
        except (kafka_errors.KafkaError, ServiceUnavailable) as error:
            self._rewind = True
            _LOG.warning("the broker does not answer yet: %s: %s", type(error).__name__, error)
            time.sleep(_RETRY_S)

    def _skip_deleted(self, error: kafka_errors.OffsetOutOfRangeError) -> None:
        """Retention was shorter than the outage: go on behind what is gone, and say how much that is."""
        wanted: Mapping[TopicPartition, int] = (
            error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        )
        places = list(wanted) or list(self._consumer.assignment())
        # All is asked before anything is told: a broker that goes away meanwhile is asked again, and losses count once.
        starts = self._consumer.beginning_offsets(places, timeout_ms=_OFFSETS_TIMEOUT_MS)
        ends = self._consumer.end_offsets(places, timeout_ms=_OFFSETS_TIMEOUT_MS)
        positions = dict(wanted) or {
            at: self._consumer.committed(at, timeout_ms=_OFFSETS_TIMEOUT_MS) or 0 for at in places
        }
        for at, position in positions.items():
            if starts[at] > position:
                # What is in flight was read before it was deleted: it stays valid, and so does the epoch.
                self.losses.append(Loss(at.topic, at.partition, position, starts[at]))
                _LOG.error(
                    "%s: records %d to %d were deleted before they were read", at, position, starts[at] - 1
                )
            elif position > ends[at]:
                # The log is shorter than what was read of it (it was made anew, or cut): all that it holds is new, and
                # what is in flight came from the old one.
                _LOG.error(
                    "%s: %d records were read, it holds %d: starting at its beginning", at, position, ends[at]
                )
                self._forget()
                self._seek_committed(self._consumer.assignment() - {at})
            else:
                continue  # it is there by now: a log that was short for a moment
            self._consumer.seek(at, starts[at])

    def _seek_committed(self, places: Iterable[TopicPartition]) -> None:
        for at in places:
            offset = self._consumer.committed(at, timeout_ms=_OFFSETS_TIMEOUT_MS)
            if offset is None:
                self._consumer.seek_to_beginning(at)
                _LOG.info("%s has no committed offset: starting at its beginning", at)
            else:
                self._consumer.seek(at, offset)


_RETRY_S = 0.5  # a broker that is away is not asked in a tight loop


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, log: KafkaLog) -> None:
        self._log = log

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._log.leaving()
        if revoked:
            self._log.moved(assigned=False)

    def on_partitions_assigned(self, assigned: Any) -> None:
        if assigned:
            self._log.moved(assigned=True)


def unreadable(where: str, error: kafka_errors.KafkaError) -> LogRefused:
    """What to tell of records that can't be read, now or later."""
    cure = "See the log of the broker"
    if isinstance(error, kafka_errors.AuthorizationError | kafka_errors.SaslAuthenticationFailedError):
        cure = "Check the credentials and the ACLs (deploy/acl)"
    elif isinstance(error, kafka_errors.UnsupportedCodecError):
        cure = "Its writer has to compress with gzip, lz4, snappy or zstd, whose libraries come with this project"
    return LogRefused(f"{where}: can't be read: {error}. {cure}.")


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
