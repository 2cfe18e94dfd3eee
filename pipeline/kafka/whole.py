"""A log for whoever needs all of a topic: it says whether it holds every partition."""

from __future__ import annotations

from pipeline.kafka.log import KafkaLog


class WholeKafkaLog(KafkaLog):
    """See `pipeline.ports.Log`; for a group that should have one member only."""

    def whole(self) -> bool | None:
        """Whether this member holds all partitions of the topic; None while it holds none."""
        held = self._consumer.assignment()
        return len(held) == len(self._consumer.partitions_for_topic(self._topic)) if held else None
