"""`dapo parts`: one verdict per part, the worst of its views, from the results topic to the parts topic, exactly once.

**One process.** The views of a part come from several cameras, so they lie in several partitions of the results topic; one
member of the group must hold them all. A second one is refused, see `Parts`.

**What a kill leaves.** A transaction writes verdicts and, per partition, the offset of the OLDEST record that a part still
open needs, not the offset of the last record read. So after a kill the open parts are built again from the results. That
reads again views of parts which have their verdict. Which ones those are is on the parts topic itself, under keys that follow
from the ids alone (`part_key`), so it is read back before the first record is looked at:

- It is read when records have come, hence after the log has settled the transaction that its predecessor left open: what
  that wrote is either seen, or will never be.
- It is read from `remember` before the oldest record that is read again. A part with a record there was closed after
  that record was written, so its verdict lies behind that time, however long nobody was running.

The same is done whenever the log starts over (its `epoch` grows), since a commit that failed may have been carried out.

**Late views.** A view of a part that has its verdict is counted and logged, never a second verdict: for `remember` after
the verdict, and no longer, since memory is bounded. Until then a part number must not come again on the same line, for the
same product and job.

**When a view is missing.** A part waits `timeout_s` after its first view was read, and is then closed only at a moment when
all results that are written have been read: after an outage the backlog of one camera is no reason to call its views
missing. A part that was waiting when this process was killed waits anew.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from prometheus_client import CollectorRegistry, Counter, Gauge

from dapo.errors import LogRefused
from pipeline.ports import Headers, Log, Message, Partition, Record
from pipeline.stream.joining import MAX_VIEWS, Closed, Joiner, Key, Part, key_of, verdict
from schemas.codec import CONTENT_TYPE, SchemaError, dataschema, decode_results, encode
from schemas.parts import PartRow
from schemas.results import ResultRow

_LOG = logging.getLogger(__name__)
_POLL_S = 0.2
_MAX_RECORDS = 500  # of one poll
_MAX_PARTS = 500  # of one transaction
_STILL_S = 5.0  # without a turn for so long, it stands
_COMMIT_S = 1.0  # offsets are written so often where no part is complete: a restart reads less again
_BROKERS = timedelta(minutes=10)  # that the clocks of two brokers may differ by, at the most
_SHORTEST = timedelta(minutes=1)
ANY_PRODUCT = "*"

Published = Callable[[datetime], Iterable[tuple[Key, datetime]]]
Whole = Callable[[], bool | None]


@dataclass(slots=True)
class Joined:
    """Counts since the start.

    Attributes:
        views: of parts, without the following.
        late: views of parts that had their verdict; also frames of these that were fed again.
        again: views whose frame an open part had already.
        partless: results that are of no part.
    """

    parts: int = 0
    incomplete: int = 0
    views: int = 0
    late: int = 0
    again: int = 0
    partless: int = 0
    unreadable: int = 0
    lost: int = 0


class PartMetrics:
    """The metrics of `dapo parts`; docs/metrics.md describes each."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        own = self.registry
        self.parts = Counter("dapo_parts", "verdicts of parts committed", ["evaluation"], registry=own)
        self.incomplete = Counter("dapo_parts_incomplete", "of these, parts that lacked a view", registry=own)
        self.late = Counter(
            "dapo_part_views_late", "views that came after their part's verdict", registry=own
        )
        self.open = Gauge("dapo_parts_open", "parts that wait for views", registry=own)
        self.lost = Counter(
            "dapo_part_results_lost", "results that Kafka deleted before they were read", registry=own
        )


class Parts:
    """Runs until `stop` is set.

    Args:
        log: of results.
        topic: of parts.
        published: keys and times of the verdicts on the parts topic, from a time on to its end.
        whole: whether this member holds all partitions of the results; None: it holds none yet. One that has never held
            all ends when it gets some, since another runs; one that has stands by until that other has ended.
        views: product -> views of its parts, where no frame says it; "*" for all others.
        remember: how long late views are told from new parts, after the verdict.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        log: Log,
        topic: str,
        published: Published,
        *,
        whole: Whole = lambda: True,
        joiner: Joiner | None = None,
        closed: Closed | None = None,
        views: Mapping[str, int] | None = None,
        remember: timedelta = timedelta(hours=6),
        metrics: PartMetrics | None = None,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._topic, self._published, self._whole = log, topic, published, whole
        self._joiner = Joiner(timeout_s=30.0) if joiner is None else joiner
        self._closed = Closed() if closed is None else closed
        self._views = dict(views or {})
        self._remember = max(remember, _SHORTEST)
        self.metrics = metrics or PartMetrics()
        self._stop = stop or threading.Event()
        self._clock = clock
        self.joined = Joined()
        self._epoch: int | None = None
        self._turned = float("-inf")
        self._standing_by = self._was_whole = False
        self._start_over()

    def run(self) -> Joined:
        """Join views until `stop` is set; open parts are left to whoever comes next.

        Raises:
            Fenced, LogRefused: see `pipeline.ports.Log.commit`; LogRefused also where another process does the same.
        """
        try:
            while not self._stop.is_set():
                self.turn()
        finally:
            self._log.close()
        return self.joined

    def turn(self) -> None:
        """Read once, and write what follows from it."""
        records = self._log.poll(_POLL_S, _MAX_RECORDS)
        self._turned = time.monotonic()
        if self._log.epoch != self._epoch:
            self._start_over()
        if self._standing_by:
            return
        self._notice_losses()
        for record in records:
            self._take(record)
        self._close_overdue()
        self._write()

    def missing(self) -> dict[str, str]:
        """What keeps this process from being ready, by name."""
        if self._standing_by:
            return {"group": "another process holds some of the results"}
        if time.monotonic() - self._turned > _STILL_S:
            return {"broker": "no turn within the last seconds: the broker is waited for"}
        return {}

    def _start_over(self) -> None:
        self._epoch = self._log.epoch
        self._joiner.clear()
        self._closed.clear()
        self._ready: list[Part] = []
        self._positions: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}
        self._read_back: datetime | None = None  # verdicts from here on are known
        self._newest: datetime | None = None
        self._written = self._clock()
        whole = self._whole()
        self._was_whole = self._was_whole or bool(whole)
        self._standing_by = whole is False
        if self._standing_by and not self._was_whole:
            raise LogRefused(
                "another 'dapo parts' of this group holds some of the results. One must hold all: stop the other first."
            )
        if self._standing_by:
            _LOG.warning("another process of this group holds some of the results: standing by until it ends")

    def _take(self, record: Record) -> None:
        at = (record.topic, record.partition)
        if at not in self._positions:
            self._know_verdicts(record.timestamp)
        self._positions[at] = record.offset + 1
        self._newest = max(self._newest or record.timestamp, record.timestamp)
        try:
            rows = decode_results(record.value)
        except SchemaError as error:
            self.joined.unreadable += 1
            _LOG.error("%s/%d at %d: no result row: %s", *at, record.offset, error)
            return
        said = _views_expected(record.headers)
        for row in rows:
            self._view(row, record, said)

    def _view(self, row: ResultRow, record: Record, said: int | None) -> None:
        key = key_of(row)
        if key is None:
            self.joined.partless += 1
            return
        if key in self._closed:
            if self._closed.is_late(key, record.timestamp):
                self.joined.late += 1
                self.metrics.late.inc()
                names = {"part_id": row.part_id, "line_id": row.line_id, "frame_id": row.frame_id}
                _LOG.warning("a view came after the verdict of its part", extra=names)
            return
        expected = said or self._views.get(row.product_id or ANY_PRODUCT) or self._views.get(ANY_PRODUCT)
        at = (record.topic, record.partition)
        part = self._joiner.add(key, row, expected, at, record.offset, record.timestamp, self._clock())
        if part is None:
            self.joined.again += 1
            return
        self.joined.views += 1
        if part.complete:
            self._close(part)

    def _know_verdicts(self, oldest: datetime) -> None:
        """Read back the verdicts that a record of this time, or one after it, may belong to."""
        since = oldest - self._remember
        if self._read_back is not None and self._read_back <= since:
            return
        since -= _BROKERS  # also spares a second reading for a partition that begins a little earlier
        for key, at in self._published(since):
            if key not in self._closed:
                self._closed.tell(key, at)
                if self._closed.crowded:
                    self._closed.forget(since, oldest - _BROKERS)
        self._read_back = since

    def _close_overdue(self) -> None:
        all_read = self._log.lag() == 0
        room = _MAX_PARTS - len(self._ready)
        for part in islice(self._joiner.overdue(self._clock(), all_read=all_read), max(0, room)):
            self._close(part)
        self._forget()
        # Verdicts since the oldest open part was written are needed after a kill: too many of them, and it has to go.
        while self._closed.crowded and (oldest := self._joiner.oldest):
            self._close(oldest)
            self._forget()

    def _forget(self) -> None:
        if self._newest is not None:
            oldest = self._joiner.oldest
            needed = min(oldest.at, self._newest) if oldest else self._newest
            self._closed.forget(needed - self._remember, needed - _BROKERS)

    def _close(self, part: Part) -> None:
        """Its verdict is in the next transaction. Where that fails, all is forgotten and read again."""
        assert self._newest is not None
        self._joiner.close(part)
        self._closed.close(part.key, self._newest)
        self._ready.append(part)

    def _write(self) -> None:
        now = self._clock()
        consumed = self._consumed()
        moved = {at: offset for at, offset in consumed.items() if self._committed.get(at) != offset}
        if not self._ready and not (moved and now - self._written >= _COMMIT_S):
            return
        finished = datetime.now(UTC)
        rows = [verdict(part, finished, now - part.begun) for part in self._ready]
        if not self._log.commit([part_message(row, self._topic) for row in rows], moved):
            self._start_over()
            return
        self._committed, self._written = consumed, now
        for part, row in zip(self._ready, rows, strict=True):
            self._count(part, row)
        self._ready = []
        self.metrics.open.set(len(self._joiner))

    def _consumed(self) -> dict[Partition, int]:
        """Per partition where a successor must begin: at the oldest record of an open part, else behind the last."""
        found = {}
        for at, position in self._positions.items():
            floor = self._joiner.floor(at)
            found[at] = position if floor is None else floor
        return found

    def _count(self, part: Part, row: PartRow) -> None:
        self.joined.parts += 1
        self.metrics.parts.labels(row.evaluation).inc()
        if part.missing:
            self.joined.incomplete += 1
            self.metrics.incomplete.inc()
            names = {"part_id": row.part_id, "line_id": row.line_id}
            _LOG.warning("a part lacks %d of %d views", part.missing, part.expected, extra=names)

    def _notice_losses(self) -> None:
        for loss in self._log.losses:
            count = loss.end - loss.first
            self.joined.lost += count
            self.metrics.lost.inc(count)
        self._log.losses.clear()


def part_message(row: PartRow, topic: str) -> Message:
    """The message of a part's verdict."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": row.part_key,
        "ce_source": "dapo-inspection/parts",
        "ce_type": "com.dapo-inspection.part",
        "ce_time": row.finished_at.isoformat().replace("+00:00", "Z"),
        "ce_dataschema": dataschema(PartRow),
        "content-type": CONTENT_TYPE,
        "evaluation": row.evaluation,
    }
    packed = tuple((name, text.encode()) for name, text in headers.items())
    return Message(topic, row.part_key.encode(), encode([row]), packed)


def keys_of(records: Iterable[Record]) -> Iterable[tuple[Key, datetime]]:
    """Key and time of each verdict on the parts topic; what is no verdict of ours is passed over."""
    for record in records:
        try:
            yield uuid.UUID((record.key or b"").decode("ascii")).bytes, record.timestamp
        except ValueError:
            continue


def _views_expected(headers: Headers) -> int | None:
    text = dict(headers).get("views_expected", b"")
    number = int(text) if text.isdigit() and len(text) <= 4 else 0
    return number if 1 <= number <= MAX_VIEWS else None
