"""Frames that wait for their inspection: bounded in number and in bytes, in order.

Two modes per line. `capacity`: what does not fit waits in the log; the reader pauses. `realtime`: what does not fit is
dropped, the oldest first, and each drop stays in its place in the queue, so that it gets its row in order.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pipeline.ports import DROP, Frame


@dataclass(frozen=True, slots=True)
class Waiting:
    """A frame in line, and the epoch of the log it was read under."""

    frame: Frame
    epoch: int

    @property
    def dropped(self) -> bool:
        return self.frame.error is not None and self.frame.error[0] == DROP


class Inbox:
    """A queue between the thread that reads the log and the one that inspects.

    Args:
        max_frames: that wait; also how many a realtime line keeps before it drops.
        max_bytes: of their messages; the same.
        realtime: whether a line may drop.
    """

    def __init__(self, max_frames: int, max_bytes: int, realtime: Callable[[str], bool]) -> None:
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._realtime = realtime
        self._change = threading.Condition()
        self._queue: deque[Waiting] = deque()
        self._bytes = 0
        self._live = 0  # frames that are not dropped
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether the reader should pause. Drops count too: a flood of them must not grow without bound."""
        with self._change:
            return len(self._queue) >= 2 * self._max_frames or (
                (self._live >= self._max_frames or self._bytes >= self._max_bytes) and not self._may_drop()
            )

    def put(self, frame: Frame, epoch: int) -> None:
        """Add a frame. Never blocks: the reader asks `full` before it reads more."""
        with self._change:
            self._queue.append(Waiting(frame, epoch))
            self._bytes += len(frame.data)
            self._live += frame.error is None
            while (self._live > self._max_frames or self._bytes > self._max_bytes) and self._drop_oldest():
                pass
            self._change.notify_all()

    def get(self, wait: bool) -> Waiting | None:
        """The next frame; None where there is none (and, with `wait`, none until `wake` or `close`)."""
        with self._change:
            while wait and not self._queue and not self._closed:
                self._change.wait()
            if not self._queue:
                return None
            item = self._queue.popleft()
            self._bytes -= len(item.frame.data)
            self._live -= item.frame.error is None
            return item

    def clear(self) -> None:
        """Forget all: the log starts over."""
        with self._change:
            self._queue.clear()
            self._bytes = self._live = 0

    def close(self) -> None:
        """Let `get` end."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def __len__(self) -> int:
        return len(self._queue)

    def _lines(self) -> Iterator[int]:
        for at, item in enumerate(self._queue):
            if item.frame.error is None and self._realtime(item.frame.headers.get("line_id", "")):
                yield at

    def _may_drop(self) -> bool:
        return next(self._lines(), None) is not None

    def _drop_oldest(self) -> bool:
        """Whether there was one to drop. The newest never is: a line whose every frame is too large would see nothing."""
        at = next(self._lines(), None)
        if at is None or at == len(self._queue) - 1:
            return False
        old = self._queue[at]
        waiting = (
            f"{self._max_frames} frames" if self._live > self._max_frames else f"{self._max_bytes} bytes"
        )
        reason = f"the line runs in realtime mode and {waiting} were waiting: the oldest was dropped"
        record = old.frame.record
        light = None if record is None else replace(record, value=b"")  # the image is what weighs
        frame = replace(old.frame, error=(DROP, reason), data=b"", record=light)
        self._queue[at] = Waiting(frame, old.epoch)
        self._bytes -= len(old.frame.data)
        self._live -= 1
        return True
