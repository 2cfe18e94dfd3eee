"""The worker: frames of a log in, verdicts of a log out, each exactly once.

    main thread     poll the log -> inbox                 outbox -> one transaction: rows, defects, dead letters, offsets
    other threads          inbox -> decode -> infer -> judge -> outbox

Only the main thread speaks to the log. Nothing blocks it but the broker itself: while the model is away it goes on polling
a paused log, so that the group does not take it for dead. Inference never happens inside a transaction.

Whenever the log's `epoch` grows, reading has started over at what is committed: everything in flight is forgotten.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from dapo.errors import ServiceUnavailable
from pipeline.ports import Log, Message, Partition, Record, Result
from pipeline.stream.frames import read_frame
from pipeline.stream.inbox import Inbox
from pipeline.stream.inspection import Stages
from pipeline.stream.verdicts import Told

_LOG = logging.getLogger(__name__)
# For a process that runs a worker (`sys.setswitchinterval`): kafka-python lets go of the interpreter at every 4 KB that it
# reads, and gets it back from a busy thread only after so long. With Python's 5 ms large frames come a tenth slower.
SWITCH_INTERVAL_S = 0.001
_IDLE_POLL_S = 0.2
# With frames in flight the log is looked at so often; a transaction that is due is not made to wait.
_BUSY_S = 0.02
_BEAT_S = 1.0
_MAX_RECORDS = 100  # of one poll: how far the inbox may overshoot
_MAX_TRANSACTION_BYTES = 4 * 2**20  # of messages: dead letters of large frames make it short


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is under way at once; see `WorkerSettings`."""

    max_frames: int = 200
    max_bytes: int = 256 * 2**20
    transaction_frames: int = 100
    transaction_ms: float = 150.0
    shutdown_s: float = 20.0


class Watcher(Protocol):
    """Told what happens, from the main thread; must not block. `pipeline.stream.ledger.Ledger` counts it."""

    def read(self, record: Record) -> None: ...

    def published(self, told: Told) -> None: ...

    def undone(self, frames: int) -> None: ...

    def lost(self, count: int) -> None: ...

    def beat(self, in_flight: int, oldest_ms: float | None, lag: int | None, stopping: bool) -> None: ...


@dataclass(slots=True)
class _Done:
    told: Told
    at: Partition
    offset: int
    ready: float


class Worker:
    """Runs until `stop` is set.

    Args:
        log: what is read and written.
        stages: frames to results, in a thread of its own.
        tell: result to messages.
        realtime: whether a line may drop frames.
        watcher: told of everything.
    """

    def __init__(
        self,
        log: Log,
        stages: Stages,
        tell: Callable[[Result], Told],
        watcher: Watcher,
        *,
        limits: Limits | None = None,
        realtime: Callable[[str], bool] = lambda line: False,
        stop: threading.Event | None = None,
    ) -> None:
        self._log, self._stages, self._tell, self._watcher = log, stages, tell, watcher
        self._limits = limits or Limits()
        self._inbox = Inbox(self._limits.max_frames, self._limits.max_bytes, realtime)
        self._stop = stop or threading.Event()
        self._epoch = log.epoch
        self._in_flight: deque[datetime] = deque()  # when each frame was captured
        self._beaten = float("-inf")
        self._outbox: deque[_Done] = deque()
        self._lock = threading.Lock()
        self._due = threading.Event()  # set when the outbox gets full
        self._failure: BaseException | None = None
        self._paused = False

    def run(self) -> None:
        """Work until `stop` is set, then finish what is under way within `shutdown_s`.

        Raises:
            Fenced, LogRefused: see `pipeline.ports.Log.commit`.
            DapoError: the model can't go on.
        """
        thread = threading.Thread(target=self._inspect, name="inspect", daemon=True)
        thread.start()
        try:
            while not self._stop.is_set():
                self._turn(stopping=False)
            self._finish()
        finally:
            self._inbox.clear()
            self._inbox.close()
            self._log.close()
            thread.join(self._limits.shutdown_s)

    def _turn(self, *, stopping: bool) -> None:
        if self._failure is not None:
            raise self._failure
        self._hold(stopping or self._inbox.full)
        # A poll can't be ended by a result that gets ready: with frames in flight it is the results that are waited for.
        records = self._log.poll(0.0 if self._in_flight else _IDLE_POLL_S, _MAX_RECORDS)
        self._notice_epoch()
        for record in records:
            self._take(record)
        self._due.clear()
        self._publish(everything=stopping)
        self._beat(stopping)
        # The outbox may have got full while others were committed.
        if self._in_flight and not records and not self._full():
            self._due.wait(_BUSY_S)

    def _beat(self, stopping: bool) -> None:
        now = time.monotonic()
        if now - self._beaten < _BEAT_S:
            return
        self._beaten = now
        oldest_ms = None
        if self._in_flight:  # cameras are not read in the order of their clocks, and a clock may be ahead
            oldest_ms = max(0.0, (datetime.now(UTC) - min(self._in_flight)).total_seconds() * 1000)
        self._watcher.beat(len(self._in_flight), oldest_ms, self._log.lag(), stopping)

    def _hold(self, hold: bool) -> None:
        if hold != self._paused:
            (self._log.pause if hold else self._log.resume)()
            self._paused = hold

    def _take(self, record: Record) -> None:
        frame = read_frame(record)
        self._in_flight.append(frame.captured_at)
        self._watcher.read(record)
        self._inbox.put(frame, self._epoch)

    def _notice_epoch(self) -> None:
        if self._log.epoch == self._epoch:
            return
        self._watcher.undone(len(self._in_flight))
        with self._lock:
            self._epoch = self._log.epoch
            self._outbox.clear()
        self._inbox.clear()
        self._in_flight.clear()
        self._paused = False
        self._log.resume()

    def _publish(self, *, everything: bool) -> None:
        batch = self._batch(everything)
        if not batch and not self._log.losses:
            return
        messages: list[Message] = []
        consumed: dict[Partition, int] = {}
        for done in batch:
            messages += done.told.messages
            consumed[done.at] = done.offset + 1
        if batch and not self._log.commit(messages, consumed):
            self._notice_epoch()
            return
        for done in batch:
            self._in_flight.popleft()
            self._watcher.published(done.told)
        for loss in self._log.losses:
            self._watcher.lost(loss.end - loss.first)
        self._log.losses.clear()

    def _batch(self, everything: bool) -> list[_Done]:
        """Results for one transaction, in order; none while it may still grow."""
        limits = self._limits
        with self._lock:
            if not self._outbox:
                return []
            waited_ms = (time.monotonic() - self._outbox[0].ready) * 1000
            if not (everything or self._full() or waited_ms >= limits.transaction_ms):
                return []
            batch: list[_Done] = []
            size = 0
            while self._outbox and len(batch) < limits.transaction_frames:
                size += self._outbox[0].told.size
                if batch and size > _MAX_TRANSACTION_BYTES:
                    break
                batch.append(self._outbox.popleft())
            return batch

    def _full(self) -> bool:
        """Whether the outbox makes a whole transaction, or all that it could wait for is in it."""
        return len(self._outbox) >= min(self._limits.transaction_frames, len(self._in_flight))

    def _finish(self) -> None:
        """Stop reading; publish what is under way; leave the rest to whoever comes next."""
        deadline = time.monotonic() + self._limits.shutdown_s
        while self._in_flight and time.monotonic() < deadline:
            self._turn(stopping=True)
        if self._in_flight:
            _LOG.warning(
                "%d frames under way are left uncommitted: they will be inspected again", len(self._in_flight)
            )

    def _inspect(self) -> None:
        """The other thread: everything between inbox and outbox."""
        try:
            for epoch, result in self._stages(self._inbox):
                record = result.frame.record
                assert record is not None
                told = self._tell(result)
                with self._lock:
                    if epoch == self._epoch:
                        at = (record.topic, record.partition)
                        self._outbox.append(_Done(told, at, record.offset, time.monotonic()))
                    if self._full():
                        self._due.set()
        except ServiceUnavailable as error:
            if not self._stop.is_set():  # waiting was ended by the stop: the frames stay uncommitted
                self._failure = error
        except BaseException as error:
            self._failure = error
