"""`dapo drift`: does a line still look as it did when its pack was made?"""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from pipeline.cli.terminal import errors, output
from pipeline.cli.worker import stopped_by_signals
from pipeline.registry.registry import Registry
from pipeline.settings import load
from pipeline.store.open import open_store
from pipeline.stream.health import serve
from pipeline.stream.logs import structured

if TYPE_CHECKING:
    from trainer.drift.watch import Looking

HELP = """Compare what a line showed lately with what the champion knows of its products: scores and image features.

Looks at archived frames that chance has kept, every hour, until SIGTERM; or once with --once, which ends with one JSON object
and exit status 1 where a product has drifted, 3 where nothing can be said of any: too few frames, or none remembered.
"""


DRIFTED, NOTHING_SAID = 1, 3  # exit statuses


def register(app: typer.Typer) -> None:
    """Add `drift`."""

    @app.command(name="drift", help=HELP)
    def command(
        hours: float = typer.Option(24.0, "--hours", min=0.1, help="How far back a look goes."),
        every: float = typer.Option(60.0, "--every", min=0.1, help="Minutes between two looks."),
        frames: int = typer.Option(200, "--frames", min=20, help="Most frames of a product."),
        once: bool = typer.Option(False, "--once", help="Look once, print a table, and end."),
        metrics_port: int | None = typer.Option(
            None, "--metrics-port", min=0, max=65535, help="Port of /metrics, /healthz, /readyz."
        ),
        metrics_host: str | None = typer.Option(None, "--metrics-host", help="Address of these."),
        weights: Path | None = typer.Option(None, "--weights", help="Local file of the encoder's weights."),
        config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
    ) -> int:
        # torch and scipy take seconds to import, and other commands run without them.
        from trainer.drift.watch import DriftWatch

        settings = load({"model.weights": weights, "worker.metrics_host": metrics_host}, config).settings
        stop = threading.Event()
        with ExitStack() as held:
            models = open_store(settings.store, settings.store.models_bucket)
            held.callback(models.close)
            images = open_store(settings.store)
            held.callback(images.close)
            registry = Registry(models)
            watch = DriftWatch(
                registry.champion, images, settings, window=timedelta(hours=hours), frames=frames
            )
            if once:
                found = watch.look(datetime.now(UTC))
                output().print(table_of(found))
                print(json.dumps(as_json(found)))
                if found.drifted:
                    return DRIFTED
                return 0 if found.drifts else NOTHING_SAID
            structured()
            held.enter_context(stopped_by_signals(stop, settings.worker.shutdown_s))
            serve(
                held,
                metrics_port,
                settings.worker.metrics_host,
                watch.metrics.registry,
                watch.missing,
                errors().print,
            )

            def tell(found: Looking) -> None:
                for one in found.drifted:
                    errors().print(
                        f"{one.product}: {one.of} are {one.distance:.2f} from what the pack knows (limit {one.limit:.2f})"
                    )

            watch.run(stop, timedelta(minutes=every), tell)
        return 0


def table_of(found: Looking) -> Table:
    """What one look found, for people."""
    table = Table("product", "of", "distance", "limit", "frames", "", box=None, pad_edge=False)
    for one in found.drifts:
        said = "DRIFT" if one.drifted else "as ever"
        table.add_row(one.product, one.of, f"{one.distance:.3f}", f"{one.limit:.3f}", str(one.frames), said)
    for product, why in found.unknown.items():
        table.add_row(product, "", "", "", "", why)
    return table


def as_json(found: Looking) -> dict[str, object]:
    """The same for machines."""
    return {
        "configuration_hash": found.configuration_hash,
        "drifted": sorted({one.product for one in found.drifted}),
        "products": [
            {
                "product": one.product,
                "of": one.of,
                "distance": round(one.distance, 4),
                "limit": round(one.limit, 4),
                "frames": one.frames,
                "drifted": one.drifted,
            }
            for one in found.drifts
        ],
        "unknown": found.unknown,
    }
