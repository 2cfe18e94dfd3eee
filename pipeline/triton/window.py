"""Several requests under way at once, each with a deadline, tried again after transient errors; answers in order.

All decisions are made in the caller's thread. The transport only reports, from whatever thread, that one attempt ended.
"""

from __future__ import annotations

import heapq
import queue
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from dapo.errors import DapoError, ServiceUnavailable
from pipeline.triton.breaker import CircuitBreaker

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Cancel = Callable[[], None]
Done = Callable[[Answer | None, DapoError | None], None]
# Starts an attempt that ends within so many seconds and reports its end exactly once, from any thread.
Submit = Callable[[Request, float, Done[Answer]], Cancel]
_FIRST_PAUSE_S = 0.05  # a model that is just being switched over is back within this
_LONGEST_PAUSE_S = 1.0
_SHORTEST_S = (
    0.001  # of an attempt whose deadline passed while it waited for room: it ends at once, by the usual way
)


class Failure(Enum):
    """What an error says of the server, and whether the same request is worth another try."""

    PASSING = "away or too busy: a moment later it may go better"
    ILL = "not as it should be: it takes longer than a moment"
    OURS = "it answered, and the caller has to act"


@dataclass(frozen=True)
class Patience:
    """How long is waited for an answer.

    Attributes:
        deadline_s: of one request with all its attempts.
        attempts: into which the deadline is cut: an answer that is lost on the way leaves time for another try.
        window: requests under way at once, at most.
    """

    deadline_s: float = 10.0
    attempts: int = 2
    window: int = 4


def send(
    requests: Sequence[Request],
    submit: Submit[Request, Answer],
    kind: Callable[[DapoError], Failure],
    patience: Patience,
    breaker: CircuitBreaker,
    clock: Callable[[], float] = time.monotonic,
) -> list[Answer]:
    """Send all requests and give their answers in order.

    Args:
        submit: starts an attempt; see `Submit`.
        kind: of an error that `submit` reported.
        clock: monotonic seconds.

    Raises:
        ServiceUnavailable: an attempt failed and its deadline leaves no time for another, or the breaker is open.
        DapoError: what `submit` reported, where another try is of no use. Attempts under way are cancelled.
    """
    return _Sending(requests, submit, kind, patience, breaker, clock).run()


class _Sending(Generic[Request, Answer]):
    """One call of `send`."""

    def __init__(
        self,
        requests: Sequence[Request],
        submit: Submit[Request, Answer],
        kind: Callable[[DapoError], Failure],
        patience: Patience,
        breaker: CircuitBreaker,
        clock: Callable[[], float],
    ) -> None:
        self._requests, self._submit, self._kind = requests, submit, kind
        self._patience, self._breaker, self._clock = patience, breaker, clock
        now = clock()
        self._due = [(now, index) for index in range(len(requests))]  # a heap: when each may go out (again)
        self._deadlines: dict[int, float] = {}  # from the first attempt on
        self._failures = [0] * len(requests)
        self._under_way: dict[int, Cancel] = {}
        self._ended: queue.SimpleQueue[tuple[int, Answer | None, DapoError | None]] = queue.SimpleQueue()
        self._answers: dict[int, Answer] = {}

    def run(self) -> list[Answer]:
        try:
            while len(self._answers) < len(self._requests):
                self._start()
                self._take()
        finally:
            for cancel in self._under_way.values():
                cancel()
        return [self._answers[index] for index in range(len(self._requests))]

    def _start(self) -> None:
        """Start what is due, as far as the window and the breaker allow."""
        if pause := self._breaker.open_s:
            raise ServiceUnavailable(
                f"the model server failed several times in a row and is left alone for another {pause:.1f} s."
            )
        room = 1 if self._breaker.half_open else self._patience.window
        while self._due and len(self._under_way) < room and self._due[0][0] <= self._clock():
            _, index = heapq.heappop(self._due)
            now = self._clock()
            deadline = self._deadlines.setdefault(index, now + self._patience.deadline_s)
            share = self._patience.deadline_s / self._patience.attempts
            seconds = max(_SHORTEST_S, min(deadline - now, share))

            def ended(answer: Answer | None, error: DapoError | None, index: int = index) -> None:
                self._ended.put((index, answer, error))

            self._under_way[index] = self._submit(self._requests[index], seconds, ended)

    def _take(self) -> None:
        """Wait until an attempt ends or one is due."""
        wait = None if self._under_way and not self._due else max(0.0, self._due[0][0] - self._clock())
        if self._under_way and wait == 0:
            wait = None  # what is due waits for room
        try:
            index, answer, error = self._ended.get(timeout=wait)
        except queue.Empty:
            return
        del self._under_way[index]
        if error is None:
            assert answer is not None
            self._breaker.succeeded()
            self._answers[index] = answer
        else:
            self._failed(index, error)

    def _failed(self, index: int, error: DapoError) -> None:
        kind = self._kind(error)
        if kind is Failure.OURS:
            self._breaker.succeeded()
            raise error
        opened = self._breaker.failed()
        pause = random.uniform(0.5, 1.0) * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** self._failures[index])
        self._failures[index] += 1
        again = self._clock() + pause
        if opened or kind is Failure.ILL or again >= self._deadlines[index]:
            raise error
        heapq.heappush(self._due, (again, index))
