"""The circuit breaker."""

from __future__ import annotations

import pytest

from pipeline.triton.breaker import CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_failures_in_a_row_open_it(clock: Clock) -> None:
    breaker = CircuitBreaker(failures=3, pause_s=2, clock=clock)
    assert [breaker.failed(), breaker.failed()] == [False, False]
    assert (breaker.open_s, breaker.half_open) == (0, False)
    assert breaker.failed()
    assert breaker.open_s == 2
    clock.now += 1.5
    assert breaker.open_s == 0.5


def test_a_success_between_failures_keeps_it_closed(clock: Clock) -> None:
    breaker = CircuitBreaker(failures=2, clock=clock)
    for _ in range(5):
        assert not breaker.failed()
        breaker.succeeded()
    assert breaker.open_s == 0


def test_after_its_pause_one_request_decides(clock: Clock) -> None:
    breaker = CircuitBreaker(failures=2, pause_s=2, clock=clock)
    breaker.failed()
    breaker.failed()
    clock.now += 2
    assert breaker.half_open
    assert breaker.failed()  # a single one, not two again
    assert (breaker.open_s, breaker.half_open) == (2, False)
    clock.now += 2
    breaker.succeeded()
    assert not breaker.half_open
    assert not breaker.failed()
