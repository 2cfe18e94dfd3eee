"""`dapo parts`: the views of a part to its one verdict."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import typer
from rich.console import Console

from dapo.errors import ServiceUnavailable, SettingsError
from pipeline.cli.worker import stopped_by_signals
from pipeline.kafka.read import TopicReader
from pipeline.kafka.whole import open_whole
from pipeline.settings import Settings, load
from pipeline.stream.durations import hours
from pipeline.stream.health import serve
from pipeline.stream.joining import MAX_VIEWS, Joiner, Key
from pipeline.stream.logs import structured
from pipeline.stream.parts import ANY_PRODUCT, Parts, keys_of
from pipeline.stream.patience import patiently
from pipeline.stream.slots import Slot
from pipeline.stream.topics import Topics

_SLOT = "whole"  # there is one: whoever comes next takes over its open transaction


def register(app: typer.Typer) -> None:
    """Add `parts`."""

    @app.command()
    def parts(
        timeout: float = typer.Option(
            30.0, "--timeout", min=0.1, help="Seconds that a part waits for its views."
        ),
        views: list[str] = typer.Option(
            [],
            "--views",
            help="Views of a part where no frame says it: 2, or PRODUCT=4. May be given several times.",
        ),
        remember: str = typer.Option(
            "6h", "--remember", help="How long after its verdict a part's late views are known."
        ),
        group: str = typer.Option("parts", "--group", help="Consumer group."),
        metrics_port: int | None = typer.Option(
            None, "--metrics-port", min=0, max=65535, help="Port of /metrics."
        ),
        metrics_host: str | None = typer.Option(None, "--metrics-host", help="Address of /metrics."),
        bootstrap: str | None = typer.Option(None, "--bootstrap", help="Kafka, host:port."),
        config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
    ) -> int:
        """Publish one verdict per part, the worst of its views, exactly once, until SIGTERM or Ctrl-C.

        One process for all lines. Exit status: 0 stopped, 2 a setting or topic is wrong or another one runs, 5 fenced.
        """
        settings = load({"kafka.bootstrap": bootstrap, "worker.metrics_host": metrics_host}, config).settings
        errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
        structured()
        stop = threading.Event()
        with stopped_by_signals(stop, settings.worker.shutdown_s):
            with joining(
                settings, stop, group, timeout, parse_views(views), remember, metrics_port, errors
            ) as one:
                done = one.run()
            errors.print(
                f"stopped: {done.parts} parts, {done.incomplete} lacked a view, {done.late} views were late; "
                "parts that still waited are taken up by the next"
            )
        return 0


@contextmanager
def joining(
    settings: Settings,
    stop: threading.Event,
    group: str,
    timeout_s: float,
    views: dict[str, int],
    remember: str,
    metrics_port: int | None,
    errors: Console,
) -> Iterator[Parts]:
    """The joiner of parts as configured, ready to run; everything it opened is closed behind it.

    Raises:
        SettingsError, LogRefused: what can't be mended by waiting.
        ServiceUnavailable: `stop` was set while the broker was waited for.
    """
    topics, memory = Topics(settings.kafka.prefix), timedelta(hours=hours(remember))

    def wait(error: ServiceUnavailable) -> None:
        errors.print(f"waiting: {error}")

    with ExitStack() as held:
        held.enter_context(Slot(group, _SLOT))
        reader = patiently(lambda: TopicReader(settings.kafka, f"{group}-read-back"), stop, wait)
        held.callback(reader.close)
        patiently(lambda: reader.span(topics.parts), stop, wait)  # a verdict must have somewhere to go

        def published(since: datetime) -> Iterable[tuple[Key, datetime]]:
            return patiently(lambda: list(keys_of(reader.read(reader.span(topics.parts, since)))), stop, wait)

        log = patiently(lambda: open_whole(settings.kafka, topics.results, group, _SLOT), stop, wait)
        held.callback(log.close)
        one = Parts(
            log,
            topics.parts,
            published,
            whole=log.whole,
            joiner=Joiner(timeout_s),
            views=views,
            remember=memory,
            stop=stop,
        )
        serve(
            held, metrics_port, settings.worker.metrics_host, one.metrics.registry, one.missing, errors.print
        )
        errors.print(f"parts: views of {topics.results} to {topics.parts}, each waits {timeout_s:g} s")
        yield one


def parse_views(given: Sequence[str]) -> dict[str, int]:
    """Product -> views of ["2", "bottle=4"].

    >>> parse_views(["2", "bottle=4"])
    {'*': 2, 'bottle': 4}

    Raises:
        SettingsError: one of them is no such thing.
    """
    found: dict[str, int] = {}
    for text in given:
        product, _, number = text.rpartition("=")
        if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= MAX_VIEWS:
            raise SettingsError(
                f"--views: '{text}' is no number of views, 1 to {MAX_VIEWS}. Write 2, or bottle=4."
            )
        found[product or ANY_PRODUCT] = int(number)
    return found
