"""Progress of a run in a terminal: frames, rate, time left. Without a terminal it stays silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.summary import FrameOutcome


@contextmanager
def shown(console: Console, total: int | None) -> Iterator[Callable[[FrameOutcome], None]]:
    """A bar while the block lasts; call what it gives with each frame.

    Args:
        total: number of frames; None where it is not known (a camera): the bar only moves.
    """
    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[found]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, rate="", found="")
        defects = failed = 0

        def advance(outcome: FrameOutcome) -> None:
            nonlocal defects, failed
            defects += bool(outcome.types)
            failed += bool(outcome.dead_letter)
            speed = progress.tasks[0].speed
            found = f"{defects} with defects" + (f", {failed} unreadable" if failed else "")
            progress.update(task, advance=1, rate=f"{speed:.1f}/s" if speed else "", found=found)

        yield advance


@contextmanager
def counted(console: Console, total: int | None) -> Iterator[Callable[[object], None]]:
    """A bar that only counts; call what it gives with each thing that is done."""
    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, rate="")

        def advance(_done: object) -> None:
            speed = progress.tasks[0].speed
            progress.update(task, advance=1, rate=f"{speed:.1f}/s" if speed else "")

        yield advance
