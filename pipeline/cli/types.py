"""`dapo types`: the vocabulary of a pack, and what each word is near to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import typer
from rich.table import Table

from dapo.pack import Pack
from dapo.pack_io import read_pack
from pipeline.bundled import default_pack_path
from pipeline.cli.terminal import output
from pipeline.settings import load

_NEIGHBOURS = 3


def register(app: typer.Typer) -> None:
    """Add `types`."""

    @app.command()
    def types(
        pack: Path | None = typer.Option(None, "--pack", help="Prompt pack; default: the bundled one."),
        config: Path | None = typer.Option(None, "--config", help="TOML file of settings."),
    ) -> None:
        """List the defect words of a pack with the words their vectors are nearest to."""
        settings = load({"pack.path": pack}, config).settings
        output().print(vocabulary_table(read_pack(settings.pack.path or default_pack_path())))


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
