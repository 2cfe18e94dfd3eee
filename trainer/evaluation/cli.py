"""`dapo evaluate`: labelled images against a prompt pack."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dapo.errors import OutputError, SettingsError
from dapo.pack import Pack
from dapo.pack_io import read_pack
from dapo.vocabulary import slugify
from pipeline.bundled import default_pack_path
from pipeline.cli.terminal import errors
from pipeline.settings import ModelSettings, load
from trainer.data.coco import Unannotated
from trainer.data.dataset import ProductData, choose
from trainer.data.open import Options, open_dataset
from trainer.evaluation.table import markdown

_CUT = "judged in tiles and regions, as production does; such frames have no multi-type figures"
_WHOLE = "judged as a whole, as the papers do; production looks at tiles or regions of it"


def register(app: typer.Typer) -> None:
    """Add `evaluate`."""

    @app.command()
    def evaluate(
        data: str = typer.Argument(
            ..., help="Labelled images: a folder or file, FORMAT:PATH, or archive:30d (docs/data.md)."
        ),
        protocol: str = typer.Option(
            "default",
            "--protocol",
            help="default: as production judges; paper: whole frames, method section 3.",
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
        pack: Path | None = typer.Option(None, "--pack", help="Prompt pack; default: the bundled one."),
        weights: Path | None = typer.Option(None, "--weights", help="Local file of the encoder's weights."),
        out: Path = typer.Option(Path("evaluation"), "--out", help="Folder for the tables."),
        resume: bool = typer.Option(
            False, "--resume", help="Keep products that were done with this pack and data."
        ),
        device: str | None = typer.Option(None, "--device", help="cpu, cuda or cuda:N."),
        threads: int | None = typer.Option(None, "--threads", help="CPU threads."),
        config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
    ) -> None:
        """Evaluate a pack: image, pixel and type metrics per product, and their unweighted mean."""
        if protocol not in ("paper", "default"):
            raise SettingsError(f"--protocol {protocol}: expected 'paper' or 'default'.")
        given = {
            "pack.path": pack,
            "model.weights": weights,
            "model.device": device,
            "model.threads": threads,
        }
        settings = load(given, config).settings
        wanted = [name.strip() for name in products.split(",") if name.strip()]
        if unannotated not in ("good", "unlabelled"):
            raise SettingsError(f"--unannotated {unannotated}: expected 'good' or 'unlabelled'.")
        given_as: Unannotated = "good" if unannotated == "good" else "unlabelled"
        source = open_dataset(data, Options(words=types, unannotated=given_as, settings=settings))
        found = [source.product(name) for name in choose(source.products(), wanted, data)]
        for product in found:
            if product.unlabelled:
                errors().print(f"{product.name}: {product.unlabelled} frames are unlabelled, and left out")
        tested = [product.test for product in found]
        base = read_pack(settings.pack.path or default_pack_path())
        with _writing(out):
            result = _evaluate(tested, base, protocol, settings.model, out, resume)
        print(json.dumps(result["mean"] | {"protocol": protocol, "pack": result["configuration_hash"]}))


def _evaluate(
    data: list[ProductData], base: Pack, protocol: str, model: ModelSettings, out: Path, resume: bool
) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=out):
        pass  # whether the tables can be written is known before the work, not after it
    from dapo.packing import load_pack_encoder
    from dapo.predictor import Predictor
    from trainer.evaluation.protocol import figures, is_cut, mean_figures, pack_for, predict
    from trainer.tuning.look import shown

    encoder = load_pack_encoder(base, model.weights)
    pack = pack_for(base, encoder, data, "paper" if protocol == "paper" else "default")
    predictor = Predictor(
        pack, encoder=encoder, device=model.device, threads=model.threads, runtime=model.runtime
    )
    trained = list(base.provenance.get("training_words", ()))
    done: dict[str, Any] = {}
    # A product's name is text, not markup.
    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = errors()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("images", total=sum(len(product.samples) for product in data))
        for product in data:
            note = out / f"{protocol}-{product.name}.json"
            own = pack.product(product.name)
            as_production = protocol == "default"
            cut = is_cut(own)
            way = f"{protocol}, cut" if cut and as_production else protocol
            key = _key(pack.configuration_hash, way, product)
            kept = _kept(note, key) if resume else None
            if kept is None:
                progress.update(task, description=product.name)
                outcomes = predict(predictor, product, lambda count: progress.advance(task, count))
                kept = figures(product, outcomes, predictor.image_size, trained)
                _write(note, json.dumps({"key": key, "figures": kept}, indent=1))
            else:
                progress.advance(task, len(product.samples))
            done[product.name] = kept
            for warning in _warnings(product, kept, pack):
                console.print(f"{product.name}: {warning}")
            if cut:
                console.print(f"{product.name}: {_CUT if as_production else _WHOLE}")
            hidden = sum(sample.defective and not shown(sample, own) for sample in product.samples)
            if hidden and as_production:
                console.print(
                    f"{product.name}: {hidden} frames show their defect only where production does not look "
                    "(roi, ignore); they count as missed"
                )
    mean = mean_figures(list(done.values()))
    table = markdown(done, mean)
    result = {
        "protocol": protocol,
        "configuration_hash": base.configuration_hash,
        "products": done,
        "mean": mean,
    }
    _write(out / f"{protocol}.md", table)
    _write(out / f"{protocol}.json", json.dumps(result, indent=1))
    print(table)
    return result


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """What goes wrong with files in here goes wrong with the tables: images are read behind errors of their own."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{out}: the tables can't be written: {error.strerror}. Give another folder with --out."
        ) from error


def _warnings(product: ProductData, row: dict[str, Any], pack: Pack) -> list[str]:
    found = []
    untrained = {word.slug for word in pack.types if not word.trained}
    if unknown := [word for word in product.words if slugify(word) in untrained]:
        names = ", ".join(unknown)
        found.append(f"{pack.encoder.name} was not trained on: {names}. Such a word means 'some defect'")
    absent = list(product.absent)
    absent += (row["multi_type"] or {}).get("absent_words", [])
    if absent:
        found.append(f"listed, but in no test image, so skipped: {', '.join(sorted(set(absent)))}")
    if not product.has_good:
        found.append("no good images: no image metrics")
    if not product.has_masks:
        found.append("no masks: no pixel metrics")
    return found


def _key(configuration: str, protocol: str, product: ProductData) -> str:
    """Names what a result was computed from: pack, protocol, words, and every frame with its labels."""
    digest = hashlib.sha256(f"{configuration} {protocol} {product.name} {product.words}".encode())
    for sample in product.samples:
        digest.update(sample.version().encode())
    return digest.hexdigest()


def _kept(note: Path, key: str) -> dict[str, Any] | None:
    try:
        document = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("key") != key:
        return None
    figures: dict[str, Any] | None = document.get("figures")
    return figures


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
