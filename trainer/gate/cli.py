"""`dapo gate`: may a challenger replace the champion?"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal

import typer

from dapo.errors import SettingsError
from dapo.pack_io import read_pack
from pipeline.atomic import explained, write_whole
from pipeline.cli.terminal import errors, output
from pipeline.progress import counted
from pipeline.settings import load
from trainer.data.coco import Unannotated
from trainer.data.dataset import choose
from trainer.data.open import Options, open_dataset

HELP = """Compare a challenger with the champion on labelled frames that neither was made with.

Writes gate.html, which says why, and gate.json, which is also the last line printed. Exit status: 0 promote; 1 refuse;
2 wrong usage; 3 not decidable, label more parts.
"""
EXIT = {"promote": 0, "refuse": 1, "not-decidable": 3}


def register(app: typer.Typer) -> None:
    """Add `gate`."""

    @app.command(name="gate", help=HELP)
    def command(
        challenger: Path = typer.Argument(..., help="Prompt pack that wants to be promoted."),
        champion: Path = typer.Option(..., "--champion", help="Prompt pack that is in force."),
        data: str = typer.Option(
            ..., "--data", help="The frozen test: labelled images, a path or FORMAT:PATH (docs/data.md)."
        ),
        groups: Path | None = typer.Option(
            None, "--groups", help="CSV file: which frames show one part (file, group, day)."
        ),
        products: str = typer.Option(
            "", "--products", help="Some products, separated by commas; default: all."
        ),
        types: Path | None = typer.Option(
            None, "--types", help="TOML file: name in the data -> defect word."
        ),
        unannotated: str = typer.Option(
            "unlabelled", "--unannotated", help="What COCO images without annotation are: good or unlabelled."
        ),
        question: str = typer.Option(
            "superior", "--question", help="superior (tuned packs) or not-inferior (words, thresholds)."
        ),
        rules: Path | None = typer.Option(None, "--rules", help="TOML file of limits (docs/gate.md)."),
        split_by: str = typer.Option(
            "part", "--split-by", help="What test and tuning may not share: part, or part and day (day)."
        ),
        uses: int = typer.Option(0, "--uses", min=0, help="How often this test has decided before."),
        propose: int = typer.Option(20, "--next", min=0, help="Unlabelled frames to propose for labelling."),
        out: Path = typer.Option(Path("gate"), "--out", help="Folder for gate.html and gate.json."),
        weights: Path | None = typer.Option(None, "--weights", help="Local file of the encoder's weights."),
        device: str | None = typer.Option(None, "--device", help="cpu, cuda or cuda:N."),
        threads: int | None = typer.Option(None, "--threads", help="CPU threads."),
        config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
    ) -> int:
        given = {"model.weights": weights, "model.device": device, "model.threads": threads}
        settings = load(given, config).settings
        asked = _one_of("--question", question, ("superior", "not-inferior"))
        by: Literal["part", "day"] = (
            "day" if _one_of("--split-by", split_by, ("part", "day")) == "day" else "part"
        )
        unlooked = _one_of("--unannotated", unannotated, ("good", "unlabelled"))
        given_as: Unannotated = "good" if unlooked == "good" else "unlabelled"
        # torch and scipy take seconds to import, and other commands run without them.
        from trainer.gate.compare import Pair
        from trainer.gate.page import write_page
        from trainer.gate.record import record_of
        from trainer.gate.rules import Question, Rules
        from trainer.gate.rules_file import read_rules
        from trainer.gate.run import frames_of, run_gate
        from trainer.gate.testset import ToldUses, make_test_set, refuse_seen

        limits = Rules() if rules is None else read_rules(rules)
        packs = read_pack(champion), read_pack(challenger)
        with explained(out):
            out.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=out):
                pass  # whether the page can be written is known before the work, not after it
        source = open_dataset(
            data, Options(words=types, groups=groups, unannotated=given_as, settings=settings)
        )
        wanted = [name.strip() for name in products.split(",") if name.strip()]
        found = [source.product(name) for name in choose(source.products(), wanted, data)]
        told = errors()
        with counted(told, sum(len(product.test.samples) for product in found)) as one:
            test = make_test_set(found, one)
        others = [sample for product in found for sample in product.samples if sample.split == "train"]
        refuse_seen(test, dict(zip(("champion", "challenger"), packs, strict=True)), others, by)
        pair = Pair(*packs, settings.model, settings.run.batch)
        with counted(told, frames_of(test, propose)) as one:
            gated = run_gate(
                pair,
                test,
                champion=packs[0].configuration_hash,
                challenger=packs[1].configuration_hash,
                question=Question(asked),
                rules=limits,
                uses=ToldUses(uses),
                propose=propose,
                advance=one,
            )
        write_page(out / "gate.html", gated, pair, (champion.name, challenger.name), packs)
        line = json.dumps(record_of(gated), allow_nan=False)
        with write_whole(out / "gate.json") as file:
            file.write(line.encode())
        for finding in gated.decision.findings:
            output().print(f"{finding.outcome.value:13}  {finding.rule}: {finding.said}")
        print(line)
        return EXIT[gated.decision.outcome.value]


def _one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise SettingsError(f"{option} {value}: expected '{known[0]}' or '{known[1]}'.")
    return value
