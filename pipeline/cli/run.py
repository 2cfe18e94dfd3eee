"""`dapo run`: inspect a file, folder, glob, list, video or camera."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import FrameType

import typer
from rich.console import Console

from dapo.errors import OutputError, VocabularyError
from dapo.pack import ANY_PRODUCT, Pack
from dapo.pack_io import read_pack
from pipeline.bundled import default_pack_path
from pipeline.cli.terminal import output
from pipeline.compose import in_process
from pipeline.decode import Limits
from pipeline.job import Job, check_apart, check_folder, earlier_batch, run_job
from pipeline.ports import Source
from pipeline.progress import shown
from pipeline.report.console import summary_table
from pipeline.run import OUTPUT_FAILED, RunOptions
from pipeline.settings import load
from pipeline.sources import open_source
from pipeline.sources.camera import CameraSource
from pipeline.summary import RunSummary

_HELP = """Inspect photographs, a video or a camera: defects, their type and their mask.

SOURCE: a file, a folder (with all below it), a glob in quotes, a video, a camera address (rtsp://, http://, /dev/video0,
0), or - for paths on stdin.

Exit status: 0 done; 1 defects found, with --fail-on-defect; 2 wrong usage, or no frame found; 3 some frames could not
be read (they lie in OUT/deadletter); 4 results could not be written; 130 stopped by Ctrl-C (go on with --resume).
"""


def register(app: typer.Typer) -> None:
    """Add `run`."""
    app.command(name="run", help=_HELP)(run_command)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The command line, to repeat it in the line that says how to resume."""

    source: tuple[str, ...]
    options: tuple[tuple[str, object], ...]

    def again(self, out: Path) -> str:
        words = ["dapo", "run", *self.source]
        for name, value in self.options:
            if value is True:
                words += [name]
            elif value is not None and value is not False and name != "--out":
                words += [name, str(value)]
        return shlex.join([*words, "--out", str(out), "--resume"])


def run_command(
    source: list[str] = typer.Argument(None, help="What to inspect; see above.", show_default=False),
    product: str = typer.Option(
        ANY_PRODUCT, "--product", help="Product of the pack: its thresholds, regions, types."
    ),
    types: str | None = typer.Option(
        None, "--types", help="Defect words, separated by commas; new ones are fine."
    ),
    out: Path | None = typer.Option(None, "--out", help="Folder for results.", show_default="dapo-out"),
    list_file: str | None = typer.Option(None, "--list", help="File with one path a line; - is stdin."),
    resume: bool = typer.Option(False, "--resume", help="Go on with a run that was stopped."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Remove the earlier results in OUT first."),
    fail_on_defect: bool = typer.Option(
        False, "--fail-on-defect", help="Exit with 1 where defects are found."
    ),
    pack: Path | None = typer.Option(None, "--pack", help="Prompt pack.", show_default="the bundled one"),
    limit: int | None = typer.Option(None, "--limit", min=1, help="Stop after so many frames."),
    batch: int | None = typer.Option(None, "--batch", help="Model inputs per batch."),
    device: str | None = typer.Option(None, "--device", help="cpu, cuda or cuda:N."),
    threads: int | None = typer.Option(None, "--threads", help="CPU threads of the model."),
    weights: Path | None = typer.Option(None, "--weights", help="Local file of the encoder's weights."),
    max_bytes: int | None = typer.Option(None, "--max-bytes", help="Largest encoded frame, bytes."),
    max_pixels: int | None = typer.Option(None, "--max-pixels", help="Largest frame, pixels."),
    config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
) -> int:
    """See `_HELP`."""
    given = {
        "run.out": out,
        "run.batch": batch,
        "run.max_bytes": max_bytes,
        "run.max_pixels": max_pixels,
        "pack.path": pack,
        "model.device": device,
        "model.threads": threads,
        "model.weights": weights,
    }
    settings = load(given, config).settings
    named = {
        f"--{key.split('.')[1].replace('path', 'pack').replace('_', '-')}": value
        for key, value in given.items()
    }
    chosen_product = None if product == ANY_PRODUCT else product
    repeat = {
        "--product": chosen_product,
        "--types": types,
        "--list": list_file,
        "--limit": limit,
        "--fail-on-defect": fail_on_defect,
        "--config": config,
        **named,
    }
    asked = _Asked(tuple(source or ()), tuple(repeat.items()))
    words = _words(types)
    limits = Limits(max_bytes=settings.run.max_bytes, max_pixels=settings.run.max_pixels)
    summary = RunSummary()
    opened = open_source(
        list(source or ()), list_file, limits, summary.add_skipped, stall_s=settings.run.camera_stall_s
    )
    pack_path = settings.pack.path or default_pack_path()
    # Before the model is loaded, which takes seconds:
    check_folder(settings.run.out, resume=resume, overwrite=overwrite)
    if opened.walked is not None:
        check_apart(opened.walked, settings.run.out)
    asked_pack = read_pack(pack_path)
    # A GPU's batch is filled up with black images: nobody who has one frame should wait for seven of those.
    alone = opened.live or (opened.source.total == 1 and asked_pack.product(product).tiles is None)
    size = 1 if alone else settings.run.batch
    if resume and batch is None:
        size = earlier_batch(settings.run.out) or size
    chosen, infer = in_process(
        asked_pack,
        product,
        words,
        batch=size,
        weights=settings.model.weights,
        device=settings.model.device,
        threads=settings.model.threads,
        runtime=settings.model.runtime,
    )
    options = RunOptions(product=product, batch=size, limits=limits, live=opened.live, limit=limit)
    job = Job(opened.name, pack_path.name, settings.run.out, options, resume, overwrite, fail_on_defect)
    errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    _warn(errors, asked_pack, chosen, product)
    total = opened.source.total if limit is None else min(limit, opened.source.total or limit)
    stop = Event()
    with _stopped_by_ctrl_c(stop, opened.source, errors), shown(errors, total) as on_frame:
        try:
            run_job(job, opened.source, infer, chosen, summary, stop=stop, on_frame=on_frame)
        except OutputError as error:
            errors.print(
                f"error: {error} What was written before stays. Then go on with:\n  {asked.again(job.out)}"
            )
            return OUTPUT_FAILED
        finally:
            opened.source.close()
    _conclude(summary, job, asked, errors)
    if isinstance(opened.source, CameraSource) and opened.source.dropped:
        errors.print(
            f"the camera was faster: {opened.source.dropped} frames were passed over (gaps in 'sequence')"
        )
    return summary.exit_code or 0


def _conclude(summary: RunSummary, job: Job, asked: _Asked, errors: Console) -> None:
    output().print(summary_table(summary))
    if summary.skipped:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in summary.skipped.most_common(8))
        errors.print(f"not taken as frames: {kinds}; named in {job.out / 'summary.json'}")
    if summary.failed:
        errors.print(
            f"{summary.failed} frames could not be read: {job.out / 'deadletter'} says why and what to do"
        )
    print(f"report: {job.out / 'report.html'}")
    if not (summary.frames or summary.interrupted):
        errors.print(
            f"error: {summary.source}: no frame found, so nothing was inspected. Give the folder, list or pattern of the "
            "photographs; files that were passed over are named above."
        )
    if summary.interrupted:
        errors.print(f"stopped after {summary.frames} frames; go on with:\n  {asked.again(job.out)}")


def _words(types: str | None) -> list[str]:
    if types is None:
        return []
    words = [word.strip() for word in types.split(",") if word.strip()]
    if not words:
        raise VocabularyError(
            "--types: no defect word is given. Example: --types scratch,hole,'faulty imprint'"
        )
    return words


def _warn(errors: Console, given: Pack, pack: Pack, product: str) -> None:
    """Say what makes the results less than they could be."""
    if product not in given.products:
        command = f"dapo calibrate GOOD_FOLDER --product {shlex.quote(product)} --out NEW.pack"
        known = ", ".join(name for name in sorted(given.products) if name != ANY_PRODUCT) or "none"
        errors.print(
            f"note: the pack does not know product '{product}' (it knows: {known}); it is judged as any product. "
            f"Correct the name, or set its thresholds: {command}"
        )
    untrained = {word.slug: word.word for word in pack.types if not word.trained}
    unknown = [untrained[slug] for slug in pack.product(product).types if slug in untrained]
    if unknown:
        names = ", ".join(unknown)
        errors.print(
            f"warning: {pack.encoder.name} was not trained on: {names}. Such a word means 'some defect'."
        )


@contextmanager
def _stopped_by_ctrl_c(stop: Event, source: Source, errors: Console) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the run after the frames under way, the second ends it at once."""

    def ask(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        source.close()
        errors.print("stopping after the frames under way; press Ctrl-C again to stop at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
