"""The archiver's loop: results of a log, each joined with its frame by place, into the store, at its own pace.

Nothing is committed before it is in the store, so a store that is away only makes the log's lag grow: one batch is held,
the log is paused, and the same batch is tried until it is in. Doing a batch twice leaves the same objects.

    main thread     poll the log -> a batch; polls on, paused, while the other works; commits each slice
    other thread    a slice of the batch -> frames, store

So a store that is slow costs no membership in the group, however long an image takes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from dapo.errors import ServiceUnavailable
from pipeline.archive.archiver import Archiver, Item, Problem, Report
from pipeline.ports import Log, Record
from pipeline.stream.frames import REFERENCE
from pipeline.stream.patience import pauses
from pipeline.stream.standing import Standing
from schemas.codec import SchemaError, decode_results
from schemas.results import ResultRow

_LOG = logging.getLogger(__name__)
_POLL_S = 0.2
_HOLD_S = 0.5  # of a look at a paused log
# The same while a slice is archived; without a gap, in which the end of a joining would be missed.
_BESIDE_S = 0.05
# Of archiving between two commits: a rebalance or a kill costs no more than that, and a stop waits no longer.
_SLICE_S = 10.0
_BEAT_S = 1.0
_STILL_S = 5.0  # without a turn for so long, the archiver stands
_Read = tuple[Record, list[Item]]  # a message, and the results that it holds


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
    waits: int = 0


class ArchiveMetrics:
    """The metrics of `dapo archive`; docs/metrics.md describes each."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        own = self.registry
        self.results = Counter("dapo_archive_results", "results archived and committed", registry=own)
        self.images = Counter("dapo_archive_images", "images kept", ["reason"], registry=own)
        self.bytes = Counter("dapo_archive_bytes", "bytes of images kept", registry=own)
        self.problems = Counter(
            "dapo_archive_problems", "images that are not as their row says", ["kind"], registry=own
        )
        self.unreadable = Counter(
            "dapo_archive_unreadable", "messages on the results topic that are no results", registry=own
        )
        self.lag = Gauge("dapo_archive_lag_results", "results that are not read yet", registry=own)
        self.oldest = Gauge(
            "dapo_archive_oldest_seconds", "age of the oldest result read and not archived", registry=own
        )
        self.waiting = Gauge("dapo_archive_waiting", "1 while a server is waited for", ["what"], registry=own)
        for kind in Problem:
            self.problems.labels(kind.value)

    def beat(self, lag: int | None, oldest: datetime | None, waiting: str) -> None:
        """Set the gauges.

        Args:
            oldest: when the oldest result that is read and not archived was written.
            waiting: "store", "broker", or "" for nothing.
        """
        if lag is not None:
            self.lag.set(lag)
        age = (datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0
        self.oldest.set(max(0.0, age))
        for what in ("store", "broker"):
            self.waiting.labels(what).set(what == waiting)


class Archiving:
    """Runs until `stop` is set.

    Args:
        log: of results.
        fetch: an object of the store by its URI, for frames that were too large for a message; None where it is gone.
        batch: results of one commit, at most.
        batch_s: how long a batch waits for more, from its first result on.
        slice_s: a batch that takes longer to archive is committed in slices of about this length.
        standing: told of a store that is away.
    """

    def __init__(
        self,
        log: Log,
        archiver: Archiver,
        frames: Frames,
        fetch: Callable[[str], bytes | None],
        *,
        batch: int = 64,
        batch_s: float = 5.0,
        slice_s: float = _SLICE_S,
        metrics: ArchiveMetrics | None = None,
        standing: Standing | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._log, self._archiver, self._frames, self._fetch = log, archiver, frames, fetch
        self._batch, self._batch_s, self._slice_s = batch, batch_s, slice_s
        self._stop = stop or threading.Event()
        self.archived = Archived()
        self.metrics = metrics or ArchiveMetrics()
        self._epoch = log.epoch
        self._oldest: datetime | None = None  # of the results that are read and not archived
        self._standing = standing or Standing(self._stop, _LOG.warning)
        self._turned = self._beaten = float("-inf")
        self._hand = ThreadPoolExecutor(1, "archive")

    def run(self) -> Archived:
        """Archive until `stop` is set; what is not committed then is archived again by the next.

        Raises:
            StoreError: the store will never take it (credentials, bucket).
            Fenced, LogRefused: see `pipeline.ports.Log.commit`.
        """
        try:
            with self._hand:
                while not self._stop.is_set():
                    self._keep(self._collect())
        finally:
            self._log.close()
        return self.archived

    def missing(self) -> dict[str, str]:
        """What keeps this process from being ready, by name."""
        if time.monotonic() - self._turned > _STILL_S:
            return {"broker": "no turn within the last seconds: the broker is waited for"}
        return self._standing.missing()

    def _poll(self, timeout_s: float, max_records: int) -> list[Record]:
        found = self._log.poll(timeout_s, max_records)
        self._turned = now = time.monotonic()
        if now - self._beaten >= _BEAT_S:
            self._beaten = now
            self.metrics.beat(self._log.lag(), self._oldest, self._standing.waiting_for())
        return found

    def _collect(self) -> list[_Read]:
        """Results of one batch. Where reading started over, its records are read again: they are forgotten."""
        records: list[Record] = []
        begun = 0.0
        while len(records) < self._batch and not self._stop.is_set():
            found = self._poll(_POLL_S, self._batch - len(records))
            if self._log.epoch != self._epoch:
                self._epoch = self._log.epoch
                self._archiver.reassigned()
                records = []
            if found and not records:
                begun = time.monotonic()
            records += found
            self._oldest = min((one.timestamp for one in records), default=None)
            if records and time.monotonic() - begun >= self._batch_s:
                break
        return [(record, list(self._items(record))) for record in records]

    def _keep(self, batch: Sequence[_Read]) -> None:
        """Archive a batch and commit it, slice by slice; what is not committed when this ends is read again."""
        while batch and not self._stop.is_set() and self._log.epoch == self._epoch:
            kept = self._patiently(batch)
            if kept is None:
                return
            count, report = kept
            consumed = {(one.topic, one.partition): one.offset + 1 for one, _ in batch[:count]}
            if not self._log.commit([], consumed):
                return
            self._count(sum(len(items) for _, items in batch[:count]), report)
            batch = batch[count:]
            self._oldest = min((one.timestamp for one, _ in batch), default=None)

    def _patiently(self, batch: Sequence[_Read]) -> tuple[int, Report] | None:
        """Archive the first messages of a batch, however long the store is away; how many, and what became of them.

        None where reading started over meanwhile, or `stop` is set.
        """
        for pause in pauses():
            taken: list[Record] = []
            try:
                with self._standing.asking("store"):
                    report = self._beside(self._slice(batch, taken))
                return (len(taken), report) if self._log.epoch == self._epoch else None
            except ServiceUnavailable as error:
                self.archived.waits += 1
                _LOG.warning("waiting: %s", error)
            self._log.pause()
            until = time.monotonic() + pause
            while time.monotonic() < until and not self._stop.is_set():
                self._poll(_HOLD_S, 1)  # keeps the membership; paused, it gives nothing
            self._log.resume()
            if self._stop.is_set() or self._log.epoch != self._epoch:
                self._standing.forget("store")
                return None
        return None

    def _slice(self, batch: Sequence[_Read], taken: list[Record]) -> Iterator[Item]:
        """Results of a batch until its time is over or `stop` is set, of one message at least; `taken`: whose were given."""
        until = time.monotonic() + self._slice_s
        for record, items in batch:
            if taken and (self._stop.is_set() or time.monotonic() >= until):
                return
            taken.append(record)
            yield from items

    def _beside(self, items: Iterator[Item]) -> Report:
        """Archive in the other thread; this one polls the paused log meanwhile, else the group takes it for hung."""
        doing = self._hand.submit(lambda: self._archiver.archive(items))
        self._log.pause()
        while not doing.done():
            self._poll(_BESIDE_S, 1)
        self._log.resume()
        return doing.result()

    def _items(self, record: Record) -> Iterator[Item]:
        try:
            rows = decode_results(record.value)
        except SchemaError as error:
            self.archived.unreadable += 1
            self.metrics.unreadable.inc()
            _LOG.error("%s/%d/%d is no result row: %s", record.topic, record.partition, record.offset, error)
            return
        for row in rows:
            yield Item(row, self._loader(row), record.partition, record.offset)

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

    def _count(self, results: int, report: Report) -> None:
        counts = self.archived
        counts.results += results
        counts.kept += sum(report.kept.values())
        counts.bytes += report.bytes
        counts.passed += report.passed
        counts.over_quota += report.over_quota
        counts.unverified += report.unverified
        counts.problems += len(report.problems)
        self.metrics.results.inc(results)
        self.metrics.bytes.inc(report.bytes)
        for reason, number in report.kept.items():
            self.metrics.images.labels(reason.value).inc(number)
        for kind, key, message in report.problems:
            self.metrics.problems.labels(kind.value).inc()
            _LOG.error("%s", message, extra={"problem": kind, "frame_key": key})
