"""Packs made of packs: one more word, other thresholds, other regions. Each remembers what it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dapo.errors import PackError, VocabularyError
from dapo.pack import ANY_PRODUCT, USUAL, Pack, Product, TypeWord
from dapo.vocabulary import nearest, slugify

_MOVES_SCORES = ("roi", "ignore", "tiles")  # of a product: thresholds set before are for other numbers


def add_type(
    pack: Pack, word: str, vector: NDArray[np.float32], *, products: Sequence[str] = (), trained: bool = True
) -> Pack:
    """A new pack with one more defect type; no other vector changes a bit.

    Args:
        word: the new word.
        vector: float32 [D], L2-normalised: `dapo.packing.type_vector`.
        products: products that get the type; none: every product that has types, and "*".
        trained: whether the encoder was trained on the word.

    Under `paper` scoring every score moves (t_A is a mean over the types): all products become uncalibrated and lose
    their thresholds.

    Raises:
        VocabularyError: the word shares its slug with another.
        PackError: a product is unknown.
    """
    slug = slugify(word)
    for known in pack.types:
        if known.slug == slug:
            raise VocabularyError(
                f"'{word}': the pack already has '{known.word}', which is called '{slug}' too."
            )
    for name in products:
        if name not in pack.products:
            near = nearest(name, pack.products)
            raise PackError(
                f"product '{name}' is not in the pack." + (f" Did you mean '{near}'?" if near else "")
            )
    chosen = set(products) or {
        ANY_PRODUCT,
        *(name for name, product in pack.products.items() if product.types),
    }
    moved = pack.scoring.kind == "paper"
    changed = {}
    for name, product in pack.products.items():
        types = (*product.types, slug) if name in chosen else product.types
        changed[name] = replace(uncalibrated(product) if moved else product, types=types)
    row = np.ascontiguousarray(vector, np.float32)[None]
    kept = without_usual(pack).tensors if moved else pack.tensors
    tensors = {**kept, "text.types": np.concatenate([pack.tensors["text.types"], row])}
    return replace(
        pack,
        types=(*pack.types, TypeWord(slug, word, trained)),
        products=changed,
        tensors=tensors,
        provenance=with_history(pack, {"add_type": word}),
    )


def set_threshold(pack: Pack, product: str, ok: float, notok: float) -> Pack:
    """A new pack with other thresholds for one product (made for it where the pack does not know it)."""
    changed = replace(
        pack.product(product),
        threshold_ok=float(ok),  # an integer would be hashed as one, and read back as none
        threshold_notok=float(notok),
        type_thresholds={},
        calibrated=True,
        calibration={"by": "hand"},
    )
    named = {product: changed}
    return replace(
        pack.with_products(named),
        provenance=with_history(pack, {"set_threshold": product, "ok": ok, "notok": notok}),
    )


def set_product(pack: Pack, product: str, changes: Mapping[str, Any]) -> Pack:
    """A new pack with other regions, tiles, scale or limits for one product (made for it where it is not known).

    Args:
        product: its name.
        changes: attribute of `Product` -> value. Regions and tiles move the score: where they differ from before, the
            product becomes uncalibrated and loses its thresholds.

    Raises:
        PackError: a value is out of its range.
    """
    before = pack.product(product)
    after = replace(before, **changes)
    if any(getattr(before, name) != getattr(after, name) for name in _MOVES_SCORES):
        after = uncalibrated(after)
        pack = without_usual(pack, [product])
    return replace(
        pack.with_products({product: after}),
        provenance=with_history(pack, {"set_product": product, "changes": sorted(changes)}),
    )


def uncalibrated(product: Product) -> Product:
    """The product without its thresholds."""
    return replace(
        product, threshold_ok=None, threshold_notok=None, type_thresholds={}, calibrated=False, calibration={}
    )


def with_usual(
    pack: Pack, product: str, scores: NDArray[np.floating], features: NDArray[np.floating]
) -> Pack:
    """A new pack that knows what a product usually looks like to it.

    Args:
        product: one that the pack names. One that it does not is inspected as "*" for as long as nobody names it.
        scores: anomaly scores of usual frames, [F], F > 0.
        features: their image features, [F, D]; of a frame in tiles the mean over them.

    Raises:
        PackError: the pack does not name the product.
    """
    if product not in pack.products:
        raise PackError(f"product '{product}' is not in the pack.")
    rows = np.concatenate([scores[:, None], features], 1).astype(np.float32)
    return replace(pack, tensors={**pack.tensors, USUAL + product: np.ascontiguousarray(rows)})


def without_usual(pack: Pack, products: Sequence[str] | None = None) -> Pack:
    """A new pack that does not know what these products (None: all) usually look like: scores or features have moved."""
    gone = None if products is None else {USUAL + product for product in products}
    kept = {
        name: array
        for name, array in pack.tensors.items()
        if not name.startswith(USUAL) or (gone is not None and name not in gone)
    }
    return pack if len(kept) == len(pack.tensors) else replace(pack, tensors=kept)


def with_history(pack: Pack, what: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance with one more entry in its history: what was done to which pack."""
    history = list(pack.provenance.get("history", ()))
    return {**pack.provenance, "history": [*history, {"parent": pack.configuration_hash, **what}]}
