"""The beat on its way to Kafka: outside of any transaction, and never waited for. A beat that is lost is followed by one."""

from __future__ import annotations

import logging

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from pipeline.kafka.connect import connection
from pipeline.settings import KafkaSettings
from schemas.codec import CONTENT_TYPE, dataschema, encode
from schemas.status import StatusRow

_LOG = logging.getLogger(__name__)
_BLOCK_MS = 50  # of the worker's main thread, while the broker is away
_STALE_MS = 5_000  # a beat that could not be sent for so long says nothing any more


class Beats:
    """Sends status rows.

    Raises:
        kafka.errors.KafkaError: no broker answers at the start.
    """

    def __init__(self, settings: KafkaSettings, topic: str, client: str) -> None:
        self._topic = topic
        self._producer = KafkaProducer(
            **connection(settings, f"{client}-beats"),
            acks=1,
            enable_idempotence=False,
            max_block_ms=_BLOCK_MS,
            request_timeout_ms=_STALE_MS - 1000,
            delivery_timeout_ms=_STALE_MS,
            allow_auto_create_topics=False,
        )

    def send(self, row: StatusRow) -> None:
        """Send one; what can't be sent now is dropped."""
        headers = [("content-type", CONTENT_TYPE.encode()), ("ce_dataschema", dataschema(StatusRow).encode())]
        key = f"{row.worker_id}/{row.line_id or ''}".encode()
        try:
            self._producer.send(self._topic, encode([row]), key=key, headers=headers)
        except kafka_errors.KafkaError as error:
            _LOG.debug("a beat is not sent: %s", error)

    def close(self) -> None:
        """Close the connection."""
        self._producer.close(timeout=1)
