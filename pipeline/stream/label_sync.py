"""Labels from their topic to the table in the bucket."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter

from pipeline.archive import labels
from pipeline.archive.labels import Entry
from pipeline.ports import Log, ObjectStore, Record
from pipeline.stream.copying import Copying, CopyMetrics
from pipeline.stream.standing import Standing
from schemas.codec import decode
from schemas.ids import label_id
from schemas.labels import LabelRow, check_label

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Synced:
    """Counts since the start.

    Attributes:
        unreadable: messages on the topic that are no labels.
    """

    labels: int = 0
    unreadable: int = 0


class LabelMetrics(CopyMetrics):
    """The metrics of `dapo labels sync`; docs/metrics.md describes each."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__("dapo_label_sync", "labels", registry)
        self.labels = Counter(
            "dapo_label_sync_labels", "labels written to the table and committed", registry=self.registry
        )


class LabelSync(Copying[Entry, None]):
    """Copies labels until `stop` is set, or until it is `done`; see `Copying`.

    Args:
        log: of labels.
        store: a bucket for the table.
    """

    metrics: LabelMetrics

    def __init__(
        self,
        log: Log,
        store: ObjectStore,
        *,
        batch: int = 256,
        batch_s: float = 10.0,
        metrics: LabelMetrics | None = None,
        standing: Standing | None = None,
        stop: threading.Event | None = None,
        done: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(
            log,
            metrics or LabelMetrics(),
            batch=batch,
            batch_s=batch_s,
            standing=standing,
            stop=stop,
            done=done,
        )
        self._store = store
        self.synced = Synced()

    def run(self) -> Synced:
        """See `copy`."""
        self.copy()
        return self.synced

    def _items(self, record: Record) -> Sequence[Entry]:
        try:
            rows = decode(record.value, LabelRow)
            for row in rows:
                check_label(row.label, row.mask)
                if row.label_id != label_id(row.result_id, row.label, row.author, row.labelled_at):
                    # Under a made-up id it would take the place of somebody else's label.
                    raise ValueError("its label_id does not follow from what it says")
        except ValueError as error:  # SchemaError is one, and so is a time that Python has no date for
            self.synced.unreadable += 1
            self.metrics.unreadable.inc()
            _LOG.error("%s/%d/%d is no label: %s", record.topic, record.partition, record.offset, error)
            return []
        return [Entry(row, record.partition, record.offset) for row in rows]

    def _keep(self, items: Iterator[Entry]) -> None:
        labels.write(self._store, list(items))

    def _count(self, items: int, report: None) -> None:
        self.synced.labels += items
        self.metrics.labels.inc(items)
