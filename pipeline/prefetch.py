"""Do the next items' work in a thread while this one's is under way, bounded in number and in bytes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, nullcontext
from typing import TypeVar

T = TypeVar("T")

_WAKE_S = 0.2  # how long a wait for an item may delay the end of a stopped run
_JOIN_S = 5.0  # a thread that hangs in a camera's read is left behind; it ends with the process


def prefetch(
    items: Iterable[T],
    weigh: Callable[[T], int],
    *,
    max_items: int,
    max_bytes: int,
    stop: threading.Event | None = None,
) -> Generator[T, None, None]:
    """Iterate `items` in a thread, at most `max_items` and `max_bytes` ahead, in order.

    One item that alone weighs more than `max_bytes` still passes. An exception of `items` is raised here, after the
    items before it. Closing the generator ends the thread after the item it is working on, and closes `items`
    there.

    Args:
        weigh: bytes that an item holds while it waits.
        stop: once set, an item that is not there yet is not waited for: nobody stops a source that hangs.
    """
    change = threading.Condition()
    ready: deque[tuple[T, int]] = deque()
    held, ended, stopped = 0, False, False
    failure: BaseException | None = None

    def work() -> None:
        nonlocal held, ended, failure
        try:
            with closing(items) if isinstance(items, Generator) else nullcontext():
                for item in items:
                    weight = weigh(item)
                    with change:
                        while (
                            not stopped and ready and (len(ready) >= max_items or held + weight > max_bytes)
                        ):
                            change.wait()
                        if stopped:
                            return
                        ready.append((item, weight))
                        held += weight
                        change.notify_all()
                    del item  # or it would live on here while the next one is made
        except BaseException as error:
            failure = error  # raised where the items are used
        finally:
            with change:
                ended = True
                change.notify_all()

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            with change:
                while not ready and not ended and not (stop is not None and stop.is_set()):
                    change.wait(_WAKE_S)
                if not ready:
                    break
                item, weight = ready.popleft()
                held -= weight
                change.notify_all()
            yield item
            del item
        if failure is not None:
            raise failure
    finally:
        with change:
            stopped = True
            change.notify_all()
        thread.join(_JOIN_S)
