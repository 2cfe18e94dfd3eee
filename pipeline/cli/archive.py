"""`dapo archive`: what becomes of the images."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer

from pipeline.archive.policy import Reason
from pipeline.archive.prune import Pruned, Retention, prune
from pipeline.cli import terminal
from pipeline.cli.worker import stopped_by_signals
from pipeline.settings import ArchiveSettings, load
from pipeline.store.open import open_store
from pipeline.stream.logs import structured

# Longer than a frame's message and the dead letter made of it can lie on their topics: 24.5 days for an outage of a week.
CLAIMS_DAYS = 30


def register(app: typer.Typer) -> None:
    """Add `archive` with its commands."""
    group = typer.Typer(help="Archive images and results to the object store.", invoke_without_command=True)
    group.callback()(archive)
    group.command("create")(create_command)
    group.command("prune")(prune_command)
    app.add_typer(group, name="archive")


def archive(
    context: typer.Context,
    bootstrap: str | None = typer.Option(None, "--bootstrap", help="Kafka, host:port."),
    slot: str | None = typer.Option(
        None, "--slot", help="Stable name of this archiver.", show_default="first free"
    ),
    metrics_port: int | None = typer.Option(
        None, "--metrics-port", min=0, max=65535, help="Port of /metrics, /healthz, /readyz."
    ),
    metrics_host: str | None = typer.Option(None, "--metrics-host", help="Address of these."),
    config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
) -> int:
    """Keep images and their results in the object store, behind the verdicts and at its own pace, until SIGTERM.

    Exit status: 0 stopped, 2 a setting, topic or the store's access is wrong, 5 another process runs under the same slot.
    """
    if context.invoked_subcommand is not None:
        return 0
    settings = load({"kafka.bootstrap": bootstrap, "worker.metrics_host": metrics_host}, config).settings
    errors = terminal.errors()
    structured()
    from pipeline.stream.compose import archiving

    stop = threading.Event()
    with stopped_by_signals(stop, settings.worker.shutdown_s):
        with archiving(settings, slot or "", stop, errors.print, metrics_port) as loop:
            done = loop.run()
        kept = f"{done.kept} images kept ({done.bytes / 1e6:.1f} MB)"
        unverified = (
            f", {done.unverified} of them unverified: no hash in their row" if done.unverified else ""
        )
        errors.print(f"{done.results} results seen, {kept}{unverified}, {done.problems} problems")
    return 0


def create_command(
    config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
) -> None:
    """Make the bucket where it is missing; one that is there stays as it is."""
    settings = load(config=config).settings
    store = open_store(settings.store)
    try:
        made = store.make_bucket()
    finally:
        store.close()
    print(f"bucket {settings.store.bucket} {'made' if made else 'was there'}")


def prune_command(
    dry_run: bool = typer.Option(False, "--dry-run", help="Delete nothing; print what would be deleted."),
    claims_days: int = typer.Option(
        CLAIMS_DAYS,
        "--claims-days",
        min=0,
        help="Days of large frames (claims/): more than frames and dead letters together are kept; 0: for ever.",
    ),
    labelled: bool = typer.Option(
        False, "--labelled", help="Delete labelled frames, too; without it they are kept whatever their age."
    ),
    config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
) -> None:
    """Delete images and manifest rows that are older than archive.keep_..._days, and large frames that were sent long ago.

    Frames with a label are kept, as far as `dapo labels sync` has copied labels. May be stopped and run again.
    """
    settings = load(config=config).settings
    store = open_store(settings.store)
    try:
        pruned = prune(
            store,
            retention_of(settings.archive),
            now=datetime.now(UTC),
            claims_older_than=timedelta(days=claims_days) if claims_days else None,
            labelled_too=labelled,
            dry_run=dry_run,
            tell=print,
        )
    finally:
        store.close()
    print(summary(pruned, dry_run=dry_run))


def retention_of(settings: ArchiveSettings) -> Retention:
    """How long; a setting of 0 days is for ever."""
    days = {
        Reason.NOT_OK: settings.keep_not_ok_days,
        Reason.NOT_DECIDABLE: settings.keep_not_decidable_days,
        Reason.FAILED: settings.keep_failed_days,
        Reason.AUDIT: settings.keep_audit_days,
        Reason.NEAR_THRESHOLD: settings.keep_near_threshold_days,
    }
    return {reason: timedelta(days=kept) if kept else None for reason, kept in days.items()}


def summary(pruned: Pruned, *, dry_run: bool) -> str:
    """One line: what was deleted, or would be."""
    verb = "would delete" if dry_run else "deleted"
    text = f"{verb} {pruned.images} images, {pruned.claims} claims and {pruned.rows.total()} rows"
    text += f"; {pruned.files} files of the manifest are empty"
    if pruned.labelled:
        text += f"; {'would keep' if dry_run else 'kept'} {pruned.labelled} images past their time that are labelled"
    return f"{text}; {pruned.busy} were being written: prune again" if pruned.busy else text
