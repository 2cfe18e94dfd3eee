"""One run into one folder: mark the folder, inspect, write the report; or take up where an earlier run stopped."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from dapo.errors import OutputError, SettingsError
from dapo.pack import Pack
from pipeline.atomic import explained, write_whole
from pipeline.lock import locked
from pipeline.ports import Infer, Source
from pipeline.record import RESULTS, ROWS_PER_FILE, FolderSink
from pipeline.report.overlay import colours, draw_overlay
from pipeline.report.page import write_report
from pipeline.resume import PREVIOUS, Resumption
from pipeline.rows import DEAD_LETTERS, MASKS, OVERLAYS
from pipeline.run import RunOptions, exit_code, run
from pipeline.sources.walk import RUN_MARKER
from pipeline.summary import FrameOutcome, RunSummary

_OURS = (RESULTS, PREVIOUS, MASKS, OVERLAYS, DEAD_LETTERS)
_OUR_FILES = ("report.html", "summary.json")


@dataclass(frozen=True, slots=True)
class Job:
    """What one run is asked for.

    Attributes:
        source_name: as the user gave it.
        pack_name: file name of the prompt pack.
        out: folder of the results.
        resume: go on with what is in `out`.
        overwrite: remove the results of an earlier run in `out` first.
    """

    source_name: str
    pack_name: str
    out: Path
    options: RunOptions
    resume: bool = False
    overwrite: bool = False
    fail_on_defect: bool = False


def run_job(
    job: Job,
    source: Source,
    infer: Infer,
    pack: Pack,
    summary: RunSummary,
    *,
    stop: Event | None = None,
    on_frame: Callable[[FrameOutcome], None] | None = None,
) -> RunSummary:
    """Inspect a source into a folder and write run.json, summary.json and report.html.

    Args:
        summary: to count into; the source's walk may have told it of skipped files already.

    Raises:
        OutputError: `out` holds results and neither `resume` nor `overwrite` is given, or it can't be written.
        SettingsError: `resume` with other settings than the earlier run had, or another run is writing to `out`.
    """
    with explained(job.out):
        job.out.mkdir(parents=True, exist_ok=True)
    with locked(job.out):
        return _run(job, source, infer, pack, summary, stop, on_frame)


def _run(
    job: Job,
    source: Source,
    infer: Infer,
    pack: Pack,
    summary: RunSummary,
    stop: Event | None,
    on_frame: Callable[[FrameOutcome], None] | None,
) -> RunSummary:
    about = _describe(job, pack)
    earlier = _prepare(job, about)
    # Marked first: whatever is found here later is known to be ours.
    _mark(job.out, {**about, "state": "running"})
    palette = colours(pack.product(job.options.product).types)
    sink = FolderSink(
        job.out,
        rows_per_file=ROWS_PER_FILE,
        draw=partial(draw_overlay, palette=palette),
    )
    resumption = Resumption(job.out, pack.configuration_hash) if earlier else None
    _fill_in(summary, job, pack)
    run(
        source,
        infer,
        sink,
        summary,
        job.options,
        resumption=resumption,
        keep=sink.keep,
        pack_name=job.pack_name,
        stop=stop,
        on_frame=on_frame,
    )
    # A source without a frame is more likely a share that is not mounted than one whose results may go.
    if resumption is not None and summary.frames and not summary.interrupted:
        resumption.finish()
    summary.finished_at = datetime.now(UTC)
    summary.exit_code = exit_code(summary, fail_on_defect=job.fail_on_defect)
    write_report(job.out, summary, palette)
    with write_whole(job.out / "summary.json") as file:
        file.write(
            json.dumps(summary.as_json(), indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")
            + b"\n"
        )
    _mark(job.out, {**about, "state": "interrupted" if summary.interrupted else "complete"})
    return summary


def check_folder(out: Path, *, resume: bool, overwrite: bool) -> bool:
    """Whether `out` holds results of an earlier run, which may be gone on with or removed.

    Raises:
        OutputError: it does, and neither was asked for; or it holds what no run can be proven to have written.
        SettingsError: both were asked for.
    """
    if resume and overwrite:
        raise SettingsError(
            "--resume goes on with the earlier results, --overwrite removes them: give one of both."
        )
    with explained(out):
        if out.exists() and not out.is_dir():
            raise OutputError(f"{out}: is a file, not a folder. Give another place with --out.")
        found = [name for name in (RUN_MARKER, *_OURS, *_OUR_FILES) if os.path.lexists(out / name)]
        # Where the marker is lost, rows can be gone on with (they say what they are of), but nothing is removed.
        rows = [*out.glob(f"{RESULTS}/*.arrow"), *out.glob(f"{PREVIOUS}/*.arrow")]
    if not found:
        return False
    marked = "dapo_run" in _read_marker(out / RUN_MARKER)
    if not (marked or (resume and rows and RUN_MARKER not in found)):
        raise OutputError(
            f"{out}: holds {', '.join(found)} and no run.json of 'dapo run', so they may be yours: nothing is removed. "
            "Give another folder with --out, or move them away."
        )
    if not (resume or overwrite):
        raise OutputError(
            f"{out}: holds the results of an earlier run. Add --resume to go on with it, --overwrite to remove it, "
            "or give another folder with --out."
        )
    return True


def check_apart(walked: Path, out: Path) -> None:
    """See that results are not written among the files that are inspected.

    Raises:
        SettingsError: `out` is the folder that is walked, or that lies in what a run writes and removes.
    """
    source, target = Path(os.path.realpath(walked)), Path(os.path.realpath(out))
    if source == target or any(target / name in (source, *source.parents) for name in _OURS):
        raise SettingsError(
            f"--out {out}: the frames lie there, and results would mix with them. Give another folder."
        )


def earlier_batch(out: Path) -> int | None:
    """Batch size of the run in `out`, None where there is none: a resumed run takes the same."""
    batch = _read_marker(out / RUN_MARKER).get("batch")
    return batch if isinstance(batch, int) and batch > 0 else None


def _describe(job: Job, pack: Pack) -> dict[str, Any]:
    """What must be equal for two runs to give equal results."""
    return {
        "dapo_run": 1,
        "source": job.source_name,
        "limit": job.options.limit,
        "product": job.options.product,
        "pack": job.pack_name,
        "configuration_hash": pack.configuration_hash,
        "batch": job.options.batch,
        "limits": asdict(job.options.limits),
    }


def _prepare(job: Job, about: dict[str, Any]) -> bool:
    """Make sure the folder is ours to write, and empty of results; True where there is a run to go on with instead."""
    there = check_folder(job.out, resume=job.resume, overwrite=job.overwrite)
    if there and job.resume:
        _check_same(job.out / RUN_MARKER, about)
        return True
    with explained(job.out):
        for name in _OURS:
            if (job.out / name).is_dir():
                shutil.rmtree(job.out / name)
        for name in _OUR_FILES:
            (job.out / name).unlink(missing_ok=True)
    return False


def _check_same(marker: Path, about: dict[str, Any]) -> None:
    before = _read_marker(marker)
    for key in ("source", "product", "configuration_hash", "batch", "limits"):
        if key in before and before[key] != about[key]:
            raise SettingsError(
                f"--resume: the run in {marker.parent} was started with {key.replace('_', ' ')} {before[key]}, "
                f"now it is {about[key]}. Give the same settings, or another folder with --out."
            )
    most, now = before.get("limit", 0), about["limit"]
    if now is not None and (most is None or most > now):
        raise SettingsError(
            f"--resume: the run in {marker.parent} went on to {'the end' if most is None else f'frame {most}'}, and "
            f"--limit {now} would drop what lies behind. Leave --limit out, or give another folder with --out."
        )


def _read_marker(marker: Path) -> dict[str, Any]:
    """What an earlier run said of itself; nothing where that is lost: its rows still say which configuration they are of."""
    try:
        found = json.loads(marker.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _mark(out: Path, about: dict[str, Any]) -> None:
    with write_whole(out / RUN_MARKER, sync=True) as file:
        file.write(
            json.dumps(about, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        )


def _fill_in(summary: RunSummary, job: Job, pack: Pack) -> None:
    product = pack.product(job.options.product)
    summary.source, summary.product = job.source_name, job.options.product
    summary.pack_name, summary.configuration_hash = job.pack_name, pack.configuration_hash
    summary.encoder_name = pack.encoder.name
    summary.threshold_ok, summary.threshold_notok = product.threshold_ok, product.threshold_notok
    summary.calibrated = product.calibrated
    summary.started_at = datetime.now(UTC)
