"""Make a better prompt pack from labelled frames.

    python trainer/retune.py --data DATA --pack champion.pack --scope stem,reference,thresholds --out retuned
    python trainer/retune.py --from-archive --since 30d --auto --out retuning

Writes OUT/retuned.pack, OUT/report.html and OUT/retune.json; the last line printed is the same JSON. On several GPUs:
torchrun --nproc-per-node 4 trainer/retune.py ... --device cuda. With --auto (for cron) it is the registry's champion that is
retuned, on the archive, and the gate and a policy decide what follows; a folder of OUT for each run.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from dapo.pack import Pack
from dapo.pack_io import read_pack, write_pack
from pipeline.atomic import explained, write_whole
from pipeline.bundled import default_pack_path
from pipeline.cli.terminal import errors
from pipeline.settings import load
from trainer.arguments import days, listed, rate, together, variants
from trainer.data.archive import ArchiveDataset
from trainer.data.dataset import Dataset, choose
from trainer.data.open import Options, open_dataset
from trainer.data.sample import Sample

if TYPE_CHECKING:
    # torch and open_clip take seconds to import; a command line that only asks for help needs neither.
    from dapo.encoder import Encoder

PACK, REPORT, NOTE, CHECKPOINT = "retuned.pack", "report.html", "retune.json", "checkpoint.safetensors"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dapo-inspection" / "features"


def register(app: typer.Typer) -> None:
    """Add `retune`."""
    app.command(name="retune")(command)


def command(
    data: str | None = typer.Option(
        None, "--data", help="Labelled frames: a folder or file, or FORMAT:PATH (docs/data.md)."
    ),
    from_archive: bool = typer.Option(False, "--from-archive", help="The project's own archive, as --data."),
    since: str | None = typer.Option(
        None, "--since", help="Days of the archive, as 30d or 2026-11-01..2026-11-29.", show_default="30d"
    ),
    auto: bool = typer.Option(
        False, "--auto", help="Retune the registry's champion, ask the gate, and do what --then says."
    ),
    every: str | None = typer.Option(
        None, "--every", help="Begin a run only so long after the last, as 28d.", show_default="at each call"
    ),
    then: Literal["hold", "shadow", "promote"] | None = typer.Option(
        None,
        "--then",
        help="Of what the gate lets through: hold (for a person), shadow or promote.",
        show_default="hold",
    ),
    shadow_frames: int | None = typer.Option(
        None,
        "--shadow-frames",
        min=0,
        help="Live frames that it inspects beside the champion first.",
        show_default="200",
    ),
    most_changed: float | None = typer.Option(
        None,
        "--most-changed",
        help="Share of live verdicts that it may change and still be promoted.",
        show_default="0.05",
    ),
    salt: str | None = typer.Option(
        None,
        "--salt",
        help="Name of the lasting test of --auto; another one is a fresh test.",
        show_default="1",
    ),
    rules: Path | None = typer.Option(None, "--rules", help="TOML file of the gate's limits (docs/gate.md)."),
    url: list[str] = typer.Option(
        [],
        "--url",
        help="host:port of a model server to promote on. May be given several times.",
        show_default="triton.url",
    ),
    pack: Path | None = typer.Option(
        None, "--pack", help="Pack that is tuned.", show_default="the bundled one"
    ),
    scope: str = typer.Option(
        "stem,reference,thresholds",
        "--scope",
        help="text, full or stem; reference; thresholds; several with commas.",
    ),
    out: Path = typer.Option(Path("retuned"), "--out", help="Folder for pack, report and checkpoint."),
    test: str | None = typer.Option(
        None, "--test", help="Labelled frames that judge, nothing else.", show_default="a fifth of the parts"
    ),
    products: str = typer.Option(
        "", "--products", help="Some products, separated by commas.", show_default="all"
    ),
    groups: Path | None = typer.Option(
        None, "--groups", help="CSV file: file,group[,day]: frames of one part."
    ),
    types: Path | None = typer.Option(None, "--types", help="TOML file: name in the data -> defect word."),
    unannotated: Literal["good", "unlabelled"] = typer.Option(
        "unlabelled", "--unannotated", help="COCO images without annotation: good or unlabelled."
    ),
    split_by: Literal["part", "day"] = typer.Option(
        "part", "--split-by", help="What stays together: part, or day."
    ),
    epochs: int | None = typer.Option(
        None,
        "--epochs",
        min=1,
        help="Passes over the frames; a fixed number.",
        show_default="10, more for few frames",
    ),
    batch: int = typer.Option(64, "--batch", min=1, help="Frames of a step, over all processes."),
    accumulate: int = typer.Option(1, "--accumulate", min=1, help="Parts a step is worked through in."),
    learning_rate: float | None = typer.Option(
        None, "--learning-rate", min=1e-9, help="Highest, of Adam.", show_default="6e-3; paper 1e-3"
    ),
    precision: Literal["float32", "bfloat16"] = typer.Option(
        "float32", "--precision", help="On a GPU: float32 or bfloat16."
    ),
    mirror: str = typer.Option("", "--mirror", help="Also learn frames mirrored: h, v, hv, with commas."),
    objective: Literal["default", "paper"] = typer.Option(
        "default", "--objective", help="default, or paper (method section 2, and its schedule)."
    ),
    loss_size: int | None = typer.Option(
        None, "--loss-size", min=1, help="Side of the labels in cells.", show_default="4 per patch"
    ),
    whole_masks: bool = typer.Option(False, "--whole-masks", help="Shrink masks as the research code does."),
    memory_of: Literal["stem", "taps"] | None = typer.Option(
        None,
        "--memory-of",
        help="What memories of good frames are made of.",
        show_default="stem, where the encoder has one",
    ),
    memory_size: int = typer.Option(1000, "--memory-size", min=1, help="Rows of a product's memory."),
    false_alarm_rate: float = typer.Option(
        0.01, "--false-alarm-rate", help="Share of good parts that may be NotOK."
    ),
    type_false_alarm_rate: list[str] = typer.Option(
        [], "--type-false-alarm-rate", help="TYPE=RATE in its place for a type. May be given several times."
    ),
    miss_rate: float = typer.Option(0.01, "--miss-rate", help="Share of defective parts that may be OK."),
    cost: float | None = typer.Option(
        None, "--cost", help="Of a missed part in false alarms: the cheapest threshold."
    ),
    defect_share: float = typer.Option(
        0.01, "--defect-share", help="Share of parts that are defective, for --cost."
    ),
    seed: int = typer.Option(0, "--seed", help="The same call gives the same pack on a CPU."),
    cache: Path | None = typer.Option(
        None, "--cache", help="Folder of frozen features.", show_default="the user's cache"
    ),
    weights: Path | None = typer.Option(None, "--weights", help="Local file of the encoder's weights."),
    device: str | None = typer.Option(None, "--device", help="cpu, cuda or cuda:N."),
    threads: int | None = typer.Option(None, "--threads", min=1, help="CPU threads."),
    config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
) -> int:
    """Tune a pack on labelled frames, and report what it is worth on parts it has not seen.

    Exit status: 0 done, 2 wrong usage; with --auto that of 'dapo gate': 0 promote, 1 refuse, 3 not decidable.
    """
    from dapo.memory import keep_freed_memory
    from trainer.drift.look import drawn_frames, with_usual_frames
    from trainer.tuning.loop import Tuning, join_processes, processes
    from trainer.tuning.memories import Memories
    from trainer.tuning.run import Plan, retune
    from trainer.tuning.scope import LEARNED, learned_scope, parse_scopes
    from trainer.tuning.sides import Sides, balanced_sides, labelled
    from trainer.tuning.summary import summary
    from trainer.tuning.thresholds import Wanted

    keep_freed_memory()  # each step needs the same blocks: half of its time went into taking them from the system again
    together(
        data,
        from_archive,
        since,
        auto,
        by_hand={
            "--pack": pack,
            "--test": test,
            "--groups": groups,
            "--split-by": "day" if split_by == "day" else None,
        },
        of_auto={
            "--every": every,
            "--then": then,
            "--shadow-frames": shadow_frames,
            "--most-changed": most_changed,
            "--salt": salt,
            "--rules": rules,
            "--url": url or None,
        },
    )
    if from_archive:
        data = f"archive:{since or '30d'}"
    assert data is not None
    scopes = parse_scopes(listed(scope))
    tuning = Tuning(
        scope=learned_scope(scopes) or LEARNED[0],
        epochs=epochs,
        batch=batch,
        accumulate=accumulate,
        learning_rate=learning_rate,
        schedule="constant" if objective == "paper" else "cosine",
        objective=objective,
        precision=precision,
        variants=variants(mirror),
        seed=seed,
    )
    plan = Plan(
        scopes,
        tuning,
        cache or CACHE,
        Memories(of=memory_of, size=memory_size, seed=seed),
        Wanted(
            false_alarms=false_alarm_rate,
            type_false_alarms=dict(rate(one) for one in type_false_alarm_rate),
            misses=miss_rate,
            cost=cost,
            defective=defect_share,
        ),
        loss_size=loss_size,
        whole_masks=whole_masks,
        seed=seed,
    )
    given = {"pack.path": pack, "model.weights": weights, "model.device": device, "model.threads": threads}
    loaded = load(given, config)
    settings = loaded.settings
    if auto:
        from trainer.periodic.unattended import Asked, unattended
        from trainer.periodic.work import Policy

        said = {"then": then, "shadow_frames": shadow_frames, "most_changed": most_changed}
        asked = Asked(
            loaded,
            since or "30d",
            plan,
            out,
            listed(products),
            types,
            salt or "1",
            rules,
            Policy(**{name: value for name, value in said.items() if value is not None}),  # type: ignore[arg-type]
            url,
            None if every is None else days(every),
        )
        with _shown(quiet=False) as tell:
            return unattended(
                asked,
                lambda own: _encoder(
                    own, settings.model.weights, settings.model.device, settings.model.threads
                ),
                tell,
            )
    options = Options(words=types, groups=groups, unannotated=unannotated, settings=settings)
    source = open_dataset(data, options)
    samples = labelled(_samples(source, data, listed(products)))
    sides = balanced_sides(samples, seed, split_by)
    if test is not None:
        others = open_dataset(test, replace(options, groups=None))
        judging = labelled(_samples(others, test, listed(products), of_test=True))
        # Keys are relative to their own data: equal ones are no sign of equal frames.
        judging = [replace(sample, key=f"test: {sample.key}") for sample in judging]
        sides = Sides((*sides.train, *sides.test), sides.validation, tuple(judging), given=True)
    base = read_pack(settings.pack.path or default_pack_path())
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
    encoder = _encoder(
        base, settings.model.weights, join_processes(settings.model.device), settings.model.threads
    )
    first = processes()[1] == 0
    with _shown(quiet=not first) as tell:
        done = retune(base, encoder, sides, plan, checkpoint=out / CHECKPOINT, tell=tell)
    if not first:
        return 0
    if isinstance(source, ArchiveDataset):
        # What was labelled is what was doubtful, and says nothing of what is usual.
        named = [name for name in source.products() if name in done.pack.products]
        drawn = drawn_frames(source, settings.archive.audit_rate, products=named)
        usual = with_usual_frames(done.pack, drawn, settings.model, settings.run.batch)
        done = replace(done, pack=usual)
    from trainer.tuning.report import write_report

    note = summary(done, base)
    write_pack(done.pack, out / PACK)
    write_report(out / REPORT, done, base, note)
    with write_whole(out / NOTE) as file:
        file.write(json.dumps(note, indent=1).encode())
    (out / CHECKPOINT).unlink(missing_ok=True)
    for line in done.notes:
        errors().print(line, markup=False)
    print(json.dumps(note))
    return 0


def _samples(source: Dataset, name: str, products: Sequence[str], *, of_test: bool = False) -> list[Sample]:
    """All frames of a data set; of its test alone where it has splits of its own and that is wanted."""
    found = [source.product(one) for one in choose(source.products(), products, name)]
    for product in found:
        if product.unlabelled:
            errors().print(f"{product.name}: {product.unlabelled} frames are unlabelled, and left out")
    return [sample for product in found for sample in (product.test if of_test else product).samples]


def _encoder(base: Pack, weights: Path | None, device: str, threads: int | None) -> Encoder:
    import torch

    from dapo.packing import load_pack_encoder
    from dapo.predictor import usable_device

    if threads is not None:
        torch.set_num_threads(threads)
    encoder = load_pack_encoder(base, weights)
    encoder.clip.to(usable_device(device))
    return encoder


@contextmanager
def _shown(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar per kind of work, with the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors(), disable=quiet) as progress:
        bars: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            kind = what.partition(" ")[0]
            if kind not in bars:
                bars[kind] = progress.add_task(what, total=total)
            progress.update(bars[kind], description=what, completed=done, total=total)

        yield tell


if __name__ == "__main__":
    from pipeline.cli import invoke

    sys.exit(invoke(["retune", *sys.argv[1:]]))
