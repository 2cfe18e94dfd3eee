"""Packs made of a tuning: the words of the data, what was learned, and where it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dapo.encoder import Encoder
from dapo.pack import PAIR, REFERENCE, STEM_TAP, Pack, TypeWord
from dapo.pack_changes import uncalibrated, with_history
from dapo.packing import make_pack, type_vector
from dapo.vocabulary import slugify
from trainer.evaluation.protocol import as_named
from trainer.tuning.examples import Example, manifest_hash
from trainer.tuning.learner import Learner

Words = Mapping[str, Sequence[str]]


FUSE_MAP = 0.5  # of a pack whose maps were learned to speak for the frame: on photographs 0.920 instead of 0.916 with a quarter


def learned_pack(base: Pack, learner: Learner, words: Words, *, paper: bool) -> Pack:
    """The pack of what was learned. Products keep their types, regions and scale; their thresholds no longer hold.

    Args:
        paper: by the paper's objective, which knows no pairs of products.
    """
    slugs = {word.slug for word in base.types}
    new = dict.fromkeys(word for own in words.values() for word in own if slugify(word) not in slugs)
    made = make_pack(
        learner.model,
        [*(word.word for word in base.types), *new],
        generic_words=base.generic_words,
        scoring=base.scoring,
        readout=base.readout,
    )
    kept = {name: array for name, array in base.tensors.items() if name.startswith((REFERENCE, STEM_TAP))}
    products = {name: uncalibrated(product) for name, product in base.products.items()}
    made = with_products(
        replace(base, types=made.types, products=products, tensors={**made.tensors, **kept}), words
    )
    if paper:
        return made
    return replace(
        made,
        scoring=replace(made.scoring, fuse_map=FUSE_MAP),
        tensors={**made.tensors, **learner.learned_pairs(made)},
    )


def products_with_pairs(base: Pack, learned: Sequence[str]) -> list[str]:
    """Products that have a pair of their own, or get one: those that are learned, and those that had one before."""
    return sorted({*learned, *(name.removeprefix(PAIR) for name in base.tensors if name.startswith(PAIR))})


def with_words(base: Pack, encoder: Encoder, words: Words) -> Pack:
    """The base with the data's products and words, nothing learned: what the same frames would get without a retuning."""
    slugs = {word.slug for word in base.types}
    new = dict.fromkeys(word for own in words.values() for word in own if slugify(word) not in slugs)
    if not new:
        return with_products(base, words)
    if base.scoring.kind == "paper":  # its scores are a mean over the types
        products = {name: uncalibrated(product) for name, product in base.products.items()}
        base = replace(base, products=products)
    rows = [type_vector(base, encoder, word) for word in new]
    knows = encoder.knows or (lambda word: True)
    made = replace(
        base,
        types=(*base.types, *(TypeWord(slugify(word), word, knows(word)) for word in new)),
        tensors={**base.tensors, "text.types": np.concatenate([base.tensors["text.types"], np.stack(rows)])},
    )
    return with_products(made, words)


def with_products(pack: Pack, words: Words) -> Pack:
    """Each product of the data with its own types, and those that the data show beside them."""
    changed = {}
    for name, own in words.items():
        product = as_named(pack, name)
        types = tuple(dict.fromkeys([*product.types, *(slugify(word) for word in own)]))
        changed[name] = replace(product, types=types)
    return pack.with_products(changed)


def remembering(
    pack: Pack,
    base: Pack,
    examples: Mapping[str, Sequence[Example]],
    how: Mapping[str, Any],
    *,
    learned: bool,
    chose: bool,
) -> Pack:
    """The pack with what it was made of, so that the same call can be told from another.

    Args:
        examples: by side.
        how: what was asked for, as plain data.
        learned: whether words or memories were learned from the frames of "train".
        chose: whether those of "validation" set weights or thresholds.
    """
    data = {name: manifest_hash(own) for name, own in examples.items()}
    said = {
        **how,
        "data": data,
        "frames": {name: len({id(e.sample) for e in own}) for name, own in examples.items()},
    }
    trained = set(base.provenance.get("training_words", ()))
    if how["tuning"] is not None:
        trained |= {word for example in examples["train"] if example.teaches for word in example.sample.words}
    provenance = with_history(base, {"retune": json.loads(json.dumps(said))})
    kinds = {
        "tuned_on": examples["train"] if learned else (),
        "calibrated_on": examples["validation"] if chose else (),
    }
    hashes = {
        name: sorted({*base.provenance.get(name, ()), *(e.content.pixels for e in own)})
        for name, own in kinds.items()
    }
    return replace(pack, provenance={**provenance, "training_words": sorted(trained), **hashes})
