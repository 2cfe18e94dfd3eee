"""The loop of whoever copies a topic to the store, behind everybody else and at its own pace.

Nothing is committed before it is in the store, so a store that is away only makes the log's lag grow: one batch is held,
the log is paused, and the same batch is tried until it is in. Doing a batch twice leaves the same objects.

    main thread     poll the log -> a batch; polls on, paused, while the other works; commits each slice
    other thread    a slice of the batch -> store

So a store that is slow costs no membership in the group, however long an object takes.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from dapo.errors import ServiceUnavailable
from pipeline.ports import Log, Record
from pipeline.stream.patience import pauses
from pipeline.stream.standing import Standing

T = TypeVar("T")
R = TypeVar("R")
_LOG = logging.getLogger(__name__)
_POLL_S = 0.2
_HOLD_S = 0.5  # of a look at a paused log
# The same while a slice is copied; without a gap, in which the end of a joining would be missed.
_BESIDE_S = 0.05
# Of copying between two commits: a rebalance or a kill costs no more than that, and a stop waits no longer.
SLICE_S = 10.0
_BEAT_S = 1.0
_STILL_S = 5.0  # without a turn for so long, the loop stands


class CopyMetrics:
    """How far behind a copy is; docs/metrics.md describes each.

    Args:
        prefix: of the names: "dapo_archive".
        what: is copied: "results".
    """

    def __init__(self, prefix: str, what: str, registry: CollectorRegistry | None = None) -> None:
        self.registry = own = registry or CollectorRegistry()
        self.unreadable = Counter(
            f"{prefix}_unreadable", f"messages on their topic that are no {what}", registry=own
        )
        self.lag = Gauge(f"{prefix}_lag_{what}", f"{what} that are not read yet", registry=own)
        self.oldest = Gauge(
            f"{prefix}_oldest_seconds", f"age of the oldest of the {what} read and not copied", registry=own
        )
        self.waiting = Gauge(f"{prefix}_waiting", "1 while a server is waited for", ["what"], registry=own)

    def beat(self, lag: int | None, oldest: datetime | None, waiting: str) -> None:
        """Set the gauges.

        Args:
            oldest: when the oldest message that is read and not copied was written.
            waiting: "store", "broker", or "" for nothing.
        """
        if lag is not None:
            self.lag.set(lag)
        age = (datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0
        self.oldest.set(max(0.0, age))
        for what in ("store", "broker"):
            self.waiting.labels(what).set(what == waiting)


class Copying(ABC, Generic[T, R]):
    """Runs until `stop` is set, or until it is `done`. A subclass says what is in a message, and how that is kept.

    Args:
        log: of what is copied.
        batch: messages of one commit, at most.
        batch_s: how long a batch waits for more, from its first message on.
        slice_s: a batch that takes longer is committed in slices of about this length.
        standing: told of a store that is away.
        done: whether all is read that was to be read.

    Attributes:
        waits: attempts that found the store away.
    """

    def __init__(
        self,
        log: Log,
        metrics: CopyMetrics,
        *,
        batch: int,
        batch_s: float,
        slice_s: float = SLICE_S,
        standing: Standing | None = None,
        stop: threading.Event | None = None,
        done: Callable[[], bool] = lambda: False,
    ) -> None:
        self._log = log
        self._batch, self._batch_s, self._slice_s = batch, batch_s, slice_s
        self._stop = stop or threading.Event()
        self._done = done
        self.metrics = metrics
        self.waits = 0
        self._epoch = log.epoch
        self._oldest: datetime | None = None  # of what is read and not copied
        self._standing = standing or Standing(self._stop, _LOG.warning)
        self._turned = self._beaten = float("-inf")
        self._hand = ThreadPoolExecutor(1, "copy")

    @abstractmethod
    def _items(self, record: Record) -> Sequence[T]:
        """What a message holds; nothing where it is none of ours."""

    @abstractmethod
    def _keep(self, items: Iterator[T]) -> R:
        """Put items into the store, in the other thread. Twice the same leaves the same objects.

        Raises:
            ServiceUnavailable: call it again later with all of them.
        """

    @abstractmethod
    def _count(self, items: int, report: R) -> None:
        """So many are kept and committed."""

    def _reassigned(self) -> None:
        """Reading started over: others may have copied meanwhile."""

    def copy(self) -> None:
        """Copy until `stop` is set; what is not committed then is copied again by the next.

        Raises:
            StoreError: the store will never take it (credentials, bucket).
            Fenced, LogRefused: see `pipeline.ports.Log.commit`.
        """
        try:
            with self._hand:
                while not self._stop.is_set():
                    self._copy(self._collect())
        finally:
            self._log.close()

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

    def _collect(self) -> list[tuple[Record, Sequence[T]]]:
        """Messages of one batch. Where reading started over, they are read again: those at hand are forgotten."""
        records: list[Record] = []
        begun = 0.0
        while len(records) < self._batch and not self._stop.is_set():
            found = self._poll(_POLL_S, self._batch - len(records))
            if self._log.epoch != self._epoch:
                self._epoch = self._log.epoch
                self._reassigned()
                records = []
            if found and not records:
                begun = time.monotonic()
            records += found
            self._oldest = min((one.timestamp for one in records), default=None)
            if self._done():
                if not records:
                    self._stop.set()
                break
            if records and time.monotonic() - begun >= self._batch_s:
                break
        return [(record, self._items(record)) for record in records]

    def _copy(self, batch: Sequence[tuple[Record, Sequence[T]]]) -> None:
        """Keep a batch and commit it, slice by slice; what is not committed when this ends is read again."""
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

    def _patiently(self, batch: Sequence[tuple[Record, Sequence[T]]]) -> tuple[int, R] | None:
        """Keep the first messages of a batch, however long the store is away; how many, and what became of them.

        None where reading started over meanwhile, or `stop` is set.
        """
        for pause in pauses():
            taken: list[Record] = []
            try:
                with self._standing.asking("store"):
                    report = self._beside(self._slice(batch, taken))
                return (len(taken), report) if self._log.epoch == self._epoch else None
            except ServiceUnavailable as error:
                self.waits += 1
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

    def _slice(self, batch: Sequence[tuple[Record, Sequence[T]]], taken: list[Record]) -> Iterator[T]:
        """Items of a batch until its time is over or `stop` is set, of one message at least; `taken`: whose were given."""
        until = time.monotonic() + self._slice_s
        for record, items in batch:
            if taken and (self._stop.is_set() or time.monotonic() >= until):
                return
            taken.append(record)
            yield from items

    def _beside(self, items: Iterator[T]) -> R:
        """Keep in the other thread; this one polls the paused log meanwhile, else the group takes it for hung."""
        doing = self._hand.submit(lambda: self._keep(items))
        self._log.pause()
        while not doing.done():
            self._poll(_BESIDE_S, 1)
        self._log.resume()
        return doing.result()
