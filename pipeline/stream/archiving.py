"""The archiver: results of a log, each joined with its frame by place, into the store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter

from pipeline.archive.archiver import Archiver, Item, Problem, Report
from pipeline.ports import Log, Record
from pipeline.stream.copying import SLICE_S, Copying, CopyMetrics
from pipeline.stream.frames import REFERENCE
from pipeline.stream.standing import Standing
from schemas.codec import SchemaError, decode_results
from schemas.results import ResultRow

_LOG = logging.getLogger(__name__)


class Frames(Protocol):
    """Frames by their place; see `pipeline.kafka.frames.FrameReader`."""

    def read(self, partition: int, offset: int) -> Record | None: ...


@dataclass(slots=True)
class Archived:
    """Counts since the start.

    Attributes:
        unverified: images kept of rows that name no SHA-256.
        unreadable: messages on the results topic that are no results.
    """

    results: int = 0
    kept: int = 0
    bytes: int = 0
    passed: int = 0
    over_quota: int = 0
    unverified: int = 0
    problems: int = 0
    unreadable: int = 0


class ArchiveMetrics(CopyMetrics):
    """The metrics of `dapo archive`; docs/metrics.md describes each."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__("dapo_archive", "results", registry)
        own = self.registry
        self.results = Counter("dapo_archive_results", "results archived and committed", registry=own)
        self.images = Counter("dapo_archive_images", "images kept", ["reason"], registry=own)
        self.bytes = Counter("dapo_archive_bytes", "bytes of images kept", registry=own)
        self.problems = Counter(
            "dapo_archive_problems", "images that are not as their row says", ["kind"], registry=own
        )
        for kind in Problem:
            self.problems.labels(kind.value)


class Archiving(Copying[Item, Report]):
    """Archives until `stop` is set; see `Copying`.

    Args:
        log: of results.
        fetch: an object of the store by its URI, for frames that were too large for a message; None where it is gone.
    """

    metrics: ArchiveMetrics

    def __init__(
        self,
        log: Log,
        archiver: Archiver,
        frames: Frames,
        fetch: Callable[[str], bytes | None],
        *,
        batch: int = 64,
        batch_s: float = 5.0,
        slice_s: float = SLICE_S,
        metrics: ArchiveMetrics | None = None,
        standing: Standing | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        super().__init__(
            log,
            metrics or ArchiveMetrics(),
            batch=batch,
            batch_s=batch_s,
            slice_s=slice_s,
            standing=standing,
            stop=stop,
        )
        self._archiver, self._frames, self._fetch = archiver, frames, fetch
        self.archived = Archived()

    def run(self) -> Archived:
        """See `copy`."""
        self.copy()
        return self.archived

    def _items(self, record: Record) -> Sequence[Item]:
        try:
            rows = decode_results(record.value)
        except SchemaError as error:
            self.archived.unreadable += 1
            self.metrics.unreadable.inc()
            _LOG.error("%s/%d/%d is no result row: %s", record.topic, record.partition, record.offset, error)
            return []
        return [Item(row, self._loader(row), record.partition, record.offset) for row in rows]

    def _keep(self, items: Iterator[Item]) -> Report:
        return self._archiver.archive(items)

    def _reassigned(self) -> None:
        self._archiver.reassigned()

    def _loader(self, row: ResultRow) -> Callable[[], bytes | None]:
        def load() -> bytes | None:
            if row.frames_partition is None or row.frames_offset is None:
                return None
            frame = self._frames.read(row.frames_partition, row.frames_offset)
            if frame is None or frame.value:
                return None if frame is None else frame.value
            reference = dict(frame.headers).get(REFERENCE)
            return self._fetch(reference.decode("utf-8", "replace")) if reference else None

        return load

    def _count(self, items: int, report: Report) -> None:
        counts = self.archived
        counts.results += items
        counts.kept += sum(report.kept.values())
        counts.bytes += report.bytes
        counts.passed += report.passed
        counts.over_quota += report.over_quota
        counts.unverified += report.unverified
        counts.problems += len(report.problems)
        self.metrics.results.inc(items)
        self.metrics.bytes.inc(report.bytes)
        for reason, number in report.kept.items():
            self.metrics.images.labels(reason.value).inc(number)
        for kind, key, message in report.problems:
            self.metrics.problems.labels(kind.value).inc()
            _LOG.error("%s", message, extra={"problem": kind, "frame_key": key})
