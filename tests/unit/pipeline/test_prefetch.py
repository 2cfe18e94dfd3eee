"""Prefetching keeps order, bounds and exceptions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from pipeline.prefetch import prefetch


def test_order_is_kept() -> None:
    assert list(prefetch(range(100), lambda _: 1, max_items=3, max_bytes=100)) == list(range(100))


@pytest.mark.parametrize(("items", "size", "most"), [(3, 10**9, 3), (100, 50, 5), (100, 5, 1)])
def test_never_more_ahead_than_allowed(items: int, size: int, most: int) -> None:
    made = 0
    blocked = threading.Event()

    def source() -> Iterator[int]:
        nonlocal made
        for number in range(30):
            made += 1
            yield number

    def weigh(number: int) -> int:
        if number == most + 1:  # one in the hand of the user, `most` waiting: this one has to wait outside
            blocked.set()
        return 10

    with closing(prefetch(source(), weigh, max_items=items, max_bytes=size)) as numbers:
        assert next(numbers) == 0
        assert blocked.wait(10)
        assert made == most + 2
        assert list(numbers) == list(range(1, 30))


def test_an_exception_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    numbers = prefetch(source(), lambda _: 1, max_items=5, max_bytes=5)
    assert next(numbers) == 1
    with pytest.raises(OSError, match="disk"):
        next(numbers)


def test_stopping_waits_for_no_further_item() -> None:
    stop, hangs = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        yield 1
        hangs.wait(60)

    numbers = prefetch(source(), lambda _: 1, max_items=2, max_bytes=100, stop=stop)
    assert next(numbers) == 1
    pressed = threading.Timer(0.1, stop.set)
    freed = threading.Timer(1.0, hangs.set)  # so that the thread ends: closing waits for it
    for timer in (pressed, freed):
        timer.start()
    assert list(numbers) == []
    assert stop.is_set()
    for timer in (pressed, freed):
        timer.join()


def test_closing_ends_the_thread() -> None:
    before = threading.active_count()
    numbers = prefetch(iter(int, 1), lambda _: 1, max_items=2, max_bytes=100)
    next(numbers)
    numbers.close()
    assert threading.active_count() == before


def test_closing_closes_what_is_iterated_in_its_own_thread() -> None:
    closed: list[str] = []

    def source() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    numbers = prefetch(source(), lambda _: 1, max_items=2, max_bytes=100)
    next(numbers)
    numbers.close()
    assert closed == ["prefetch"]
