"""`dapo label-next`: which frames of the archive, or of any data set, a person should look at next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import typer

from dapo.errors import SourceError
from dapo.pack import Pack
from dapo.pack_io import read_pack
from pipeline.atomic import explained, write_whole
from pipeline.bundled import default_pack_path
from pipeline.cli.models import opened
from pipeline.cli.terminal import errors, output
from pipeline.progress import counted
from pipeline.settings import Settings, load
from trainer.data.archive import ArchiveDataset
from trainer.data.dataset import Dataset, choose
from trainer.data.open import Options, open_dataset
from trainer.data.sample import Sample, State

HELP = """Choose frames to label: those the pack is unsure of, and those unlike anything that is labelled.

Writes label-next.html with pictures, and prints the commands that label them; the last line is one JSON object.
"""
PAGE = "label-next.html"
_MOST = 1000  # frames of each kind that are inspected, evenly over all


@dataclass(frozen=True)
class Shown:
    """A frame to label, for the page.

    Attributes:
        command: that labels it; empty for a frame that no result is known of.
    """

    key: str
    product: str
    reason: str
    said: str
    picture: str
    command: str


def register(app: typer.Typer) -> None:
    """Add `label-next`."""

    @app.command(name="label-next", help=HELP)
    def command(
        data: str = typer.Option(
            "archive:7d", "--data", help="Frames: archive:DAYS, a path, or FORMAT:PATH."
        ),
        count: int = typer.Option(20, "--count", min=1, help="Frames to choose."),
        products: str = typer.Option(
            "", "--products", help="Some products, separated by commas.", show_default="all"
        ),
        pack: Path | None = typer.Option(
            None, "--pack", help="Pack that judges.", show_default="what a worker would judge with"
        ),
        out: Path = typer.Option(Path("label-next"), "--out", help="Folder for the page."),
        weights: Path | None = typer.Option(None, "--weights", help="Local file of the encoder's weights."),
        device: str | None = typer.Option(None, "--device", help="cpu, cuda or cuda:N."),
        config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
    ) -> None:
        given = {"pack.path": pack, "model.weights": weights, "model.device": device}
        settings = load(given, config).settings
        source = open_dataset(data, Options(settings=settings))
        chosen = choose(source.products(), [one.strip() for one in products.split(",") if one.strip()], data)
        samples = [sample for name in chosen for sample in source.product(name).samples]
        with explained(out):
            out.mkdir(parents=True, exist_ok=True)
        shown = _chosen(
            _pack(settings, given=pack is not None), samples, _results(source, chosen), count, settings
        )
        _write(out / PAGE, shown, data)
        for one in shown:
            output().print(f"{one.reason:9}  {one.product}  {one.key}: {one.said}", markup=False)
            if one.command:
                output().print(f"           {one.command}", markup=False)
        print(
            json.dumps(
                [{"key": s.key, "product": s.product, "reason": s.reason, "said": s.said} for s in shown]
            )
        )


def _pack(settings: Settings, *, given: bool) -> Pack:
    if settings.pack.follow and not given:
        with opened(settings) as registry:
            return registry.champion()
    return read_pack(settings.pack.path or default_pack_path())


def _results(source: Dataset, products: Sequence[str]) -> dict[str, str]:
    """Frame -> its newest result, which a label is about."""
    if not isinstance(source, ArchiveDataset):
        return {}
    return {sample.key: row.result_id for name in products for sample, row in source.judged(name)}


def _chosen(
    pack: Pack, samples: Sequence[Sample], results: dict[str, str], count: int, settings: Settings
) -> list[Shown]:
    # torch takes seconds to import, and other commands run without it.
    import numpy as np

    from trainer.drift.measure import evenly
    from trainer.gate.compare import Pair
    from trainer.gate.page import outlined
    from trainer.label_next import Candidate, label_next

    fresh = [sample for sample in samples if sample.state is State.UNLABELLED]
    known = [sample for sample in samples if sample.state is not State.UNLABELLED]
    fresh, known = ([own[place] for place in evenly(len(own), _MOST)] for own in (fresh, known))
    if not fresh:
        raise SourceError("every frame of the data is labelled, or there is none: nothing to choose from.")
    pair = Pair(pack, pack, settings.model, settings.run.batch)
    candidates: dict[str, Any] = {}
    embeddings = []
    with counted(errors(), len(fresh) + len(known)) as one:
        for compared in pair.frames(fresh):
            one(None)
            if compared.embedding is not None:
                candidate = Candidate(compared.sample.key, compared.embedding, (compared.champion,))
                candidates[candidate.key] = (candidate, compared)
        for compared in pair.frames(known):
            one(None)
            if compared.embedding is not None:
                embeddings.append(compared.embedding)
    labelled = np.stack(embeddings) if embeddings else np.zeros((0, pack.encoder.joint_width), np.float32)
    found = []
    for proposal in label_next([candidate for candidate, _ in candidates.values()], labelled, count):
        compared = candidates[proposal.key][1]
        sample = compared.sample
        result = results.get(sample.key)
        found.append(
            Shown(
                sample.key,
                sample.product,
                proposal.reason.value,
                proposal.said,
                outlined(sample.image(), compared.champion),
                f"dapo label {shlex.quote(result)} good" if result else "",
            )
        )
    return found


def _write(path: Path, shown: Sequence[Shown], data: str) -> None:
    loader = jinja2.ChoiceLoader(
        [jinja2.PackageLoader("trainer", "."), jinja2.PackageLoader("pipeline.report", ".")]
    )
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html = environment.get_template("label_next.html").render(shown=shown, data=data)
    with write_whole(path) as file:
        file.write(html.encode("utf-8", "backslashreplace"))
