"""The main loop: source -> decode -> infer -> judge -> sink, one result per frame, in order, bounded in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice

from dapo.errors import OutputError
from dapo.inspection import Evaluation, ResultState
from dapo.pack import ANY_PRODUCT
from pipeline.decode import Limits
from pipeline.inspect import Inspector, Prepared, Preparer, content_hash
from pipeline.ports import Frame, Infer, Result, Sink, Source
from pipeline.prefetch import prefetch
from pipeline.resume import Resumption
from pipeline.rows import outcome, outcome_of_row
from pipeline.summary import FrameOutcome, RunSummary
from schemas.results import ResultRow

ALL_OK, DEFECTS, USAGE, UNREADABLE, OUTPUT_FAILED, INTERRUPTED = 0, 1, 2, 3, 4, 130
_AHEAD_BYTES = 256 * 2**20  # of decoded frames: enough to hide the disk, small beside the model
_FLUSH_S = 5.0  # a killed run loses at most this much work


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run goes.

    Attributes:
        product: all frames are judged as it.
        batch: model inputs per call; part of what makes results repeatable to the last bit.
        limits: of frames, checked before decoding.
        live: the source is a camera: each frame is answered at once.
        limit: stop after so many frames; None takes all.
        flush_s: seconds between two flushes of the sink.
    """

    product: str = ANY_PRODUCT
    batch: int = 8
    limits: Limits = field(default_factory=Limits)
    live: bool = False
    limit: int | None = None
    flush_s: float = _FLUSH_S


def run(
    source: Source,
    infer: Infer,
    sink: Sink,
    summary: RunSummary,
    options: RunOptions | None = None,
    *,
    resumption: Resumption | None = None,
    keep: Callable[[ResultRow], None] | None = None,
    stop: threading.Event | None = None,
    on_frame: Callable[[FrameOutcome], None] | None = None,
    pack_name: str = "",
) -> None:
    """Inspect every frame of a source and count it into `summary`.

    Args:
        resumption: results to take over instead of inspecting again; each is handed to `keep` in its turn.
        stop: once set, the frames under way are finished and the run ends; `summary.interrupted` says so.
        on_frame: called after each result, for progress.
        pack_name: what rows call the pack.

    Raises:
        OutputError: the sink can't write; what it published before stays.
        DapoError: the model can't go on.
    """
    options = options or RunOptions()
    stop = stop or threading.Event()
    preparer = Preparer(infer, options.limits)
    inspector = Inspector(infer, batch=options.batch, live=options.live, pack_name=pack_name)
    last_flush = time.monotonic()

    def count(found: FrameOutcome) -> None:
        summary.add(found)
        if on_frame is not None:
            on_frame(found)

    def write(results: Iterator[Result]) -> None:
        for result in results:
            sink.write(result)
            count(outcome(result))

    work = _work(source, preparer, options, resumption)
    try:
        with closing(_ahead(work, options, stop)) as items:
            for item in items:
                if isinstance(item, Prepared):
                    write(inspector.add(item))
                else:
                    write(inspector.flush())  # frames before it, so that the order of the source is kept
                    assert keep is not None
                    keep(item)
                    summary.reused += 1
                    count(outcome_of_row(item))
                if stop.is_set():
                    break
                if time.monotonic() - last_flush > options.flush_s:
                    sink.flush()
                    last_flush = time.monotonic()
        write(inspector.flush())
        # A camera has no end: to stop it is how its run is finished.
        summary.interrupted = stop.is_set() and not options.live
    except BaseException:
        with suppress(OutputError):  # the first error is the one to tell
            sink.close()
        raise
    sink.close()


def exit_code(summary: RunSummary, *, fail_on_defect: bool) -> int:
    """Exit status of `dapo run`.

    130: stopped before the end. 2: there was no frame at all, which is no good result. 1: under --fail-on-defect, a frame
    is NotOK or lists defect regions. 3: some frames could not be read. 0: else. A found defect is certain whatever else
    could not be read, so 1 goes before 3.
    """
    if summary.interrupted:
        return INTERRUPTED
    if not summary.frames:
        return USAGE
    if fail_on_defect and (summary.with_defects or summary.evaluations[Evaluation.NOT_OK.value]):
        return DEFECTS
    return UNREADABLE if summary.failed else ALL_OK


def _work(
    source: Source, preparer: Preparer, options: RunOptions, resumption: Resumption | None
) -> Iterator[Prepared | ResultRow]:
    """In the prefetch thread: the next frame, decoded, or the row it got already."""
    frames: Iterator[Frame] = islice(source, options.limit)
    for given in frames:
        frame = replace(given, product_id=options.product)
        if resumption is None:
            yield preparer.prepare(frame)
            continue
        sha256 = content_hash(frame)
        row = resumption.find(frame, sha256)
        if row is None:
            resumption.discard(frame)
            yield preparer.prepare(frame, sha256)
        else:
            if row.result_state == ResultState.COMPLETED:
                preparer.passed_over(frame)
            yield row


def _ahead(
    work: Iterator[Prepared | ResultRow], options: RunOptions, stop: threading.Event
) -> Generator[Prepared | ResultRow, None, None]:
    items = 1 if options.live else 2 * options.batch
    return prefetch(work, _weigh, max_items=items, max_bytes=_AHEAD_BYTES, stop=stop)


def _weigh(item: Prepared | ResultRow) -> int:
    return item.weight if isinstance(item, Prepared) else 1024
