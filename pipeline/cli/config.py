"""`dapo config`: every setting with its value and where it came from."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table

from pipeline.cli.terminal import output
from pipeline.settings import load, shown


def register(app: typer.Typer) -> None:
    """Add `config`."""

    @app.command()
    def config(file: Path | None = typer.Option(None, "--config", help="TOML file of settings.")) -> None:
        """Print every setting, its value and its origin."""
        table = Table("setting", "value", "origin", box=None, pad_edge=False)
        for key, value, origin in shown(load(config=file)):
            table.add_row(key, value, origin)
        output().print(table)
