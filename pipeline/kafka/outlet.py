"""Writing to Kafka exactly once from a source that is no topic: the source's position travels in the same transaction."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from dapo.errors import LogRefused, ServiceUnavailable
from pipeline.kafka.connect import connection, reading
from pipeline.kafka.transactions import Transactions
from pipeline.ports import Message
from pipeline.settings import KafkaSettings
from pipeline.stream.patience import patiently

_LOG = logging.getLogger(__name__)
_BLOCK_MS = 5_000


class KafkaOutlet:
    """Messages in transactions, each with the position that the source had after it.

    The position is the committed offset of a consumer group that nobody reads with, so that messages and position are
    written together or not at all. The broker forgets a group that is not written for `offsets.retention.minutes` (7 days
    by default): a source that is taken up again later starts at its beginning, and readers drop what they know. Its
    metadata holds the writer's mark: what tells whether the source is still the one that the position was counted in.

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
        self._at = (topic, 0)
        self._transactions = Transactions(settings, name, batch_bytes=2**20, compress=False)
        patiently(self._transactions.open, stop, _note)

    def position(self) -> int:
        """What the last `write` gave; 0 where there was none."""
        return self.kept()[0]

    def kept(self) -> tuple[int, str]:
        """Position and mark that the last `write` gave; (0, "") where there was none."""
        return patiently(self._kept, self._stop, _note)

    def write(self, messages: Sequence[Message], position: int, mark: str = "") -> None:
        """Write all of it once, however often the broker goes away meanwhile.

        Args:
            mark: kept with the position; at most 4096 bytes (the broker's `offset.metadata.max.bytes`).
        """
        patiently(lambda: self._write(messages, position, mark), self._stop, _note)

    def close(self) -> None:
        """Close the connection; all that was written is there."""
        self._transactions.drop()

    def _write(self, messages: Sequence[Message], position: int, mark: str) -> None:
        if not self._transactions.settled:
            self._transactions.open()
            if self._kept() == (position, mark):
                return  # it was written after all
        self._transactions.commit(messages, {self._at: position}, self._name, mark=mark)

    def _kept(self) -> tuple[int, str]:
        try:
            consumer = KafkaConsumer(
                **connection(self._settings, self._name),
                **reading(self._settings.max_message_bytes),
                group_id=self._name,
            )
            try:
                found = consumer.committed(TopicPartition(*self._at), metadata=True, timeout_ms=_BLOCK_MS)
            finally:
                consumer.close(autocommit=False)
        except kafka_errors.AuthorizationError as error:
            raise LogRefused(
                f"the position of {self._name} may not be read: {error}. Check the ACLs (deploy/acl)."
            ) from error
        except kafka_errors.KafkaError as error:
            raise ServiceUnavailable(f"{type(error).__name__}: {error}") from error
        return (0, "") if found is None else (found.offset, found.metadata or "")


def _note(error: ServiceUnavailable) -> None:
    _LOG.warning("the broker is away: %s", error)
