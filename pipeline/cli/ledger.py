"""`dapo ledger`: count again, from the topics themselves, that nothing is lost and nothing is doubled."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.kafka.read import TopicReader
from pipeline.settings import load
from pipeline.stream.durations import hours
from pipeline.stream.recount import Account, Recount, totals
from pipeline.stream.topics import Topics

# A row is written after its frame, but perhaps by a clock that is behind that of the frame's broker.
_CLOCKS = timedelta(minutes=10)
_SETTLED_S, _AGAIN_S = 3.0, 0.2  # what is not there by then is missing


def register(app: typer.Typer) -> None:
    """Add `ledger`."""

    @app.command()
    def ledger(
        since: str = typer.Option(
            "", "--since", help="Only frames of the last 90m, 24h, 3d.", show_default="all that are kept"
        ),
        group: str | None = typer.Option(None, "--group", help="Consumer group of the workers."),
        as_json: bool = typer.Option(
            False, "--json", help="The totals as one JSON object, on the last line."
        ),
        bootstrap: str | None = typer.Option(None, "--bootstrap", help="Kafka, host:port."),
        config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
    ) -> int:
        """Recount frames, rows, dead letters and defects per camera; exit status 1 where they do not balance.

        Reads every frame of the stretch, images too, and needs 100 MB of memory for a million of them: on a large topic,
        give --since. May run beside the workers: frames that they have not come to are counted as waiting.
        """
        settings = load({"kafka.bootstrap": bootstrap, "worker.group": group}, config).settings
        start = datetime.now(UTC) - timedelta(hours=hours(since)) if since else None
        with TopicReader(settings.kafka) as reader:
            count = recount(reader, Topics(settings.kafka.prefix), settings.worker.group, start)
        accounts = count.cameras()
        _print(accounts)
        said = totals(accounts, count.unreadable)
        print("balanced" if said["balanced"] else f"not balanced: {_blame(accounts, count.unreadable)}")
        if as_json:
            print(json.dumps(said))
        return 0 if said["balanced"] else 1


def recount(reader: TopicReader, topics: Topics, group: str, since: datetime | None = None) -> Recount:
    """Count all topics of a stream.

    What the workers have come to is asked first and the ends of the results last, so that each frame that is due has its
    row among those that are read.

    Args:
        group: of the workers. Where it has read nothing, every frame is due.
        since: only frames written from then on.
    """
    frames = reader.span(topics.frames, since)
    come_to = reader.committed(group, topics.frames)
    known = any(offset is not None for offset in come_to.values())
    count = Recount({number: offset or 0 for number, offset in come_to.items()} if known else None)
    for record in reader.read(frames):
        count.frame(record)
    written = None if since is None else since - _CLOCKS
    defects = sorted(name for name in reader.topics() if name.startswith(topics.defects("")))
    takers = {topics.results: count.result, topics.dead_letters: count.dead_letter}
    takers |= dict.fromkeys(defects, count.defect)
    spans = {name: reader.span(name, written) for name in takers}
    deadline = time.monotonic() + _SETTLED_S
    while True:
        for name, take in takers.items():
            for record in reader.read(spans[name]):
                take(record)
        if totals(count.cameras(), count.unreadable)["balanced"] or time.monotonic() > deadline:
            return count
        # A transaction that ends just now shows its offsets first and its rows a moment later.
        time.sleep(_AGAIN_S)
        spans = {name: reader.span(name).after(span) for name, span in spans.items()}


_COLUMNS = {
    "frames": "frames",
    "again": "fed_again",
    "waiting": "waiting",
    "rows": "rows",
    "Completed": "completed",
    "Failed": "failed",
    "Aborted": "aborted",
    "missing": "missing",
    "doubled": "doubled",
    "dead letters": "dead_letters",
    "defects": "listed",
    "astray": "astray",
    "gaps": "gaps",
}


def _print(accounts: dict[str, Account]) -> None:
    table = Table("camera", box=None, pad_edge=False)
    for title in _COLUMNS:
        table.add_column(title, justify="right")
    for name, account in accounts.items():
        cells = (str(getattr(account, column)) for column in _COLUMNS.values())
        table.add_row(Text(name or "(unreadable)"), *cells, style=None if account.balanced else "red")
    Console().print(table)


def _blame(accounts: dict[str, Account], unreadable: int) -> str:
    total = Account()
    for account in accounts.values():
        total.add(account)
    wrong = {
        "frames without a row": total.missing,
        "rows too many": total.doubled,
        "dead letters and Failed rows without each other": total.unmatched,
        "defects listed and not published, or the other way round": total.astray,
        "messages that can't be read": unreadable,
    }
    return ", ".join(f"{number} {what}" for what, number in wrong.items() if number)
