"""A log for whoever needs all of a topic: it says whether it holds every partition, and how far it has read."""

from __future__ import annotations

from collections.abc import Mapping

from kafka import errors as kafka_errors

from dapo.errors import ServiceUnavailable
from pipeline.kafka.log import KafkaLog
from pipeline.settings import KafkaSettings


class WholeKafkaLog(KafkaLog):
    """See `pipeline.ports.Log`; for a group that should have one member only."""

    def whole(self) -> bool | None:
        """Whether this member holds all partitions of the topic; None while it holds none."""
        held = self._consumer.assignment()
        return len(held) == len(self._consumer.partitions_for_topic(self._topic)) if held else None

    def past(self, ends: Mapping[int, int]) -> bool:
        """Whether all records before these ends have been given out by `poll`; False where that is not known.

        Args:
            ends: of each partition, as `pipeline.kafka.read.Span` has them: ends of transactions count as records.
        """
        if self._rewind or self._ahead:
            return False
        held = {at.partition: at for at in self._consumer.assignment()}
        try:
            return all(
                number in held and (self._consumer.position(held[number], timeout_ms=0) or 0) >= end
                for number, end in ends.items()
            )
        except kafka_errors.KafkaError:
            return False  # a partition that was just given to us has no position yet


def open_whole(settings: KafkaSettings, topic: str, group: str, slot: str) -> WholeKafkaLog:
    """A log; see `KafkaLog`.

    Raises:
        ServiceUnavailable: no broker answers.
        LogRefused, SettingsError: as `KafkaLog`.
    """
    try:
        return WholeKafkaLog(settings, topic, group, slot)
    except kafka_errors.KafkaError as error:
        raise ServiceUnavailable(f"no broker answers at {settings.bootstrap}: {error}") from error
