"""Several requests under way: order, bounds, deadlines, another try."""

from __future__ import annotations

import threading

import pytest

from dapo.errors import DapoError, ServiceUnavailable
from pipeline.triton.breaker import CircuitBreaker
from pipeline.triton.window import Cancel, Done, Failure, Patience, send


class Transport:
    """Answers request n with n * 10, unless told otherwise.

    Attributes:
        attempts: (request, seconds) of each.
        failures: request -> errors of its next attempts.
        silent: requests that are never answered.
        waiting: (request, done) of those that a test answers itself, where `by_hand` is set.
    """

    def __init__(self) -> None:
        self.attempts: list[tuple[int, float]] = []
        self.failures: dict[int, list[DapoError]] = {}
        self.by_hand = False
        self.waiting: list[tuple[int, Done[int]]] = []
        self.cancelled: list[int] = []
        self.most = 0
        self.submitted = threading.Semaphore(0)

    def submit(self, request: int, seconds: float, done: Done[int]) -> Cancel:
        self.attempts.append((request, seconds))
        if self.by_hand:
            self.waiting.append((request, done))
            self.most = max(self.most, len(self.waiting))
        elif self.failures.get(request):
            done(None, self.failures[request].pop(0))
        else:
            done(request * 10, None)
        self.submitted.release()
        return lambda: self.cancelled.append(request)


def _send(
    transport: Transport,
    count: int,
    patience: Patience = Patience(),
    breaker: CircuitBreaker | None = None,
    kind: Failure = Failure.PASSING,
) -> list[int]:
    return send(range(count), transport.submit, lambda error: kind, patience, breaker or CircuitBreaker())


def test_answers_come_in_the_order_of_requests() -> None:
    transport = Transport()
    transport.failures = {0: [ServiceUnavailable("away")]}  # so that it is answered last
    assert _send(transport, 5) == [0, 10, 20, 30, 40]
    assert [request for request, _ in transport.attempts][-1] == 0
    assert _send(transport, 0) == []


def test_no_more_are_under_way_than_the_window_holds() -> None:
    transport, found = Transport(), []
    transport.by_hand = True
    thread = threading.Thread(target=lambda: found.extend(_send(transport, 9, Patience(window=3))))
    thread.start()
    for _ in range(9):
        assert transport.submitted.acquire(timeout=10)
        if len(transport.waiting) == 3 or len(transport.attempts) == 9:
            while transport.waiting:
                request, done = transport.waiting.pop()  # the last first
                done(request, None)
    thread.join(10)
    assert found == list(range(9))
    assert transport.most == 3


def test_a_transient_error_is_tried_again_within_the_deadline() -> None:
    transport = Transport()
    transport.failures = {1: [ServiceUnavailable("away")] * 3}
    assert _send(transport, 3, Patience(deadline_s=8, attempts=2)) == [0, 10, 20]
    seconds = [left for request, left in transport.attempts if request == 1]
    assert len(seconds) == 4
    assert all(left <= 4 for left in seconds)


def test_it_gives_up_where_the_deadline_leaves_no_time() -> None:
    transport = Transport()
    transport.failures = {0: [ServiceUnavailable(f"try {number}") for number in range(99)]}
    with pytest.raises(ServiceUnavailable, match="try "):
        _send(transport, 1, Patience(deadline_s=0.3), CircuitBreaker(failures=99))
    assert 2 <= len(transport.attempts) < 9


@pytest.mark.parametrize("kind", [Failure.OURS, Failure.ILL])
def test_other_errors_end_it_at_once_and_cancel_the_rest(kind: Failure) -> None:
    transport, error = Transport(), DapoError("no such product")
    transport.by_hand = True
    breaker = CircuitBreaker(failures=1)
    caught: list[DapoError] = []

    def run() -> None:
        try:
            _send(transport, 3, breaker=breaker, kind=kind)
        except DapoError as problem:
            caught.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(3):
        assert transport.submitted.acquire(timeout=10)
    transport.waiting[1][1](None, error)
    thread.join(10)
    assert caught == [error]
    assert sorted(transport.cancelled) == [0, 2]
    assert (breaker.open_s > 0) == (kind is Failure.ILL)


def test_failures_in_a_row_end_the_tries_and_the_next_call_sends_nothing() -> None:
    transport = Transport()
    transport.failures = {0: [ServiceUnavailable("away")] * 99}
    breaker = CircuitBreaker(failures=3, pause_s=60)
    with pytest.raises(ServiceUnavailable, match="away"):
        _send(transport, 1, breaker=breaker)
    assert len(transport.attempts) == 3
    with pytest.raises(ServiceUnavailable, match=r"left alone for another \d+\.\d s"):
        _send(transport, 1, breaker=breaker)
    assert len(transport.attempts) == 3


def test_after_the_pause_one_goes_first() -> None:
    breaker = CircuitBreaker(failures=1, pause_s=0)
    breaker.failed()
    transport, found = Transport(), []
    transport.by_hand = True
    thread = threading.Thread(target=lambda: found.extend(_send(transport, 4, breaker=breaker)))
    thread.start()
    assert transport.submitted.acquire(timeout=10)
    assert not transport.submitted.acquire(timeout=0.1)
    transport.by_hand = False
    request, done = transport.waiting.pop()
    done(request * 10, None)
    thread.join(10)
    assert found == [0, 10, 20, 30]
    assert transport.most == 1
