"""`dapo label` and `dapo labels`: what people say of results, for training."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dapo.pack_io import read_pack
from pipeline.bundled import default_pack_path
from pipeline.cli.label_sync import sync
from pipeline.cli.worker import stopped_by_signals
from pipeline.decode import Limits
from pipeline.kafka.outlet import KafkaOutlet
from pipeline.kafka.read import TopicReader
from pipeline.settings import Settings, load
from pipeline.stream.label_file import read_labels
from pipeline.stream.labels import Checker, label_message
from pipeline.stream.topics import Topics
from schemas.codec import SchemaError, decode
from schemas.labels import LabelRow, in_force

_PACK = typer.Option(
    None, "--pack", help="Prompt pack whose types are known.", show_default="the bundled one"
)
_BOOTSTRAP = typer.Option(None, "--bootstrap", help="Kafka, host:port.")
_CONFIG = typer.Option(None, "--config", help="TOML file of settings.")
_STOP_S = 10.0
_BATCH = 500  # labels of one transaction


def register(app: typer.Typer) -> None:
    """Add `label` and `labels`."""
    app.command(name="label")(label)
    labels = typer.Typer(help="Import, list and keep labels.", no_args_is_help=True)
    labels.command(name="import")(import_)
    labels.command(name="list")(list_)
    labels.command(name="sync")(sync)
    app.add_typer(labels, name="labels")


def label(
    result_id: str = typer.Argument(..., help="The result it is about."),
    type_: str = typer.Argument(
        ..., metavar="TYPE|good", help="Slug of the defect's type, 'unknown' or 'good'."
    ),
    mask: Path | None = typer.Option(
        None, "--mask", help="PNG of the frame's size, not 0 where the defect is."
    ),
    author: str | None = typer.Option(None, "--author", help="Who says so."),
    comment: str | None = typer.Option(None, "--comment", help="Free text."),
    supersedes: str | None = typer.Option(None, "--supersedes", help="Label id that this one replaces."),
    pack: Path | None = _PACK,
    bootstrap: str | None = _BOOTSTRAP,
    config: Path | None = _CONFIG,
) -> None:
    """Say what a result really shows; prints the label's id."""
    settings = load({"kafka.bootstrap": bootstrap, "pack.path": pack}, config).settings
    row = _checker(settings).label(
        result_id,
        type_,
        datetime.now(UTC),
        "cli",
        mask=mask,
        author=author,
        comment=comment,
        supersedes=supersedes,
    )
    _write(settings, f"dapo-label-{row.label_id}", [row])
    print(row.label_id)


def import_(
    file: Path = typer.Argument(..., help="CSV or JSON lines: result_id, label, mask, author, comment, ..."),
    pack: Path | None = _PACK,
    bootstrap: str | None = _BOOTSTRAP,
    config: Path | None = _CONFIG,
) -> None:
    """Import labels: all of the file or, where one is wrong, none. The same file again writes nothing twice."""
    settings = load({"kafka.bootstrap": bootstrap, "pack.path": pack}, config).settings
    labels = read_labels(file, _checker(settings), datetime.now(UTC))
    written = _write(settings, f"dapo-labels-{labels.digest[:24]}", labels.rows)
    print(f"{written} labels written, {len(labels.rows) - written} of this file were there already")


def list_(
    result: str = typer.Option("", "--result", help="Only of this result."),
    author: str = typer.Option("", "--author", help="Only of this author."),
    all_: bool = typer.Option(False, "--all", help="Also labels that a later one replaces or takes back."),
    limit: int = typer.Option(50, "--limit", min=1, help="The newest, so many at most."),
    bootstrap: str | None = _BOOTSTRAP,
    config: Path | None = _CONFIG,
) -> None:
    """List labels, the newest last."""
    settings = load({"kafka.bootstrap": bootstrap}, config).settings
    found: list[LabelRow] = []
    with TopicReader(settings.kafka) as reader:
        for record in reader.read(reader.span(Topics(settings.kafka.prefix).labels)):
            try:
                found += decode(record.value, LabelRow)
            except SchemaError:
                continue  # written by somebody else
    rows = found if all_ else [row for labels in in_force(found).values() for row in labels]
    chosen = [r for r in rows if (not result or r.result_id == result) and (not author or r.author == author)]
    table = Table(
        "time", "result", "label", "mask", "author", "comment", "label id", box=None, pad_edge=False
    )
    for row in deque(sorted(chosen, key=lambda r: r.labelled_at), maxlen=limit):
        size = "x".join(str(side) for side in reversed(row.mask["size"])) if row.mask else ""
        texts = (row.result_id, row.label, size, row.author or "", row.comment or "", row.label_id)
        table.add_row(f"{row.labelled_at:%Y-%m-%d %H:%M:%S}", *(Text(text) for text in texts))
    Console().print(table)
    print(f"{len(chosen)} labels")


def _checker(settings: Settings) -> Checker:
    pack = read_pack(settings.pack.path or default_pack_path())
    return Checker.of(pack, Limits(max_bytes=settings.run.max_bytes, max_pixels=settings.run.max_pixels))


def _write(settings: Settings, name: str, rows: Sequence[LabelRow]) -> int:
    """Write what is not there yet of labels that are always given in the same order under one name."""
    topic, stop = Topics(settings.kafka.prefix).labels, threading.Event()
    with stopped_by_signals(stop, _STOP_S):
        outlet = KafkaOutlet(settings.kafka, name, topic, stop)
        try:
            start = min(outlet.position(), len(rows))
            for first in range(start, len(rows), _BATCH):
                batch = rows[first : first + _BATCH]
                outlet.write([label_message(row, topic) for row in batch], first + len(batch))
        finally:
            outlet.close()
    return len(rows) - start
