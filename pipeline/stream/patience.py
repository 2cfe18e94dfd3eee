"""Waiting for a server that is away: for as long as it takes, with growing pauses that are never in step."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.stop import stop_when_event_set

from dapo.errors import ServiceUnavailable
from dapo.inspection import Prediction
from dapo.pack import Pack
from pipeline.ports import Infer

T = TypeVar("T")
_FIRST_S, _LONGEST_S = 0.2, 1.0  # a server that comes back is noticed within a second, and not by all at once


def patiently(
    call: Callable[[], T],
    stop: threading.Event,
    note: Callable[[ServiceUnavailable], None] = lambda error: None,
) -> T:
    """What `call` returns, tried again after each ServiceUnavailable until it does or `stop` is set.

    Args:
        note: told of each failure.

    Raises:
        ServiceUnavailable: the last one, once `stop` is set.
    """

    def failed(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, ServiceUnavailable):
            note(error)

    def pause(seconds: float) -> None:
        stop.wait(seconds)

    return Retrying(
        retry=retry_if_exception_type(ServiceUnavailable),
        wait=wait_random_exponential(multiplier=_FIRST_S, max=_LONGEST_S),
        stop=stop_when_event_set(stop),
        sleep=pause,
        after=failed,
        reraise=True,
    )(call)


def pauses() -> Iterator[float]:
    """Seconds between attempts without end, for whoever has something to do meanwhile: growing, with jitter."""
    attempt = 0
    while True:
        yield random.uniform(0.5, 1.0) * min(_LONGEST_S, _FIRST_S * 2 ** min(attempt, 10))
        attempt += 1


class PatientInfer:
    """The Infer port that outwaits its server."""

    def __init__(self, infer: Infer, stop: threading.Event) -> None:
        self._infer = infer
        self._stop = stop
        self.image_size = infer.image_size

    @property
    def pack(self) -> Pack:
        """See `pipeline.ports.Infer`."""
        return self._infer.pack

    def infer(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]:
        """See `pipeline.ports.Infer`. Blocks while the server is away."""
        return patiently(lambda: self._infer.infer(images, products), self._stop)

    def close(self) -> None:
        """Close the connection."""
        self._infer.close()
