"""`dapo labels sync`: what people say of results, from its topic to a table in the bucket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import typer

from dapo.errors import LogRefused
from pipeline.archive.labels import LABELS
from pipeline.cli import terminal
from pipeline.cli.worker import stopped_by_signals
from pipeline.kafka.read import TopicReader
from pipeline.kafka.whole import open_whole
from pipeline.settings import Settings, load
from pipeline.store.open import open_store
from pipeline.stream.health import serve
from pipeline.stream.label_sync import LabelMetrics, LabelSync
from pipeline.stream.logs import structured
from pipeline.stream.slots import Slot
from pipeline.stream.standing import Standing
from pipeline.stream.topics import Topics


def sync(
    once: bool = typer.Option(False, "--once", help="End where the topic ends now."),
    metrics_port: int | None = typer.Option(
        None, "--metrics-port", min=0, max=65535, help="Port of /metrics, /healthz, /readyz."
    ),
    metrics_host: str | None = typer.Option(None, "--metrics-host", help="Address of these."),
    bootstrap: str | None = typer.Option(None, "--bootstrap", help="Kafka, host:port."),
    config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
) -> int:
    """Keep all labels in a table beside the archive's manifest, at its own pace, until SIGTERM.

    Exit status: 0 stopped or done, 2 a setting, topic or the store's access is wrong.
    """
    settings = load({"kafka.bootstrap": bootstrap, "worker.metrics_host": metrics_host}, config).settings
    errors, stop = terminal.errors(), threading.Event()
    structured()
    with stopped_by_signals(stop, settings.worker.shutdown_s):
        with syncing(settings, stop, errors.print, once=once, metrics_port=metrics_port) as loop:
            done = loop.run()
        errors.print(f"{done.labels} labels copied, {done.unreadable} messages were no labels")
    return 0


@contextmanager
def syncing(
    settings: Settings,
    stop: threading.Event,
    say: Callable[[str], None],
    *,
    once: bool = False,
    metrics_port: int | None = None,
) -> Iterator[LabelSync]:
    """The copy as configured, ready to run; everything it opened is closed behind it.

    Args:
        once: end where the topic ends now.
        metrics_port: of /metrics, /healthz and /readyz; None: off.

    Raises:
        SettingsError, LogRefused, StoreError: what can't be mended by waiting.
        ServiceUnavailable: `stop` was set while something was waited for.
    """
    own, topic = settings.archive, Topics(settings.kafka.prefix).labels
    store = open_store(settings.store)
    with ExitStack() as held:
        held.callback(store.close)
        slot = held.enter_context(Slot(own.labels_group)).name
        metrics, standing = LabelMetrics(), Standing(stop, say)
        missing = standing.missing
        serve(
            held, metrics_port, settings.worker.metrics_host, metrics.registry, lambda: missing(), say
        )  # what `missing` is by then
        ends = standing.until("broker", lambda: _ends(settings, topic)) if once else {}
        log = standing.until("broker", lambda: open_whole(settings.kafka, topic, own.labels_group, slot))

        def done() -> bool:
            if once and log.whole() is False:
                raise LogRefused(
                    f"topic {topic}: another 'dapo labels sync' of group {own.labels_group} copies some of it. "
                    "Stop it, or leave all to it."
                )
            return once and log.past(ends)

        loop = LabelSync(
            log,
            store,
            batch=own.batch,
            batch_s=own.batch_s,
            metrics=metrics,
            standing=standing,
            stop=stop,
            done=done,
        )
        missing = loop.missing
        say(f"labels of {topic} to s3://{store.bucket}/{LABELS}/")
        yield loop


def _ends(settings: Settings, topic: str) -> dict[int, int]:
    with TopicReader(settings.kafka) as reader:
        return dict(reader.span(topic).end)
