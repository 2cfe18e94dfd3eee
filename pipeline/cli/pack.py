"""`dapo pack`: look at prompt packs and change them. No training, no restart, no image."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from dapo.errors import PackError, SettingsError
from dapo.pack import ANY_PRODUCT, Pack, as_json
from dapo.pack_changes import add_type, set_product, set_threshold
from dapo.pack_diff import diff_packs
from dapo.pack_io import check_writable, read_pack, write_pack
from dapo.vocabulary import check_slugs
from pipeline.cli.regions import cleared, parse_tiles, polygons
from pipeline.cli.terminal import errors, output
from pipeline.settings import load

if TYPE_CHECKING:
    from dapo.encoder import Encoder

_OUT = typer.Option(..., "--out", help="The new pack. Packs are immutable: the old one stays.")
_CONFIG = typer.Option(None, "--config", help="TOML file of settings.")
_WEIGHTS = typer.Option(None, "--weights", help="Local file of the encoder's weights.")


def register(app: typer.Typer) -> None:
    """Add `pack`."""
    pack = typer.Typer(help="Show, verify, compare, make and change prompt packs.", no_args_is_help=True)
    for command in (show, verify, diff, new, export, add_type_, set_threshold_, set_product_):
        pack.command(name=command.__name__.strip("_").replace("_", "-"))(command)
    app.add_typer(pack, name="pack")


def show(path: Path, as_json_: bool = typer.Option(False, "--json", help="Everything, as JSON.")) -> None:
    """What a pack is for: encoder, words, products, thresholds, where it came from."""
    pack = read_pack(path)
    if as_json_:
        print(json.dumps({"hash": pack.configuration_hash, **as_json(pack)}, indent=1))
        return
    console = output()
    console.print(
        f"{path}  {pack.kind}, {pack.scoring.kind} scoring\nconfiguration {pack.configuration_hash}"
    )
    console.print(
        f"encoder {pack.encoder.name} / {pack.encoder.weights}, sha256 {pack.encoder.sha256}, {pack.encoder.image_size} px"
    )
    console.print(f"{len(pack.types)} types: {', '.join(word.slug for word in pack.types)}")
    table = Table(
        "product", "types", "OK below", "NotOK from", "calibrated", "tiles", "mm/px", box=None, pad_edge=False
    )
    for name, product in sorted(pack.products.items()):
        ok, notok = (
            f"{t:.4f}" if t is not None else "-" for t in (product.threshold_ok, product.threshold_notok)
        )
        tiles = f"{product.tiles.rows} x {product.tiles.columns}" if product.tiles else "-"
        scale = f"{product.mm_per_px:g}" if product.mm_per_px else "-"
        table.add_row(
            name, str(len(product.types)), ok, notok, "yes" if product.calibrated else "no", tiles, scale
        )
    console.print(table)


def verify(path: Path) -> None:
    """Read a pack, check every part of it against its hash, and print the hash."""
    print(f"{path}: intact, configuration {read_pack(path).configuration_hash}")


def diff(old: Path, new: Path) -> None:
    """What differs between two packs; exit status 1 where anything does."""
    lines = diff_packs(read_pack(old), read_pack(new))
    print("\n".join(lines) if lines else "the packs are the same")
    raise typer.Exit(1 if lines else 0)


def new(
    words: str = typer.Option(..., "--types", help="Defect words, separated by commas."),
    out: Path = _OUT,
    encoder: str = typer.Option("dapo-tiny", "--encoder", help="open_clip architecture, or dapo-tiny."),
    tag: str = typer.Option(
        "openai",
        "--tag",
        help="Hub tag of the weights, also of a file of them; 'file' for weights of your own.",
    ),
    image_size: int | None = typer.Option(None, "--image-size", min=1, help="Side of the model's input, px."),
    checkpoint: Path | None = typer.Option(
        None, "--checkpoint", help="Learned prompts and adapters, as the research code saves them."
    ),
    weights: Path | None = _WEIGHTS,
    config: Path | None = _CONFIG,
) -> None:
    """A pack of hand-written prompts: day zero for any encoder, no training. Or of a checkpoint's learned ones."""
    from dapo.encoder import load_encoder
    from dapo.handwritten import make_handwritten_pack

    settings = load({"model.weights": weights}, config).settings
    chosen = _words(words)
    check_slugs(chosen)
    check_writable(out)
    learned = None if checkpoint is None else _checkpoint(checkpoint)
    loaded = load_encoder(encoder, tag, image_size, settings.model.weights)
    pack = make_handwritten_pack(loaded, chosen) if learned is None else learned(loaded, chosen)
    _report(write_pack(pack, out), out)
    _warn(pack)


def _checkpoint(path: Path) -> Callable[[Encoder, Sequence[str]], Pack]:
    """Read a checkpoint; what makes a pack of it, once its encoder is loaded."""
    from dapo.checkpoint import load_checkpoint, read_checkpoint
    from dapo.model import DapoModel
    from dapo.packing import make_pack

    found = read_checkpoint(path)

    def make(encoder: Encoder, words: Sequence[str]) -> Pack:
        model = DapoModel(encoder).eval()
        load_checkpoint(model, found)
        return make_pack(model, words, provenance={"checkpoint": path.name})

    return make


def export(
    path: Path,
    out: Path = typer.Option(..., "--out", help="The checkpoint."),
    weights: Path | None = _WEIGHTS,
    config: Path | None = _CONFIG,
) -> None:
    """Write a pack's learned prompts and adapters as a checkpoint that the research code reads."""
    from dapo.checkpoint import export_checkpoint, write_checkpoint
    from dapo.packing import load_pack_encoder, model_from_pack

    settings = load({"model.weights": weights}, config).settings
    pack = read_pack(path)
    check_writable(out)
    model = model_from_pack(pack, load_pack_encoder(pack, settings.model.weights))
    write_checkpoint(export_checkpoint(model), out)
    print(f"{out}: checkpoint of configuration {pack.configuration_hash}")


def add_type_(
    path: Path,
    word: str,
    out: Path = _OUT,
    product: list[str] = typer.Option(
        [], "--product", help="Products that get the type; default: all with types."
    ),
    weights: Path | None = _WEIGHTS,
    config: Path | None = _CONFIG,
) -> None:
    """Add a defect word: one text encoding, no image, no other type changes."""
    from dapo.packing import load_pack_encoder, type_vector

    settings = load({"model.weights": weights}, config).settings
    pack = read_pack(path)
    check_writable(out)
    encoder = load_pack_encoder(pack, settings.model.weights)
    trained = encoder.knows is None or encoder.knows(word)
    changed = add_type(pack, word, type_vector(pack, encoder, word), products=product, trained=trained)
    _report(write_pack(changed, out), out)
    _warn(changed)
    if changed.scoring.kind == "paper":
        errors().print(
            "paper scoring: every score has moved, so no product has thresholds any more; run 'dapo calibrate' for each"
        )


def set_threshold_(
    path: Path,
    ok: float = typer.Option(..., "--ok", help="Scores below are OK."),
    notok: float = typer.Option(..., "--notok", help="Scores from here on are NotOK."),
    product: str = typer.Option(ANY_PRODUCT, "--product", help="Product; a new one is made like '*'."),
    out: Path = _OUT,
) -> None:
    """Set one product's thresholds by hand; nothing else changes."""
    _report(write_pack(set_threshold(read_pack(path), product, ok, notok), out), out)


def set_product_(
    path: Path,
    product: str = typer.Option(..., "--product", help="Product; a new one is made like '*'."),
    out: Path = _OUT,
    roi: list[str] = typer.Option(
        [],
        "--roi",
        help="Polygon to look at, in fractions of width and height: '0.1,0.1 0.9,0.1 0.9,0.8'. Repeatable.",
    ),
    ignore: list[str] = typer.Option([], "--ignore", help="Polygon not to look at, likewise. Repeatable."),
    tiles: str | None = typer.Option(
        None, "--tiles", help="Cut frames into ROWSxCOLUMNS@OVERLAP, such as 3x4@0.1."
    ),
    mm_per_px: float | None = typer.Option(None, "--mm-per-px", help="Scale of the frames."),
    mask_threshold: float | None = typer.Option(
        None, "--mask-threshold", help="Anomaly from which a pixel is a defect, 0 to 1."
    ),
    min_area_px: int | None = typer.Option(None, "--min-area-px", help="Smaller regions are dropped."),
    max_regions: int | None = typer.Option(None, "--max-regions", help="Most regions of one frame."),
    clear: list[str] = typer.Option(
        [], "--clear", help="roi, ignore, tiles or mm-per-px: unset it. Repeatable."
    ),
) -> None:
    """Set one product's regions, tiles, scale or limits. New regions or tiles move scores: calibrate afterwards."""
    given = {
        "roi": polygons("--roi", roi) or None,
        "ignore": polygons("--ignore", ignore) or None,
        "tiles": None if tiles is None else parse_tiles(tiles),
        "mm_per_px": mm_per_px,
        "mask_threshold": mask_threshold,
        "min_area_px": min_area_px,
        "max_regions": max_regions,
    }
    changes = cleared(clear) | {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise SettingsError(
            "nothing to set. Give at least one of --roi, --ignore, --tiles, --mm-per-px, --mask-threshold, "
            "--min-area-px, --max-regions, --clear."
        )
    pack = read_pack(path)
    changed = set_product(pack, product, changes)
    _report(write_pack(changed, out), out)
    if pack.product(product).threshold_ok is not None and changed.product(product).threshold_ok is None:
        errors().print(
            f"{product}: scores move with regions and tiles, so its thresholds are unset; run 'dapo calibrate'"
        )


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise PackError("--types: no defect word is given. Example: --types scratch,hole,'faulty imprint'")
    return words


def _report(digest: str, out: Path) -> None:
    print(f"{out}: configuration {digest}")


def _warn(pack: Pack) -> None:
    unknown = [word.word for word in pack.types if not word.trained]
    if unknown:
        names = ", ".join(unknown)
        errors().print(
            f"warning: {pack.encoder.name} was not trained on: {names}. They mean 'some defect'; "
            "'dapo types' lists known words."
        )
