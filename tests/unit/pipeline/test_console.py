"""The table a run ends with."""

from __future__ import annotations

from rich.console import Console

from pipeline.report.console import summary_table
from pipeline.summary import RunSummary


def test_what_the_user_named_is_text_and_not_markup() -> None:
    summary = RunSummary(product="[/b] [red]cup", pack_name="[/x].pack")
    console = Console(width=200)
    with console.capture() as shown:
        console.print(summary_table(summary))
    assert "product [/b] [red]cup, pack [/x].pack" in shown.get()
