"""`dapo models shadow`: a challenger beside the champion on live frames."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from dapo.errors import ServiceUnavailable, SettingsError
from dapo.pack import Pack
from pipeline.cli.terminal import errors, output
from pipeline.cli.worker import stopped_by_signals
from pipeline.decode import Limits
from pipeline.kafka.frames import FrameReader
from pipeline.kafka.read import TopicReader
from pipeline.ports import Infer, Record
from pipeline.registry.lease import leased, operator
from pipeline.registry.registry import Registry
from pipeline.registry.shadow import Shadow
from pipeline.settings import Settings, load
from pipeline.store.open import open_store
from pipeline.stream import compose
from pipeline.stream.topics import Topics
from pipeline.triton.client import TritonInfer
from pipeline.triton.open import address_of, placement_of
from pipeline.triton.window import Patience
from schemas.codec import SchemaError, decode_results
from schemas.results import ResultRow
from triton_models.contract import CHALLENGER
from triton_models.deploy import deploy
from triton_models.server import ModelServer

_STOP_S = 5.0
_MINUTE_S = 60.0


def shadow(
    pack: str = typer.Argument("challenger", help="Challenger, previous, or the first digits of a hash."),
    frames: int | None = typer.Option(None, "--frames", min=1, help="End after so many that were compared."),
    minutes: float | None = typer.Option(None, "--minutes", help="End after so long."),
    config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
) -> None:
    """Let a challenger inspect what the line inspects, beside it, and compare. Publishes nothing.

    Begins with the next verdict. On the model server it runs as a second ensemble, without one in this process. The last
    line is one JSON object.
    """
    if frames is None and minutes is None:
        raise SettingsError("give --frames N or --minutes M: a shadow run has an end.")
    settings, stop = load({}, config).settings, threading.Event()
    with stopped_by_signals(stop, _STOP_S):
        champion, challenger, said = shadowed(settings, pack, stop, frames, minutes)
    _tell(said)
    print(json.dumps({"champion": champion, "challenger": challenger, **said}))


def shadowed(
    settings: Settings, name: str, stop: threading.Event, frames: int | None, minutes: float | None
) -> tuple[str, str, dict[str, Any]]:
    """Run a shadow until so many frames are compared, so long, or until `stop` is set.

    Args:
        name: of the challenger, as `Registry.find` knows it.

    Returns:
        Configuration hashes of champion and challenger, and what was seen (`Agreement.report`).

    Raises:
        DapoError: the registry, a server or the store can't be asked.
    """
    topics = Topics(settings.kafka.prefix)
    with ExitStack() as held:
        models = open_store(settings.store, settings.store.models_bucket)
        images = open_store(settings.store)
        held.callback(models.close)
        held.callback(images.close)
        registry = Registry(models)
        champion, challenger = registry.champion(), registry.pack(registry.find(name))
        reader = held.enter_context(TopicReader(settings.kafka, "dapo-shadow"))
        joined = FrameReader(settings.kafka, topics.frames)
        held.callback(joined.close)
        limits = Limits(max_bytes=settings.run.max_bytes, max_pixels=settings.run.max_pixels)
        run = Shadow(
            champion.configuration_hash,
            held.enter_context(_served(settings, registry, champion, challenger)),
            joined.read,
            compose.fetch_from(images, settings.store.bucket, limits),
            limits,
        )
        if minutes is not None:
            timer = threading.Timer(minutes * _MINUTE_S, stop.set)
            timer.daemon = True
            timer.start()
            held.callback(timer.cancel)
        for records in reader.follow([reader.span(topics.results)], stop):
            if run.look(_rows(records), frames):
                break
    return champion.configuration_hash, challenger.configuration_hash, run.agreement.report()


@contextmanager
def _served(settings: Settings, registry: Registry, champion: Pack, challenger: Pack) -> Iterator[Infer]:
    """The challenger ready to be asked. Afterwards its ensemble is gone; its models stay loaded until the next push."""
    if not settings.triton.url:
        infer = compose.open_model(settings, challenger)
        try:
            yield infer
        finally:
            infer.close()
        return
    address = address_of(settings.triton)
    previous = registry.pointers().previous
    keep = [champion] if previous is None else [champion, registry.pack(previous)]
    patience = Patience(settings.triton.deadline_s, window=settings.triton.window)
    try:
        # Not while somebody promotes: each push replaces what the other has loaded.
        with leased(registry, challenger.configuration_hash, operator()), ModelServer(address) as server:
            deploy(server, challenger, keep, placement_of(settings.triton), ensemble=CHALLENGER)
        client = TritonInfer(challenger, address, patience, ensemble=CHALLENGER)
        try:
            yield client
        finally:
            client.close()
    finally:
        try:
            with ModelServer(address) as server:
                server.unload(CHALLENGER)
        except ServiceUnavailable as error:  # what was seen is told all the same
            errors().print(f"{CHALLENGER} may still be there: {error}")


def _rows(records: list[Record]) -> Iterator[ResultRow]:
    for record in records:
        try:
            yield from decode_results(record.value)
        except SchemaError:
            continue  # somebody else's message


def _tell(said: dict[str, Any]) -> None:
    console = output()
    names = list(said["table"])
    others = sorted({other for row in said["table"].values() for other, count in row.items() if count})
    table = Table("champion \\ challenger", *others, box=None, pad_edge=False)
    for name in names:
        table.add_row(name, *(str(said["table"][name][other]) for other in others))
    console.print(table)
    for change in said["changed"][:20]:
        console.print(f"{change['frame_id']}: {change['champion']} -> {change['challenger']}")
    console.print(
        f"{said['frames']} frames, agreement {said['agreement']}, other types on {said['types_changed']}, "
        f"rank correlation {said['rank_correlation']}, ms {said['challenger_ms']} (champion {said['champion_ms']})"
    )
