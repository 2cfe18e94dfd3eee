"""The main loop: one result per frame, bounded memory, stopping, failing, exit codes."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from dapo.errors import DapoError, OutputError
from dapo.inspection import Evaluation, Prediction, ResultState
from dapo.pack import Product
from pipeline.ports import Frame, Result
from pipeline.run import ALL_OK, DEFECTS, INTERRUPTED, UNREADABLE, USAGE, RunOptions, exit_code, run
from pipeline.summary import FrameOutcome, RunSummary
from pipeline.testing import FakeInfer, FakeSource, MemorySink, encoded, frame, small_pack, surface

PACK = small_pack(products={"*": Product(types=("scratch", "hole"), threshold_ok=0.2, threshold_notok=0.6)})


def _frames(count: int) -> list[Frame]:
    return [
        frame(f"{n:04d}", b"bad" if n % 7 == 3 else encoded(surface(n, defect=n % 5 == 0)))
        for n in range(count)
    ]


def _run(
    source: FakeSource, sink: MemorySink | None = None, **options: object
) -> tuple[RunSummary, MemorySink]:
    summary, sink = RunSummary(), sink or MemorySink()
    run(source, FakeInfer(PACK), sink, summary, RunOptions(**options))  # type: ignore[arg-type]
    return summary, sink


@pytest.mark.parametrize("batch", [1, 4, 100])
@pytest.mark.parametrize("count", [0, 1, 33])
def test_each_frame_gives_one_result_in_order(batch: int, count: int) -> None:
    summary, sink = _run(FakeSource(_frames(count)), batch=batch)
    assert [result.frame.frame_id for result in sink.written] == [f"{n:04d}" for n in range(count)]
    assert summary.frames == count == sum(summary.evaluations.values()) + summary.failed
    assert summary.failed == sum(result.error is not None for result in sink.written)
    assert sink.closed
    assert sink.durable == count


def _peak_memory(count: int) -> int:
    """Bytes, of a run over `count` frames."""
    made = 0

    def source() -> Iterator[Frame]:
        nonlocal made
        for made in range(1, count + 1):
            yield frame(str(made), encoded(surface(made, width=128, height=128)))

    class Slower(FakeInfer):
        """The queue before it is always full: the peak must not tell which thread was faster."""

        def infer(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]:
            ahead = min(count, sum(self.calls) + len(images) + 16)
            deadline = time.monotonic() + 30
            while made < ahead and time.monotonic() < deadline:
                time.sleep(0.001)  # polls; how long it takes decides nothing
            return super().infer(images, products)

    class Forgetful(MemorySink):
        def write(self, result: Result) -> None:
            """Keeps nothing, as a folder does."""

    tracemalloc.start()
    run(FakeSource(source(), count), Slower(PACK), Forgetful(), RunSummary())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_source() -> None:
    few, many = _peak_memory(40), _peak_memory(200)
    assert many < 1.3 * few


def test_the_product_is_that_of_the_run() -> None:
    _, sink = _run(FakeSource(_frames(2)), product="bottle")
    assert {result.frame.product_id for result in sink.written} == {"bottle"}


def test_a_limit_ends_the_run() -> None:
    summary, _ = _run(FakeSource(_frames(20)), limit=5)
    assert summary.frames == 5
    assert not summary.interrupted


@pytest.mark.parametrize("live", [False, True])
def test_stopping_finishes_the_frames_under_way(live: bool) -> None:
    stop, summary, sink = threading.Event(), RunSummary(), MemorySink()

    def endless() -> Iterator[Frame]:
        number = 0
        while True:
            yield frame(str(number), encoded(surface(number)))
            number += 1

    def on_frame(_: FrameOutcome) -> None:
        if summary.frames == 9:
            stop.set()

    run(
        FakeSource(endless()),
        FakeInfer(PACK),
        sink,
        summary,
        RunOptions(batch=4, live=live),
        stop=stop,
        on_frame=on_frame,
    )
    assert 9 <= len(sink.written) <= 9 + 4 * 4
    assert summary.frames == len(sink.written) == sink.durable
    assert summary.interrupted is not live  # a camera's run ends no other way
    assert exit_code(summary, fail_on_defect=False) == (ALL_OK if live else INTERRUPTED)


def test_a_source_that_hangs_can_be_stopped() -> None:
    stop, hangs, summary, sink = threading.Event(), threading.Event(), RunSummary(), MemorySink()

    def silent() -> Iterator[Frame]:
        yield from _frames(2)
        stop.set()  # somebody presses Ctrl-C
        hangs.wait(60)

    source = FakeSource(silent())
    ended = threading.Thread(
        target=run,
        args=(source, FakeInfer(PACK), sink, summary, RunOptions(batch=1)),
        kwargs={"stop": stop},
    )
    ended.start()
    ended.join(30)
    try:
        assert not ended.is_alive()
        assert sink.closed
        assert summary.interrupted
        assert len(sink.written) == summary.frames <= 2
    finally:
        hangs.set()


def test_results_become_durable_while_the_run_goes_on() -> None:
    seen = []

    class Watched(MemorySink):
        def flush(self) -> None:
            super().flush()
            seen.append(self.durable)

    _run(FakeSource(_frames(30)), Watched(), flush_s=0.0, batch=2)
    assert len(seen) > 5
    assert seen == sorted(seen)


def test_a_full_disk_ends_the_run_with_its_own_error() -> None:
    class Full(MemorySink):
        def write(self, result: Result) -> None:
            if len(self.written) == 5:
                raise OutputError("out: can't be written: No space left on device.")
            super().write(result)

        def close(self) -> None:
            super().close()
            raise OutputError("the second error is not the one to tell")

    sink = Full()
    with pytest.raises(OutputError, match="No space left"):
        _run(FakeSource(_frames(30)), sink)
    assert sink.closed
    assert len(sink.written) == 5


def test_a_model_that_fails_keeps_what_was_written() -> None:
    class Tired(FakeInfer):
        def infer(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]:
            if len(self.calls) == 3:
                raise DapoError("the device has too little memory")
            return super().infer(images, products)

    sink = MemorySink()
    with pytest.raises(DapoError, match="too little memory"):
        run(FakeSource(_frames(40)), Tired(PACK), sink, RunSummary(), RunOptions(batch=4))
    assert sink.closed
    assert len(sink.written) >= 12


def test_a_source_that_fails_is_told_after_its_frames() -> None:
    def broken() -> Iterator[Frame]:
        yield from _frames(3)
        raise DapoError("the network share is gone")

    sink = MemorySink()
    with pytest.raises(DapoError, match="share is gone"):
        _run(FakeSource(broken()), sink)
    assert sink.closed


def _outcome(evaluation: Evaluation, *types: str, failed: bool = False) -> FrameOutcome:
    state = ResultState.FAILED if failed else ResultState.COMPLETED
    return FrameOutcome("x", state, evaluation, "", "", 0.5, types)


@pytest.mark.parametrize(
    ("outcomes", "fail_on_defect", "expected"),
    [
        ([], True, USAGE),
        ([], False, USAGE),
        ([_outcome(Evaluation.OK)], True, ALL_OK),
        ([_outcome(Evaluation.NOT_OK, "hole")], False, ALL_OK),
        ([_outcome(Evaluation.NOT_OK, "hole")], True, DEFECTS),
        ([_outcome(Evaluation.NOT_OK)], True, DEFECTS),
        ([_outcome(Evaluation.UNDEFINED, "hole")], True, DEFECTS),
        ([_outcome(Evaluation.NOT_DECIDABLE)], True, ALL_OK),
        ([_outcome(Evaluation.UNDEFINED, failed=True)], False, UNREADABLE),
        ([_outcome(Evaluation.UNDEFINED, failed=True), _outcome(Evaluation.NOT_OK, "hole")], True, DEFECTS),
    ],
)
def test_exit_codes(outcomes: list[FrameOutcome], fail_on_defect: bool, expected: int) -> None:
    summary = RunSummary()
    for one in outcomes:
        summary.add(one)
    assert exit_code(summary, fail_on_defect=fail_on_defect) == expected
