"""`dapo types`: the vocabulary of a pack, and what each word is near to. `dapo types add`: a new word on a running line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import typer
from rich.table import Table

from dapo.errors import PackError, VocabularyError
from dapo.pack import Pack
from dapo.pack_changes import add_type, set_product
from dapo.pack_io import read_pack
from dapo.vocabulary import nearest, slugify
from pipeline.bundled import default_pack_path
from pipeline.cli.models import line_of, opened, promoted
from pipeline.cli.terminal import errors, output
from pipeline.settings import load

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEIGHBOURS = 3


def register(app: typer.Typer) -> None:
    """Add `types`."""
    types = typer.Typer(
        help="List the defect words of a pack, or add one to a running line.", invoke_without_command=True
    )
    types.callback()(list_types)
    types.command("add")(add)
    app.add_typer(types, name="types")


def list_types(
    context: typer.Context,
    pack: Path | None = typer.Option(None, "--pack", help="Prompt pack; default: the bundled one."),
    config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
) -> None:
    """List the defect words of a pack with the words their vectors are nearest to."""
    if context.invoked_subcommand is not None:
        return
    settings = load({"pack.path": pack}, config).settings
    output().print(vocabulary_table(read_pack(settings.pack.path or default_pack_path())))


def add(
    product: str = typer.Argument(..., help="Product of the champion that gets the word; '*': all others."),
    word: str = typer.Argument(..., help="Defect word, as people say it."),
    url: list[str] = typer.Option(
        [],
        "--url",
        help="host:port of a model server. May be given several times.",
        show_default="triton.url",
    ),
    weights: Path | None = typer.Option(None, "--weights", help="Local file of the encoder's weights."),
    config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
) -> None:
    """Give a product a defect word while its line runs: a new champion that differs in this word alone.

    No score and no evaluation moves, only types may; so it needs no gate. The word is encoded where the champion does not
    have it for another product already.
    """
    loaded = load({"model.weights": weights}, config)
    with opened(loaded.settings) as registry:
        changed = with_word(registry.champion(), product, word, loaded.settings.model.weights)
        digest = registry.push(changed)
        move = promoted(registry, digest, loaded, url)
    if move is not None:
        print(line_of(move))
    known = next(one for one in changed.types if one.slug == slugify(word))
    if not known.trained:
        errors().print(
            f"warning: {changed.encoder.name} was not trained on: {word}. It means 'some defect'; "
            "'dapo types' lists known words."
        )


def with_word(champion: Pack, product: str, word: str, weights: Path | None = None) -> Pack:
    """The champion with one more type for a product.

    Args:
        weights: local file of the encoder's weights, where the word has to be encoded.

    Raises:
        PackError: the product is not in the pack, or has paper scoring.
        VocabularyError: the product has the word already.
    """
    if champion.scoring.kind == "paper":
        raise PackError(
            "the champion has paper scoring: a new word moves every score, so thresholds have to be set anew. Add it with "
            "'dapo pack add-type', set thresholds with 'dapo calibrate', and promote what the gate lets through."
        )
    if product not in champion.products:
        near = nearest(product, champion.products)
        raise PackError(
            f"product '{product}' is not in the champion." + (f" Did you mean '{near}'?" if near else "")
        )
    slug = slugify(word)
    if slug in champion.products[product].types:
        raise VocabularyError(f"product '{product}' has '{slug}' already.")
    if any(one.slug == slug for one in champion.types):
        return set_product(champion, product, {"types": (*champion.products[product].types, slug)})
    vector, trained = _encoded(champion, word, weights)
    return add_type(champion, word, vector, products=[product], trained=trained)


def _encoded(pack: Pack, word: str, weights: Path | None) -> tuple[NDArray[np.float32], bool]:
    from dapo.packing import load_pack_encoder, type_vector

    encoder = load_pack_encoder(pack, weights)
    return type_vector(pack, encoder, word), encoder.knows is None or encoder.knows(word)


def neighbours(pack: Pack) -> dict[str, list[tuple[str, float]]]:
    """Per type slug the three nearest others, by cosine of their text vectors."""
    slugs = [word.slug for word in pack.types]
    cosines = pack.tensors["text.types"] @ pack.tensors["text.types"].T
    found = {}
    for row, slug in enumerate(slugs):
        order = [int(i) for i in np.argsort(-cosines[row], kind="stable") if i != row]
        found[slug] = [(slugs[i], float(cosines[row, i])) for i in order[:_NEIGHBOURS]]
    return found


def vocabulary_table(pack: Pack) -> Table:
    """The table that `dapo types` prints."""
    table = Table("type", "word", "trained", "near to (cosine)", "products", box=None, pad_edge=False)
    near = neighbours(pack)
    for word in pack.types:
        products = [name for name, product in sorted(pack.products.items()) if word.slug in product.types]
        close = ", ".join(f"{slug} {cosine:.2f}" for slug, cosine in near[word.slug])
        table.add_row(
            word.slug, word.word, "yes" if word.trained else "no: some defect", close, ", ".join(products)
        )
    return table
