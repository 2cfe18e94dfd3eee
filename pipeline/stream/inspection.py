"""The stages over a queue of frames: decode, infer and judge in a thread each, answers in order."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime

from dapo.errors import FrameError
from pipeline.inspect import Inferred, Inspector, Prepared, Preparer
from pipeline.ports import DROP, Frame, Result
from pipeline.prefetch import prefetch
from pipeline.stream.inbox import Inbox, Waiting
from pipeline.stream.patience import patiently

_AHEAD_BYTES = 128 * 2**20  # of decoded frames: ten of 12 MP
Stages = Callable[[Inbox], Iterator[tuple[int, Result]]]
Fetch = Callable[[Frame], bytes]


class Inspection:
    """Frames of an inbox through decode, infer and judge, one result each, in order.

    A batch is never waited for: once the inbox is empty and nothing decoded is left, what there is goes to the model; what
    came while the model was busy goes to it at once. A model or store that is away is waited for as long as it takes.

    Args:
        preparer: decodes and cuts.
        inspector: infers and judges.
        fetch: the image of a frame whose message only says where it lies; FrameError where it never will.
        ahead: decoded frames that may wait for the model, and as many behind it for their judgement.
        stop: ends all waiting.
    """

    def __init__(
        self, preparer: Preparer, inspector: Inspector, *, fetch: Fetch, ahead: int, stop: threading.Event
    ) -> None:
        self._preparer, self._inspector = preparer, inspector
        self._fetch = fetch
        self._ahead = ahead
        self._stop = stop
        self._made = 0  # frames decoded, counted by the thread that does it

    def __call__(self, inbox: Inbox) -> Iterator[tuple[int, Result]]:
        """(epoch, result) of each frame until the inbox is closed and empty."""
        inferred = prefetch(
            self._inferred(inbox),
            lambda item: item[1].prepared.weight,
            max_items=self._ahead,
            max_bytes=_AHEAD_BYTES,
        )
        with closing(inferred) as items:  # here, not by the garbage collector in whatever thread that runs
            for epoch, one in items:
                yield epoch, self._inspector.judge(one)

    def _inferred(self, inbox: Inbox) -> Iterator[tuple[int, Inferred]]:
        epochs: deque[int] = deque()
        taken = self._made = 0
        ahead = prefetch(self._prepared(inbox), _weigh, max_items=self._ahead, max_bytes=_AHEAD_BYTES)
        with closing(ahead) as items:
            for item in items:
                if item is None:
                    if taken < self._made:
                        continue  # told before they came; another None follows them
                    inferred = self._inspector.rest()
                else:
                    epoch, prepared = item
                    taken += 1
                    epochs.append(epoch)
                    inferred = self._inspector.take(prepared)
                for one in inferred:
                    yield epochs.popleft(), one

    def _prepared(self, inbox: Inbox) -> Iterator[tuple[int, Prepared] | None]:
        while True:
            waiting = inbox.get(wait=False)
            if waiting is None:
                yield None  # nothing else is there: what waits for a full batch must not wait longer
                waiting = inbox.get(wait=True)
            if waiting is None:
                return
            prepared = self._prepare(waiting)
            self._made += 1
            yield waiting.epoch, prepared

    def _prepare(self, waiting: Waiting) -> Prepared:
        frame = waiting.frame
        if waiting.dropped:
            assert frame.error is not None
            return Prepared(frame, "", datetime.now(UTC), error=(DROP, "overload", frame.error[1]))
        if frame.error is None and "ce_dataref" in frame.headers:
            frame = self._fetched(frame)
        return self._preparer.prepare(frame)

    def _fetched(self, frame: Frame) -> Frame:
        try:
            data = patiently(lambda: self._fetch(frame), self._stop)
            return dataclasses.replace(frame, data=data)
        except FrameError as error:
            return dataclasses.replace(frame, error=(error.code, str(error)))


def _weigh(item: tuple[int, Prepared] | None) -> int:
    return 0 if item is None else item[1].weight
