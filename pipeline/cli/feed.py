"""`dapo feed`: a folder, video or camera onto the frames topic."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

import typer

from pipeline.cli import terminal
from pipeline.cli.worker import stopped_by_signals
from pipeline.decode import Limits
from pipeline.progress import counted
from pipeline.settings import load
from pipeline.sources import open_source
from pipeline.sources.camera import CameraSource

_STOP_S = 10.0


def register(app: typer.Typer) -> None:
    """Add `feed`."""

    @app.command()
    def feed(
        source: list[str] = typer.Argument(
            None, help="File, folder, glob, video or camera; as for 'dapo run'."
        ),
        camera: str = typer.Option(
            "", "--camera", help="Camera id; frames of one keep their order.", show_default="from the source"
        ),
        product: str = typer.Option("*", "--product", help="Product of the frames."),
        line: str = typer.Option("", "--line", help="Line id."),
        station: str = typer.Option("", "--station", help="Station id."),
        job: str = typer.Option("", "--job", help="Job id."),
        rate: float | None = typer.Option(
            None, "--rate", min=0.001, help="Frames per second.", show_default="as fast as taken"
        ),
        simulated: bool = typer.Option(False, "--simulated", help="Mark the frames as simulated."),
        name: str = typer.Option(
            "",
            "--name",
            help="Of this feeder, dapo-feed-...: its position is kept under it.",
            show_default="from source, camera and host; none is kept for a pipe",
        ),
        list_file: str | None = typer.Option(None, "--list", help="File with one path a line; - is stdin."),
        bootstrap: str | None = typer.Option(None, "--bootstrap", help="Kafka, host:port."),
        config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
    ) -> int:
        """Feed frames to Kafka, each once. Stopped or killed, the same command goes on behind the last frame.

        Exit status: 0 fed or stopped, 2 a setting, topic or the source is wrong, 5 another process feeds under this name.
        """
        settings = load({"kafka.bootstrap": bootstrap}, config).settings
        errors = terminal.errors()
        # Sizes are the worker's to judge: what it refuses gets its row and its dead letter, what is refused here has none.
        limits = Limits(max_bytes=settings.run.max_bytes, max_pixels=settings.run.max_pixels)
        opened = open_source(
            list(source or ()), list_file, limits, lambda *skipped: None, stall_s=settings.run.camera_stall_s
        )
        from pipeline.kafka.outlet import KafkaOutlet
        from pipeline.store.open import open_store
        from pipeline.stream.feed import Fed, Feeder, Tags, claimed, feeder_name, passing_name
        from pipeline.stream.topics import Topics

        topics, stop = Topics(settings.kafka.prefix), threading.Event()
        tags = Tags(camera or opened.name, product, line, station, job, simulated)
        store = open_store(settings.store) if settings.store.endpoint else None
        own = name or (feeder_name(opened.place, tags) if opened.again else passing_name())
        fed = Fed()
        with ExitStack() as held:
            held.enter_context(stopped_by_signals(stop, _STOP_S))
            held.callback(opened.source.close)
            outlet = KafkaOutlet(settings.kafka, own, topics.frames, stop)
            held.callback(outlet.close)
            feeder = Feeder(
                outlet,
                topics.frames,
                tags,
                rate=rate,
                max_bytes=settings.kafka.max_message_bytes,
                claim=None if store is None else claimed(store, settings.store.bucket, stop),
            )
            with counted(errors, opened.source.total) as on_frame:
                fed = feeder.run(opened.source, stop, live=opened.live, on_frame=on_frame)
        print(
            f"{fed.frames} frames fed to {topics.frames} ({fed.bytes / 1e6:.1f} MB), {fed.skipped} were there already, "
            f"{fed.claims} lie in the store, {fed.unreadable} can't be read"
            + (f", {fed.too_large} are too large for a message (set store.endpoint)" if fed.too_large else "")
        )
        if isinstance(opened.source, CameraSource):
            print(
                f"camera: {opened.source.reconnects} times opened again, {opened.source.dropped} frames passed over"
            )
        return 0
