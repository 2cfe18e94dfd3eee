"""What a worker waits for, from its first moment on: told by its beat, its metrics and /readyz."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dapo.errors import ServiceUnavailable
from dapo.inspection import Prediction
from dapo.pack import Pack
from pipeline.ports import Infer
from pipeline.stream.patience import patiently

T = TypeVar("T")
_BEAT_S = 1.0


class Standing:
    """Notes who does not answer. May be asked and told from any thread.

    Args:
        stop: ends all waiting.
        say: told, for people, of each attempt that failed.
        name: what is waited for, given who was asked ("broker", "model", "store") and the error.
    """

    def __init__(
        self,
        stop: threading.Event,
        say: Callable[[str], None],
        name: Callable[[str, ServiceUnavailable], str] = lambda who, error: who,
    ) -> None:
        self._stop, self._say, self._name = stop, say, name
        self._lock = threading.Lock()
        self._away: dict[str, tuple[str, str]] = {}  # who was asked -> what is waited for, and why

    def missing(self) -> dict[str, str]:
        """What is waited for, each with its reason, the longest waited for first."""
        with self._lock:
            return dict(self._away.values())

    def waiting_for(self) -> str:
        """The first of these; "" where nothing is waited for."""
        return next(iter(self.missing()), "")

    @contextmanager
    def asking(self, who: str) -> Iterator[None]:
        """Around a call: it failed with ServiceUnavailable, or the one who was asked is there."""
        try:
            yield
        except ServiceUnavailable as error:
            with self._lock:
                self._away[who] = (self._name(who, error), str(error))
            raise
        except BaseException:
            self.forget(who)
            raise
        self.forget(who)

    def until(self, who: str, call: Callable[[], T]) -> T:
        """What `call` returns, tried for as long as it takes.

        Raises:
            ServiceUnavailable: the last one, once `stop` is set.
        """

        def asked() -> T:
            with self.asking(who):
                return call()

        with self._lock:
            self._away[who] = (who, "was asked for the first time and has not answered yet")
        return patiently(asked, self._stop, lambda error: self._say(f"waiting: {error}"))

    @contextmanager
    def beating(self, beat: Callable[[], None]) -> Iterator[None]:
        """Beat once a second while the block runs: what waits must not look dead."""
        ended = threading.Event()

        def work() -> None:
            while not ended.is_set():
                beat()
                ended.wait(_BEAT_S)

        thread = threading.Thread(target=work, name="starting-beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()  # so that two threads never beat at once

    def forget(self, who: str) -> None:
        """Nothing is wanted of it any more: it has answered, or what it was asked for is another's now."""
        with self._lock:
            self._away.pop(who, None)


class NotedInfer:
    """The Infer port of a model server whose absence is noted."""

    def __init__(self, infer: Infer, standing: Standing) -> None:
        self._infer, self._standing = infer, standing
        self.image_size = infer.image_size

    @property
    def pack(self) -> Pack:
        """See `pipeline.ports.Infer`."""
        return self._infer.pack

    def infer(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]:
        """See `pipeline.ports.Infer`."""
        with self._standing.asking("model"):
            return self._infer.infer(images, products)

    def close(self) -> None:
        """Close the connection."""
        self._infer.close()
