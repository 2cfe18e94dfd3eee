"""Day zero: a pack from hand-written prompts, for any encoder, without training.

Sentences are every photo template around every state phrase, encoded by the plain text tower and averaged:
the prompt ensemble of WinCLIP (Jeong et al., arXiv 2303.14814). It is also the baseline that learned prompts
have to beat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dapo.encoder import Encoder
from dapo.errors import VocabularyError
from dapo.pack import Pack, Scoring
from dapo.packing import DEFAULT_SCORING, assemble
from dapo.prompts import GENERIC_WORDS, token_ids

PHOTO_TEMPLATES = (
    "{}",
    "a photo of a {}",
    "a photo of the {}",
    "a cropped photo of the {}",
    "a close up photo of a {}",
    "a photo of a {} for visual inspection",
    "a photo of a {} for anomaly detection",
)
NORMAL_STATES = (
    "{noun}",
    "flawless {noun}",
    "perfect {noun}",
    "unblemished {noun}",
    "{noun} without flaw",
    "{noun} without defect",
    "{noun} without damage",
)
DEFECT_STATES = ("{noun} with {word}", "{noun} with a {word}", "{word} on the {noun}")


def make_handwritten_pack(
    encoder: Encoder,
    words: Sequence[str],
    *,
    products: Mapping[str, Sequence[str]] | None = None,
    generic_words: Sequence[str] = GENERIC_WORDS,
    scoring: Scoring = DEFAULT_SCORING,
    temperature: float | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Pack:
    """A pack of kind "handwritten": text vectors only.

    Args:
        encoder: any.
        words: defect types.
        products: words of each product; product "*" always gets all.
        generic_words: words that detect whatever the types are.
        scoring: how scores are made.
        temperature: None for the encoder's own (0.01 for OpenAI's CLIP).
        provenance: what to remember.

    Raises:
        VocabularyError: a word is empty, or two words share a slug.
        PackError: a product names a word that is not among `words`.
    """
    if temperature is None:
        scale: Any = encoder.clip.logit_scale
        temperature = 1 / scale.exp().item()
    return assemble(
        encoder,
        "handwritten",
        words,
        normal=normal_vector(encoder),
        generic=F.normalize(type_vectors(encoder, generic_words).mean(0), dim=-1),
        types=type_vectors(encoder, words),
        learned={},
        temperature=temperature,
        alpha=0.0,
        readout="eot",
        generic_words=generic_words,
        products=products,
        scoring=scoring,
        provenance=provenance,
    )


def normal_vector(encoder: Encoder) -> Tensor:
    """[D], the ensemble of the normal state, L2-normalised."""
    noun = encoder.normal_template_noun
    return _ensemble(encoder, [state.format(noun=noun) for state in NORMAL_STATES])


def type_vectors(encoder: Encoder, words: Sequence[str]) -> Tensor:
    """[K, D], one ensemble per word, each encoded on its own, L2-normalised.

    Raises:
        VocabularyError: a word is empty.
    """
    noun = encoder.normal_template_noun
    rows = []
    for word in words:
        if not word.strip():
            raise VocabularyError("a defect type is an empty word. Give it a name, such as 'scratch'.")
        rows.append(
            _ensemble(encoder, [state.format(noun=noun, word=word.strip()) for state in DEFECT_STATES])
        )
    return torch.stack(rows) if rows else torch.empty(0, encoder.joint_width)


def _ensemble(encoder: Encoder, states: Sequence[str]) -> Tensor:
    sentences = [photo.format(state) for photo in PHOTO_TEMPLATES for state in states]
    clip: Any = encoder.clip
    with torch.no_grad():
        encoded: Tensor = clip.encode_text(token_ids(encoder, sentences), normalize=True)
    return F.normalize(encoded.mean(0), dim=-1)
