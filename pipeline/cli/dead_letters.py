"""`dapo dead-letters`: look at frames that could not be inspected, and send them back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dapo.errors import OutputError, SettingsError
from pipeline.archive.keys import media_of
from pipeline.atomic import write_whole
from pipeline.cli.worker import stopped_by_signals
from pipeline.kafka.outlet import KafkaOutlet
from pipeline.kafka.read import Span, TopicReader
from pipeline.naming import artifact_name
from pipeline.settings import Settings, load
from pipeline.stream.dead_letters import (
    Letter,
    Replayed,
    Selection,
    chosen,
    parse_place,
    printable,
    read_letter,
    replay,
)
from pipeline.stream.durations import hours
from pipeline.stream.topics import Topics

_CODE = typer.Option("", "--code", help="Only with this reason code, such as not-an-image.")
_STAGE = typer.Option("", "--stage", help="Only of this stage: read, decode or judge.")
_CAMERA = typer.Option("", "--camera", help="Only of this camera.")
_SINCE = typer.Option("", "--since", help="Only of the last 90m, 24h, 3d.", show_default="all that are kept")
_BOOTSTRAP = typer.Option(None, "--bootstrap", help="Kafka, host:port.")
_CONFIG = typer.Option(None, "--config", help="TOML file of settings.")
_STOP_S = 10.0


def register(app: typer.Typer) -> None:
    """Add `dead-letters`."""
    letters = typer.Typer(
        help="Frames that could not be inspected: list, show, replay.", no_args_is_help=True
    )
    letters.command(name="list")(list_)
    letters.command(name="show")(show)
    letters.command(name="replay")(replay_)
    app.add_typer(letters, name="dead-letters")


def list_(
    code: str = _CODE,
    stage: str = _STAGE,
    camera: str = _CAMERA,
    since: str = _SINCE,
    limit: int = typer.Option(50, "--limit", min=1, help="The newest, so many at most."),
    bootstrap: str | None = _BOOTSTRAP,
    config: Path | None = _CONFIG,
) -> None:
    """List dead letters with what went wrong, the newest last."""
    settings, selection = _settings(bootstrap, config), Selection(code, stage, camera, since)
    newest: list[Letter] = []
    count = 0
    with TopicReader(settings.kafka) as reader:
        for span in _partitions(reader, settings, selection):
            kept = deque[Letter](maxlen=limit)  # letters without their frames: those may be large
            for letter, _ in chosen(reader.read(span), selection):
                kept.append(letter)
                count += 1
            newest = sorted([*newest, *kept], key=lambda one: one.at)[-limit:]
    _print(newest)
    print(f"{count} dead letters" + (f", the last {limit} shown" if count > limit else ""))


def show(
    place: str = typer.Argument(..., help="Which one: the place that 'list' shows, such as 3/17."),
    out: Path | None = typer.Option(
        None, "--out", help="File for the frame's bytes.", show_default="named after the frame, here"
    ),
    bootstrap: str | None = _BOOTSTRAP,
    config: Path | None = _CONFIG,
) -> None:
    """Print all headers of one dead letter, and write the frame's bytes, as they came, to a file."""
    partition, offset = parse_place(place)
    settings = _settings(bootstrap, config)
    topic = Topics(settings.kafka.prefix).dead_letters
    with TopicReader(settings.kafka) as reader:
        span = reader.span(topic).only(partition, offset, offset + 1)
        record = next(iter(reader.read(span)), None)
    if record is None:
        raise SettingsError(
            f"{place}: {topic} has no such letter (any more). 'dapo dead-letters list' shows them."
        )
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(f"key: {printable(record.key or b'')}")
    for name, value in record.headers:
        console.print(f"{printable(name.encode())}: {printable(value)}")
    if not record.value:
        print("the message has no value: where its image lies is said in ce_dataref")
        return
    letter = read_letter(record)
    path = out or Path(f"{artifact_name(letter.frame_id)}.{media_of(record.value).suffix}")
    if path.exists():
        raise OutputError(f"{path}: is there already. Name another file with --out.")
    with write_whole(path) as file:
        file.write(record.value)
    print(f"{path}: {len(record.value)} bytes")


def replay_(
    code: str = _CODE,
    stage: str = _STAGE,
    camera: str = _CAMERA,
    since: str = _SINCE,
    limit: int | None = typer.Option(None, "--limit", min=1, help="So many at most.", show_default="all"),
    dry_run: bool = typer.Option(False, "--dry-run", help="List what would be sent; send nothing."),
    again: bool = typer.Option(False, "--again", help="Also send what this selection has sent before."),
    bootstrap: str | None = _BOOTSTRAP,
    config: Path | None = _CONFIG,
) -> None:
    """Send frames back to be inspected again. Each is sent once by one selection; a killed replay goes on."""
    settings, selection = _settings(bootstrap, config), Selection(code, stage, camera, since)
    topics, stop = Topics(settings.kafka.prefix), threading.Event()
    total = Replayed()
    with TopicReader(settings.kafka) as reader, stopped_by_signals(stop, _STOP_S):
        spans = list(_partitions(reader, settings, selection))
        if dry_run:
            _rehearse(reader, spans, selection, again, limit)
            return
        for span in spans:
            left = None if limit is None else limit - total.sent
            done = _replay(reader, span, settings, selection, again=again, limit=left, stop=stop)
            total.sent, total.bytes = total.sent + done.sent, total.bytes + done.bytes
            total.before += done.before
    print(
        f"{total.sent} frames sent to {topics.frames} ({total.bytes / 1e6:.1f} MB), "
        f"{total.before} were sent before" + (" (--again sends them once more)" if total.before else "")
    )


def _replay(
    reader: TopicReader,
    span: Span,
    settings: Settings,
    selection: Selection,
    *,
    again: bool,
    limit: int | None,
    stop: threading.Event,
) -> Replayed:
    """Replay one partition."""
    [partition] = span.begin
    name, frames = selection.replay_name(span.topic, partition), Topics(settings.kafka.prefix).frames
    with ExitStack() as held:

        def open_outlet() -> KafkaOutlet:
            outlet = KafkaOutlet(settings.kafka, name, span.topic, stop)
            held.callback(outlet.close)
            return outlet

        records = reader.read(span)
        return replay(records, selection, frames, open_outlet, again=again, limit=limit, stopped=stop.is_set)


def _rehearse(
    reader: TopicReader, spans: list[Span], selection: Selection, again: bool, limit: int | None
) -> None:
    """What a replay would do. Asks for places without taking part: a replay under way is not disturbed."""
    would: list[Letter] = []
    before = 0
    for span in spans:
        [partition] = span.begin
        come_to = reader.committed(selection.replay_name(span.topic, partition), span.topic)
        start = 0 if again else come_to[min(come_to)] or 0  # kept under the first partition, see KafkaOutlet
        for letter, record in chosen(reader.read(span), selection):
            if record.offset < start:
                before += 1
            elif limit is None or len(would) < limit:
                would.append(letter)
    _print(would)
    print(f"{len(would)} frames would be sent, {before} were sent before; nothing was sent")


def _settings(bootstrap: str | None, config: Path | None) -> Settings:
    return load({"kafka.bootstrap": bootstrap}, config).settings


def _partitions(reader: TopicReader, settings: Settings, selection: Selection) -> Iterator[Span]:
    """The dead letters, partition by partition, so that memory holds one frame and order is the same every time."""
    since = datetime.now(UTC) - timedelta(hours=hours(selection.since)) if selection.since else None
    whole = reader.span(Topics(settings.kafka.prefix).dead_letters, since)
    for partition in sorted(whole.begin):
        yield whole.only(partition)


def _print(letters: list[Letter]) -> None:
    table = Table(
        "place",
        "time",
        "camera",
        "frame",
        "stage",
        "code",
        "sent again",
        "bytes",
        "why",
        box=None,
        pad_edge=False,
    )
    for one in letters:
        when = f"{one.at:%Y-%m-%d %H:%M:%S}"
        texts = (
            one.place,
            when,
            one.camera,
            one.frame_id,
            one.stage,
            one.code,
            str(one.attempt),
            str(one.size),
            one.message,
        )
        table.add_row(*(Text(text) for text in texts))
    Console().print(table)
