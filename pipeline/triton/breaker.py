"""A circuit breaker: a server that fails again and again is left alone for a while, then tried with one request.

closed     all requests go out; `failures` failures without a success between them open it
open       none goes out for `pause_s`
half open  one goes out: its success closes the breaker, its failure opens it again
"""

from __future__ import annotations

import time
from collections.abc import Callable


class CircuitBreaker:
    """Not thread-safe.

    Args:
        failures: in a row, that open it.
        pause_s: for which it stays open.
        clock: monotonic seconds.
    """

    def __init__(
        self, failures: int = 5, pause_s: float = 0.5, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit, self._pause_s, self._clock = failures, pause_s, clock
        self._failures = 0
        self._until: float | None = None  # end of the pause, once it has opened

    @property
    def open_s(self) -> float:
        """Seconds for which nothing may go out; 0 where something may."""
        return 0.0 if self._until is None else max(0.0, self._until - self._clock())

    @property
    def half_open(self) -> bool:
        """Whether a single request may go out, to see whether the server is back."""
        return self._until is not None and self.open_s == 0

    def succeeded(self) -> None:
        """A request was answered."""
        self._failures = 0
        self._until = None

    def failed(self) -> bool:
        """A request failed; returns whether the breaker opened by that."""
        self._failures += 1
        if self._failures < self._limit and self._until is None:
            return False
        self._until = self._clock() + self._pause_s
        return True
