"""Between the model and the prompt pack: a pack from a trained model, a model and an encoder from a pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dapo.encoder import Encoder, load_encoder
from dapo.errors import EncoderMismatch, PackError
from dapo.model import DapoModel
from dapo.pack import ANY_PRODUCT, EncoderRef, Kind, Pack, Product, Scoring, TypeWord
from dapo.patches import WEIGHT
from dapo.prompts import GENERIC_WORDS
from dapo.text import Readout
from dapo.vocabulary import slugify

DEFAULT_SCORING = Scoring()


def make_pack(
    model: DapoModel,
    words: Sequence[str],
    *,
    products: Mapping[str, Sequence[str]] | None = None,
    generic_words: Sequence[str] = GENERIC_WORDS,
    scoring: Scoring = DEFAULT_SCORING,
    readout: Readout = "eot",
    provenance: Mapping[str, Any] | None = None,
) -> Pack:
    """A prompt pack of kind "dapo" from a model's learned parameters.

    Args:
        model: trained, or fresh.
        words: defect types, in the row order of the pack's text matrix.
        products: words of each product; product "*" always gets all.
        generic_words: words that detect whatever the types are.
        scoring: how scores are made.
        readout: of the text tower.
        provenance: what to remember of the training.

    Raises:
        VocabularyError: a word is empty, or two words share a slug.
        PackError: a product names a word that is not among `words`.
    """
    with torch.no_grad():
        text = model.text_matrix(words, readout)
        generic = F.normalize(model.text_vectors(generic_words, readout).mean(0), dim=-1)
    return assemble(
        model.encoder,
        "dapo",
        words,
        normal=text[0],
        generic=generic,
        types=text[1:],
        learned=model.learned(),
        temperature=model.temperature,
        alpha=model.alpha,
        readout=readout,
        generic_words=generic_words,
        products=products,
        scoring=scoring,
        provenance=provenance,
    )


def assemble(
    encoder: Encoder,
    kind: Kind,
    words: Sequence[str],
    *,
    normal: Tensor,
    generic: Tensor,
    types: Tensor,
    learned: Mapping[str, Tensor],
    temperature: float,
    alpha: float,
    readout: Readout,
    generic_words: Sequence[str],
    products: Mapping[str, Sequence[str]] | None,
    scoring: Scoring,
    provenance: Mapping[str, Any] | None,
) -> Pack:
    """Put a pack together from its text vectors [D], [D], [K, D] and learned tensors; see `make_pack`."""
    slugs = [slugify(word) for word in words]
    named = {name: tuple(slugify(word) for word in own) for name, own in (products or {}).items()}
    knows = encoder.knows or (lambda word: True)
    tensors = {"text.normal": normal, "text.generic": generic, "text.types": types, **learned}
    return Pack(
        kind=kind,
        encoder=reference(encoder),
        scoring=scoring,
        temperature=temperature,
        alpha=alpha,
        readout=readout,
        mean=encoder.mean,
        std=encoder.std,
        types=tuple(TypeWord(slug, word, knows(word)) for slug, word in zip(slugs, words, strict=True)),
        generic_words=tuple(generic_words),
        products={name: Product(types=own) for name, own in {ANY_PRODUCT: tuple(slugs), **named}.items()},
        provenance=dict(provenance or {}),
        tensors={name: _array(tensor) for name, tensor in tensors.items()},
    )


def reference(encoder: Encoder) -> EncoderRef:
    """How a pack names an encoder."""
    return EncoderRef(
        name=encoder.name,
        weights=encoder.weights,
        sha256=encoder.sha256,
        image_size=encoder.image_size,
        patch_grid=encoder.grid,
        joint_width=encoder.joint_width,
        activation=encoder.activation,
    )


def load_pack_encoder(pack: Pack, weights: Path | None = None) -> Encoder:
    """Load the encoder a pack was made for.

    Args:
        pack: names architecture, weights and their hash.
        weights: local file, instead of the bundle or the hub.

    Raises:
        EncoderMismatch: the weights found are not those the pack was made for.
        WeightsNotFound: no weights are found.
    """
    wanted = pack.encoder
    encoder = load_encoder(wanted.name, wanted.weights, wanted.image_size, weights)
    check_encoder(pack, encoder)
    return encoder


def check_encoder(pack: Pack, encoder: Encoder) -> None:
    """Refuse an encoder that a pack was not made for.

    Raises:
        EncoderMismatch: names both hashes, or what else differs.
    """
    wanted, found = pack.encoder, reference(encoder)
    if wanted.sha256 != found.sha256:
        raise EncoderMismatch(
            f"the pack was made for encoder {wanted.name} / {wanted.weights} "
            f"with weights sha256 {wanted.sha256}, but {found.name} / {found.weights} "
            f"with sha256 {found.sha256} is loaded. "
            f"Give the pack's own weights with --weights FILE, or take a pack made for this encoder."
        )
    if (wanted.image_size, wanted.patch_grid) != (found.image_size, found.patch_grid):
        raise EncoderMismatch(
            f"the pack was made for images of {wanted.image_size} px ({wanted.patch_grid} patches a "
            f"side), the encoder was loaded for {found.image_size} px ({found.patch_grid}). "
            f"Both have weights sha256 {wanted.sha256}."
        )
    if wanted.activation not in (None, found.activation) or (pack.mean, pack.std) != (
        encoder.mean,
        encoder.std,
    ):
        raise EncoderMismatch(
            f"the pack was made for {wanted.name} / {wanted.weights} with activation {wanted.activation}, "
            f"mean {pack.mean} and std {pack.std}, but {found.name} / {found.weights} was loaded with "
            f"{found.activation}, {encoder.mean} and {encoder.std}. Both have weights sha256 {wanted.sha256}: "
            f"the same file under another tag is another model. Make the pack again with the right --tag."
        )


def model_from_pack(pack: Pack, encoder: Encoder) -> DapoModel:
    """The model whose learned parameters a pack of kind "dapo" carries.

    Raises:
        EncoderMismatch: another encoder than the pack's.
        PackError: the pack has no learned parameters, or they do not fit the encoder.
    """
    check_encoder(pack, encoder)
    if pack.kind != "dapo":
        raise PackError(
            "the pack is of hand-written prompts: it has no learned parameters to load into a model."
        )
    depth = sum(name.startswith("prompt.text.") for name in pack.tensors)
    prompts, context, _ = pack.tensors["prompt.normal"].shape
    model = DapoModel(
        encoder,
        prompts=prompts,
        context=context,
        tokens=pack.tensors["prompt.visual"].shape[1],
        text_depth=depth,
        alpha=pack.alpha,
        temperature=pack.temperature,
    )
    if WEIGHT in pack.tensors:
        model.tune_patches()
    with torch.no_grad():
        for name, target in model.learned().items():
            found = pack.tensors.get(name)
            if found is None or list(found.shape) != list(target.shape):
                shape = "no such tensor" if found is None else f"shape {list(found.shape)}"
                raise PackError(
                    f"{name}: expected shape {list(target.shape)} for {encoder.name}, found {shape}."
                )
            target.copy_(
                torch.from_numpy(np.array(found))
            )  # a copy: what is read from a file may be read-only
    return model


def type_vector(pack: Pack, encoder: Encoder, word: str) -> NDArray[np.float32]:
    """Encode one new defect word as the pack's own types were encoded: one sentence set, no image.

    Returns:
        float32 [D], L2-normalised: a row for `dapo.pack.add_type`.

    Raises:
        EncoderMismatch: another encoder than the pack's.
        VocabularyError: the word is empty.
    """
    check_encoder(pack, encoder)
    if pack.kind == "dapo":
        with torch.no_grad():
            return _array(model_from_pack(pack, encoder).text_vectors([word], pack.readout)[0])
    from dapo.handwritten import type_vectors  # imports this module

    return _array(type_vectors(encoder, [word])[0])


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().cpu().numpy().astype(np.float32))
