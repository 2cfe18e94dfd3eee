"""`dapo calibrate`: a product's thresholds from photographs of good parts."""

from __future__ import annotations

import math
from pathlib import Path

import typer

from dapo.pack import ANY_PRODUCT
from dapo.pack_io import check_writable, read_pack, write_pack
from pipeline.bundled import default_pack_path
from pipeline.calibrate import Calibration, calibrate, calibrated, check_rate
from pipeline.cli.terminal import errors
from pipeline.compose import in_process
from pipeline.decode import Limits
from pipeline.ports import Result
from pipeline.progress import shown
from pipeline.run import RunOptions, run
from pipeline.settings import load
from pipeline.sources import open_source
from pipeline.summary import RunSummary


class _Scores:
    """A sink that keeps scores only."""

    def __init__(self) -> None:
        self.scores: list[float] = []
        self.left_out: list[tuple[str, str]] = []

    def write(self, result: Result) -> None:
        if result.verdict is None:
            _, _, message = result.error or ("", "", "not inspected")
            self.left_out.append((result.frame.frame_id, message))
        elif math.isnan(result.verdict.anomaly_score):
            self.left_out.append((result.frame.frame_id, result.verdict.reason))
        else:
            self.scores.append(result.verdict.anomaly_score)

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Nothing is open."""


def register(app: typer.Typer) -> None:
    """Add `calibrate`."""

    @app.command(name="calibrate")
    def command(
        good: Path = typer.Argument(..., help="Folder of photographs of good parts."),
        product: str = typer.Option(
            ..., "--product", help="Product to calibrate; a new one is made like '*'."
        ),
        out: Path = typer.Option(..., "--out", help="The new pack. Packs are immutable: the old one stays."),
        types: str = typer.Option("", "--types", help="The product's defect words, separated by commas."),
        rate: float = typer.Option(0.01, "--false-alarm-rate", help="Share of good frames that may alarm."),
        pack: Path | None = typer.Option(None, "--pack", help="Prompt pack; default: the bundled one."),
        weights: Path | None = typer.Option(None, "--weights", help="Local file of the encoder's weights."),
        threads: int | None = typer.Option(None, "--threads", help="CPU threads of the model."),
        config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
    ) -> None:
        """Set a product's thresholds from good frames for a wanted false-alarm rate."""
        given = {"pack.path": pack, "model.weights": weights, "model.threads": threads}
        settings = load(given, config).settings
        words = [word.strip() for word in types.split(",") if word.strip()]
        # Minutes of inspection are not lost to what can be known before:
        check_rate(rate)
        check_writable(out)
        base = read_pack(settings.pack.path or default_pack_path())
        chosen, infer = in_process(
            base, product, words, batch=settings.run.batch, weights=settings.model.weights,
            device=settings.model.device, threads=settings.model.threads,
            runtime=settings.model.runtime,
        )  # fmt: skip
        limits = Limits(max_bytes=settings.run.max_bytes, max_pixels=settings.run.max_pixels)
        summary, sink, told = RunSummary(), _Scores(), errors()
        opened = open_source([str(good)], None, limits, summary.add_skipped)
        options = RunOptions(product=product, batch=settings.run.batch, limits=limits)
        with shown(told, opened.source.total) as on_frame:
            run(opened.source, infer, sink, summary, options, on_frame=on_frame)
        if summary.skipped:
            kinds = ", ".join(f"{count} {suffix}" for suffix, count in summary.skipped.most_common(8))
            told.print(f"not taken as frames: {kinds}")
        for name, why in sink.left_out:
            told.print(f"left out: {name}: {why}")
        found = calibrate(sink.scores, rate)
        digest = write_pack(calibrated(chosen, product, found), out)
        print(describe(found, product if product != ANY_PRODUCT else "any product"))
        print(f"{out}: configuration {digest}")


def describe(found: Calibration, product: str) -> str:
    """What was set and how sure it is, in words."""
    lines = [
        f"{product}: OK below {found.threshold_ok:.4f}, NotOK from {found.threshold_notok:.4f}"
        + (", between them NotDecidable" if found.has_band else ": no frame will be NotDecidable"),
        f"{found.alarms} of {found.frames} good frames alarm; with 95 % confidence the true false-alarm rate is at most "
        f"{100 * found.upper_bound:.1f} % (asked for: {100 * found.rate:g} %)",
    ]
    if not found.sure:
        lines.append(
            f"to show {100 * found.rate:g} % takes at least {found.frames_needed} good frames of which none alarms"
        )
    if not found.has_band:
        few = found.frames < found.frames_for_band
        why = (
            f"takes at least {found.frames_for_band} good frames" if few else "needs scores that differ more"
        )
        lines.append(f"the thresholds are equal: a range between them {why}")
    return "\n".join(lines)
