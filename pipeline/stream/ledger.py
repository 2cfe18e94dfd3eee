"""What a worker counts: per camera for the ledger, per line for the beat. Counted once it is committed, never before.

Per camera, frames taken = Completed + Failed + Aborted, Failed = dead letters, and numbers missing in a camera's `sequence`
are frames that were lost before Kafka.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.ports import Record
from pipeline.stream.metrics import Metrics
from pipeline.stream.verdicts import Told
from schemas.status import StatusRow

_MAX_NAMES = (
    1000  # cameras and lines told apart: names come from outside, and memory must not grow with their number
)
_STILL_S = 5.0  # without a beat for so long, the worker stands
OTHER = "other"


@dataclass(slots=True)
class Count:
    """Of one camera or one line since the start."""

    frames: int = 0
    completed: int = 0
    failed: int = 0
    aborted: int = 0
    late: int = 0
    gaps: int = 0
    last_sequence: int | None = None


class Ledger:
    """The worker's watcher: counts, metrics and beats.

    Args:
        worker_id: of the beats.
        configuration_hash: of the pack in force; "" where it is not known yet.
        realtime: whether a line may drop.
        waiting_for: "", "broker", "model", "store" or "pack": what is waited for now.
        beat: see `send`.

    Attributes:
        configuration_hash: may be set anew: another pack came in force.
        send: takes a beat per line; must not block. May be set later: there is none before there is a broker.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        worker_id: str,
        configuration_hash: str = "",
        realtime: Callable[[str], bool] = lambda line: False,
        waiting_for: Callable[[], str] = lambda: "",
        beat: Callable[[StatusRow], None] = lambda row: None,
    ) -> None:
        self.cameras: dict[str, Count] = {}
        self._metrics = metrics
        self._lines: dict[str, Count] = {}
        self.configuration_hash = configuration_hash
        self._worker = worker_id
        self._realtime, self._waiting_for, self.send = realtime, waiting_for, beat
        self._started = datetime.now(UTC)
        self._lost = 0
        self._beaten = float("-inf")

    def read(self, record: Record) -> None:
        """A message was read; it may be read again after a rebalance."""
        self._metrics.read.inc()
        self._metrics.read_bytes.inc(len(record.value))

    def published(self, told: Told) -> None:
        """A frame's row is committed."""
        row = told.row
        gap = 0 if told.replayed else self._gap(told)
        for names, name in ((self.cameras, row.camera_id), (self._lines, row.line_id)):
            count = _bounded(names, name or "")
            count.frames += 1
            count.completed += row.result_state == "Completed"
            count.failed += row.result_state == "Failed"
            count.aborted += row.result_state == "Aborted"
            count.late += bool(row.is_late)
            count.gaps += gap
        camera = (row.camera_id or "") if (row.camera_id or "") in self.cameras else OTHER
        self._metrics.published(row, camera, gap)

    def undone(self, frames: int) -> None:
        """Reading started over: so many frames in flight were forgotten and will be read again.

        Another worker may have held the cameras meanwhile: numbers are compared anew.
        """
        for count in self.cameras.values():
            count.last_sequence = None
        self._metrics.restarts.inc()
        self._metrics.read_again.inc(frames)

    def lost(self, count: int) -> None:
        """The log deleted so many records before they were read."""
        self._lost += count
        self._metrics.lost.inc(count)

    @property
    def beating(self) -> bool:
        """Whether the worker's main thread has been round lately; a broker that is away holds it up."""
        return time.monotonic() - self._beaten < _STILL_S

    def beat(self, in_flight: int, oldest_ms: float | None, lag: int | None, stopping: bool) -> None:
        """Once a second: a beat per line that was met, or one without a line."""
        self._beaten = time.monotonic()
        waiting = self._waiting_for()
        self._metrics.standing(in_flight, oldest_ms, lag, waiting)
        for line, count in self._lines.items() or [("", Count())]:
            self.send(
                StatusRow(
                    at=datetime.now(UTC),
                    worker_id=self._worker,
                    line_id=line or None,
                    state="stopping" if stopping else "waiting" if waiting else "running",
                    waiting_for=waiting or None,
                    started_at=self._started,
                    frames_in=count.frames,
                    completed=count.completed,
                    failed=count.failed,
                    aborted=count.aborted,
                    late=count.late,
                    gaps=count.gaps,
                    lost=self._lost,
                    in_flight=in_flight,
                    lag=lag,
                    oldest_ms=oldest_ms,
                    mode="realtime" if self._realtime(line) else "capacity",
                    configuration_hash=self.configuration_hash or None,
                )
            )

    def _gap(self, told: Told) -> int:
        """Numbers missing before this frame. A number that is not above the last one is a camera that began anew."""
        row = told.row
        if row.camera_id is None and row.result_state == "Failed":
            self._unnamed(told)
        count = _bounded(self.cameras, row.camera_id or "")
        last, count.last_sequence = count.last_sequence, row.sequence
        if last is None or row.sequence is None or row.sequence <= last:
            return 0
        return row.sequence - last - 1

    def _unnamed(self, told: Told) -> None:
        """A frame whose headers can't be read is not lost. Its key names the camera that it has taken a number of."""
        letter = told.messages[-1]  # the frame as it came
        camera = self.cameras.get((letter.key or b"").decode(errors="replace"))
        if camera is not None and camera.last_sequence is not None:
            camera.last_sequence += 1


def _bounded(names: dict[str, Count], name: str) -> Count:
    if name not in names and len(names) >= _MAX_NAMES:
        name = OTHER
    return names.setdefault(name, Count())
