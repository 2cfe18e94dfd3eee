"""`dapo watch`: verdicts on a terminal, as they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.live import Live

from pipeline.cli.worker import stopped_by_signals
from pipeline.kafka.read import TopicReader
from pipeline.ports import Record
from pipeline.settings import load
from pipeline.stream.topics import Topics
from pipeline.stream.watch import Board, Wanted, plain
from schemas.codec import SchemaError, decode
from schemas.results import ResultRow
from schemas.status import StatusRow

_STOP_S = 5.0
_BEATS = 200  # of the past, so that a line that has just died is shown as dead
_REDRAW_S = 0.25


def register(app: typer.Typer) -> None:
    """Add `watch`."""

    @app.command()
    def watch(
        line: str = typer.Option("", "--line", help="Only this line."),
        camera: str = typer.Option("", "--camera", help="Only this camera."),
        only: list[str] = typer.Option(
            [], "--only", help="Only this evaluation: NotOK. May be given several times."
        ),
        rows: int = typer.Option(
            20, "--rows", min=0, help="Verdicts on the screen; begins with the last ones."
        ),
        plain_: bool = typer.Option(
            False, "--plain", help="One line a verdict, tabs between fields, for pipes."
        ),
        max_: int | None = typer.Option(
            None, "--max", min=1, help="End after so many.", show_default="never"
        ),
        bootstrap: str | None = typer.Option(None, "--bootstrap", help="Kafka, host:port."),
        config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
    ) -> None:
        """Show verdicts as they come, how many of each kind, and which lines live. Ends with Ctrl-C."""
        settings = load({"kafka.bootstrap": bootstrap}, config).settings
        wanted, topics, stop = (
            Wanted(line, camera, tuple(only)),
            Topics(settings.kafka.prefix),
            threading.Event(),
        )
        board = Board(wanted, rows)
        with TopicReader(settings.kafka, "dapo-watch") as reader, stopped_by_signals(stop, _STOP_S):
            screen = _lines() if plain_ else _screen(board)
            with screen as show:
                for records in _arriving(reader, topics, rows, stop):
                    for row in _taken(records, topics, board):
                        show(row)
                        if max_ is not None and board.shown >= max_:
                            return
                    show(None)


def _arriving(
    reader: TopicReader, topics: Topics, rows: int, stop: threading.Event
) -> Iterator[list[Record]]:
    """The last records of both topics in the order of their time, then what comes."""
    results, status = reader.span(topics.results), reader.span(topics.status)
    # Every transaction takes one offset for its end, and may hold a single row.
    past = [*reader.read(results.last(2 * rows)), *reader.read(status.last(_BEATS))]
    beats = [record for record in past if record.topic == topics.status]
    verdicts = sorted((r for r in past if r.topic == topics.results), key=lambda one: one.timestamp)
    yield [*beats, *verdicts[len(verdicts) - rows if len(verdicts) > rows else 0 :]]
    yield from reader.follow([results, status], stop)


def _taken(records: Iterable[Record], topics: Topics, board: Board) -> Iterator[ResultRow]:
    """Verdicts that are wanted; beats go to the board. What is no row of the contract is passed over."""
    for record in records:
        try:
            if record.topic == topics.status:
                for beat in decode(record.value, StatusRow):
                    board.beat(beat)
            else:
                yield from (row for row in decode(record.value, ResultRow) if board.add(row))
        except SchemaError:
            continue


Show = Callable[[ResultRow | None], None]


@contextmanager
def _lines() -> Iterator[Show]:
    def show(row: ResultRow | None) -> None:
        if row is not None:
            print(plain(row), flush=True)

    yield show


@contextmanager
def _screen(board: Board) -> Iterator[Show]:
    """The board, redrawn some times a second; its last state stays."""
    drawn = float("-inf")
    # Drawn by this thread alone, which also changes the board.
    with Live(console=Console(), auto_refresh=False) as live:

        def show(row: ResultRow | None) -> None:
            nonlocal drawn
            now = time.monotonic()
            if now - drawn >= _REDRAW_S:
                drawn = now
                live.update(board.render(datetime.now(UTC)), refresh=True)

        try:
            yield show
        finally:
            live.update(board.render(datetime.now(UTC)), refresh=True)
