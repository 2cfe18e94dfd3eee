"""The archiver's loop: results of a log, each joined with its frame by place, into the store, at its own pace.

Nothing is committed before it is in the store, so a store that is away only makes the log's lag grow: one batch is held,
the log is paused, and the same batch is tried until it is in. Doing a batch twice leaves the same objects.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from dapo.errors import ServiceUnavailable
from pipeline.archive.archiver import Archiver, Item, Report
from pipeline.ports import Log, Partition, Record
from pipeline.stream.frames import REFERENCE
from pipeline.stream.patience import pauses
from schemas.codec import SchemaError, decode_results
from schemas.results import ResultRow

_LOG = logging.getLogger(__name__)
_POLL_S = 0.2
_HOLD_S = 0.5  # between two looks at a paused log


class Frames(Protocol):
    """Frames by their place; see `pipeline.kafka.frames.FrameReader`."""

    def read(self, partition: int, offset: int) -> Record | None: ...


@dataclass(slots=True)
class Archived:
    """Counts since the start. `unreadable`: messages on the results topic that are no results."""

    results: int = 0
    kept: int = 0
    bytes: int = 0
    passed: int = 0
    over_quota: int = 0
    problems: int = 0
    unreadable: int = 0
    waits: int = 0


class Archiving:
    """Runs until `stop` is set.

    Args:
        log: of results.
        fetch: an object of the store by its URI, for frames that were too large for a message; None where it is gone.
        batch: results of one commit, at most.
        batch_s: how long a batch waits for more.
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
        stop: threading.Event | None = None,
    ) -> None:
        self._log, self._archiver, self._frames, self._fetch = log, archiver, frames, fetch
        self._batch, self._batch_s = batch, batch_s
        self._stop = stop or threading.Event()
        self.archived = Archived()

    def run(self) -> Archived:
        """Archive until `stop` is set; what is not committed then is archived again by the next.

        Raises:
            StoreError: the store will never take it (credentials, bucket).
            Fenced, LogRefused: see `pipeline.ports.Log.commit`.
        """
        try:
            while not self._stop.is_set():
                epoch, records = self._collect()
                if records and self._log.epoch == epoch:
                    self._keep(epoch, records)
                elif self._log.epoch != epoch:
                    self._archiver.reassigned()
        finally:
            self._log.close()
        return self.archived

    def _collect(self) -> tuple[int, list[Record]]:
        """Results of one batch. A change of epoch ends it: its records are read again."""
        records: list[Record] = []
        epoch, begun = self._log.epoch, time.monotonic()
        while len(records) < self._batch and not self._stop.is_set():
            found = self._log.poll(_POLL_S, self._batch - len(records))
            if self._log.epoch != epoch:
                epoch, records = self._log.epoch, []
                self._archiver.reassigned()
            records += found
            if time.monotonic() - begun >= self._batch_s or (not found and records):
                break
        return epoch, records

    def _keep(self, epoch: int, records: list[Record]) -> None:
        items = [item for record in records for item in self._items(record)]
        report = self._patiently(epoch, items)
        if report is None:
            return
        consumed: dict[Partition, int] = {}
        for record in records:
            consumed[(record.topic, record.partition)] = record.offset + 1
        if self._log.commit([], consumed):
            self._count(len(items), report)

    def _patiently(self, epoch: int, items: list[Item]) -> Report | None:
        """Archive a batch however long the store is away; None where others read it now, or `stop` is set."""
        for pause in pauses():
            try:
                return self._archiver.archive(items)
            except ServiceUnavailable as error:
                self.archived.waits += 1
                _LOG.warning("waiting: %s", error)
            self._log.pause()
            until = time.monotonic() + pause
            while time.monotonic() < until and not self._stop.is_set():
                self._log.poll(_HOLD_S, 1)  # keeps the membership; paused, it gives nothing
            self._log.resume()
            if self._stop.is_set() or self._log.epoch != epoch:
                return None
        return None

    def _items(self, record: Record) -> Iterator[Item]:
        try:
            rows = decode_results(record.value)
        except SchemaError as error:
            self.archived.unreadable += 1
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
        counts.problems += len(report.problems)
        for kind, key, message in report.problems:
            _LOG.error("%s", message, extra={"problem": kind, "frame_key": key})
