"""`dapo worker`: frames of a topic to verdicts on topics, day and night."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer

from dapo.errors import ServiceUnavailable
from pipeline.cli import terminal
from pipeline.settings import load
from pipeline.stream.logs import structured


def register(app: typer.Typer) -> None:
    """Add `worker`."""

    @app.command()
    def worker(
        pack: Path | None = typer.Option(None, "--pack", help="Prompt pack.", show_default="the bundled one"),
        follow: bool | None = typer.Option(
            None, "--follow", help="Judge with the registry's champion, whichever that is."
        ),
        group: str | None = typer.Option(
            None, "--group", help="Consumer group: its workers share the frames."
        ),
        slot: str | None = typer.Option(
            None, "--slot", help="Stable name of this worker.", show_default="first free"
        ),
        bootstrap: str | None = typer.Option(None, "--bootstrap", help="Kafka, host:port."),
        triton: str | None = typer.Option(None, "--triton", help="Model server, host:port of gRPC."),
        batch: int | None = typer.Option(None, "--batch", help="Model inputs per batch."),
        threads: int | None = typer.Option(None, "--threads", help="CPU threads of a model in this process."),
        metrics_port: int | None = typer.Option(
            None, "--metrics-port", help="Port of /metrics, /healthz, /readyz."
        ),
        config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
    ) -> int:
        """Inspect frames from Kafka and publish each verdict exactly once, until SIGTERM or Ctrl-C.

        Exit status: 0 stopped, 2 a setting or topic is wrong, 5 another process runs under the same slot.
        """
        given = {
            "pack.path": pack,
            "pack.follow": follow,
            "worker.group": group,
            "worker.slot": slot,
            "worker.metrics_port": metrics_port,
            "kafka.bootstrap": bootstrap,
            "triton.url": triton,
            "run.batch": batch,
            "model.threads": threads,
        }
        settings = load(given, config).settings
        errors = terminal.errors()
        structured()
        from pipeline.stream import compose
        from pipeline.stream.worker import SWITCH_INTERVAL_S

        sys.setswitchinterval(SWITCH_INTERVAL_S)
        stop = threading.Event()
        with (
            stopped_by_signals(stop, settings.worker.shutdown_s),
            compose.worker(settings, stop, errors.print) as one,
        ):
            one.run()
        errors.print("stopped; what was not committed is inspected by the next worker")
        return 0


@contextmanager
def stopped_by_signals(stop: threading.Event, deadline_s: float) -> Iterator[None]:
    """SIGTERM and Ctrl-C set `stop`, and end what waits for a server that is away.

    A process that then hangs (in a broker that is gone) ends by itself a little later. Nothing is lost by that:
    an open transaction is undone by the broker.
    """

    def ask(number: int, _frame: FrameType | None) -> None:
        if not stop.is_set():
            stop.set()
            watchdog.start()

    def give_up() -> None:
        logging.getLogger(__name__).error(
            "still waiting for the broker after the deadline: ending without it"
        )
        sys.stderr.flush()
        signal.raise_signal(signal.SIGKILL)

    watchdog = threading.Timer(deadline_s + _GRACE_S, give_up)
    watchdog.daemon = True
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except ServiceUnavailable:
        if not stop.is_set():
            raise
    finally:
        watchdog.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


_GRACE_S = 10.0  # after `shutdown_s`: to leave the group and close connections
