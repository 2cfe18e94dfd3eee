"""Put a pack together for one run: the product's own defect words, as the user gave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dapo.errors import VocabularyError
from dapo.pack import Pack
from dapo.pack_changes import add_type
from dapo.vocabulary import check_slugs
from pipeline.infer import InProcessInfer

if TYPE_CHECKING:
    from dapo.encoder import Encoder
    from dapo.runtime import Runtime


def choose_types(pack: Pack, product: str, words: Sequence[str], encoder: Encoder | None = None) -> Pack:
    """The pack with exactly these types for one product; thresholds, regions and scale stay.

    A word that the pack has keeps its vector; a new one is encoded, which needs `encoder` and no image.

    Raises:
        VocabularyError: a word is empty, two share a slug, or a new one comes without an encoder.
    """
    slugs = check_slugs(words)
    pack = pack.with_products({product: pack.product(product)})
    known = {word.slug for word in pack.types}
    for slug, word in slugs.items():
        if slug in known:
            continue
        if encoder is None:
            raise VocabularyError(
                f"--types: '{word}' is not in the pack. Add it with 'dapo pack add-type' first."
            )
        from dapo.packing import type_vector

        trained = encoder.knows is None or encoder.knows(word)
        pack = add_type(pack, word, type_vector(pack, encoder, word), products=[product], trained=trained)
    return pack.with_products({product: replace(pack.product(product), types=tuple(slugs))})


def in_process(
    pack: Pack,
    product: str,
    words: Sequence[str],
    *,
    batch: int,
    weights: Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    runtime: Runtime = "auto",
) -> tuple[Pack, InProcessInfer]:
    """The pack with the words chosen, and a model that answers with it; the encoder is loaded once.

    Raises:
        WeightsNotFound, EncoderMismatch, SettingsError, VocabularyError: see `Predictor` and `choose_types`.
    """
    from dapo.packing import load_pack_encoder
    from dapo.predictor import Predictor

    encoder = load_pack_encoder(pack, weights)
    if words:
        pack = choose_types(pack, product, words, encoder)
    predictor = Predictor(pack, encoder=encoder, device=device, threads=threads, runtime=runtime, batch=batch)
    return pack, InProcessInfer(pack, batch=batch, predictor=predictor)
