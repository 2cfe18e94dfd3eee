"""What the text tower reads in training: every promised word, in the sentences that prompts are made of."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources

import numpy as np

from trainer.encoder.generator import DEFECT_NAMES, FAMILIES

# Photo templates and state templates are those that CLIP and WinCLIP (arXiv 2303.14814) use for prompt ensembles.
PHOTO_TEMPLATES = (
    "{}",
    "a photo of a {}",
    "a photo of the {}",
    "a cropped photo of a {}",
    "a cropped photo of the {}",
    "a close up photo of a {}",
    "a close up photo of the {}",
    "a bright photo of a {}",
    "a bright photo of the {}",
    "a dark photo of a {}",
    "a dark photo of the {}",
    "a jpeg corrupted photo of a {}",
    "a jpeg corrupted photo of the {}",
    "a blurry photo of a {}",
    "a blurry photo of the {}",
    "a photo of a small {}",
    "a photo of the small {}",
    "a photo of a large {}",
    "a photo of the large {}",
    "a photo of a {} for visual inspection",
    "a photo of the {} for visual inspection",
    "a photo of a {} for anomaly detection",
    "a photo of the {} for anomaly detection",
    "an image of a {}",
    "a picture of a {}",
    "industrial inspection photo of a {}",
)
NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "normal {}",
    "good {}",
    "clean {}",
    "intact {}",
    "undamaged {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
    "{} without defects",
)
DEFECT_STATES = (
    "{noun} with {defect}",
    "{noun} with a {defect}",
    "{noun} with the {defect}",
    "{noun} with a large {defect}",
    "{noun} with a small {defect}",
    "{noun} that has a {defect}",
    "{noun} showing {defect}",
    "{defect} {noun}",
    "{defect} on the {noun}",
    "{defect} anomaly {noun}",
)
GENERIC_NOUNS = (
    "object", "surface", "product", "part", "item", "material", "component", "workpiece", "texture", "sample",
    "industrial part", "thing", "sheet", "metal", "panel",
)  # fmt: skip
# Product words without procedural pictures: known, so that naming a product never reads as "some defect".
PRODUCT_NOUNS = (
    "bottle", "cable", "capsule", "capsules", "carpet", "grid", "hazelnut", "leather", "metal nut", "pill", "screw", "tile",
    "toothbrush", "transistor", "wood", "zipper", "candle", "cashew", "chewing gum", "fryum", "macaroni", "pcb", "pipe fryum",
    "bracket", "bracket black", "bracket brown", "bracket white", "connector", "metal plate", "tubes", "tube", "pipe",
    "magnetic tile", "steel strip", "solar cell", "solar module", "solar panel", "road", "circuit board", "weld", "rail",
    "textile", "wafer", "ceramic", "casing", "battery", "lens", "display", "gear", "marble", "fabric", "mesh", "bolt",
    "washer", "bearing", "cap", "can", "label", "box", "wheel", "engine", "housing", "glass", "plastic", "rubber",
)  # fmt: skip
_UNKNOWN_WORD = "zzz"  # in no vocabulary: read as the unknown token
_UNKNOWN_SHARE = 0.12


def _vocabulary() -> dict[str, dict[str, list[str]]]:
    text = (resources.files("dapo") / "vocabulary.json").read_text()
    loaded: dict[str, dict[str, list[str]]] = json.loads(text)
    return loaded


def class_words() -> tuple[tuple[str, ...], ...]:
    """Words of each defect class, in the order of the generator's DEFECT_NAMES."""
    types = _vocabulary()["types"]
    if set(types) != set(DEFECT_NAMES):
        odd = sorted(set(types) ^ set(DEFECT_NAMES))
        raise SystemExit(f"dapo/vocabulary.json and the generator name different defect classes: {odd}")
    return tuple(tuple(types[name]) for name in DEFECT_NAMES)


def generic_words() -> tuple[str, ...]:
    """Words that mean "some defect"."""
    return tuple(_vocabulary()["generic"])


@cache
def phrases() -> tuple[str, ...]:
    """The vocabulary of the tokenizer, one token a phrase, in a fixed order."""
    found: dict[str, None] = {}
    for template in (*PHOTO_TEMPLATES, *NORMAL_STATES, *DEFECT_STATES, "and"):
        for word in re.findall(r"[a-z]+", re.sub(r"\{\w*\}", " ", template)):
            found[word] = None
    nouns = [noun for family in FAMILIES.values() for noun in family.nouns]
    words = [word for group in class_words() for word in group]
    for phrase in (*GENERIC_NOUNS, *PRODUCT_NOUNS, *nouns, *words, *generic_words()):
        found[" ".join(re.findall(r"[a-z0-9]+", phrase.lower()))] = None
    return tuple(found)


class Writer:
    """Draws sentences; seeded."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._words = class_words()
        self._generic = (*generic_words(), *([_UNKNOWN_WORD] * 4))

    def pick(self, options: tuple[str, ...]) -> str:
        return options[int(self._rng.integers(len(options)))]

    def noun(self, family: str | None) -> str:
        """A noun for a family, or a general one; now and then a word nobody knows."""
        if self._rng.random() < _UNKNOWN_SHARE:
            return _UNKNOWN_WORD
        if family is not None and self._rng.random() < 0.6:
            return self.pick(FAMILIES[family].nouns)
        return self.pick(GENERIC_NOUNS if self._rng.random() < 0.6 else PRODUCT_NOUNS)

    def word(self, defect_class: int) -> str:
        return self.pick(self._words[defect_class])

    def normal(self, noun: str) -> str:
        return self.pick(PHOTO_TEMPLATES).format(self.pick(NORMAL_STATES).format(noun))

    def defective(self, noun: str, word: str) -> str:
        return self.pick(PHOTO_TEMPLATES).format(self.pick(DEFECT_STATES).format(noun=noun, defect=word))

    def bank(self, noun: str) -> list[str]:
        """Normal, one sentence per defect class, one generic sentence: [1 + C + 1]."""
        typed = [self.defective(noun, self.word(index)) for index in range(len(self._words))]
        return [self.normal(noun), *typed, self.defective(noun, self.pick(self._generic))]

    def caption(self, family: str, classes: list[int]) -> str:
        """A caption of one image with the given defect classes (none: normal)."""
        noun = self.noun(family)
        if not classes:
            return self.normal(noun)
        words = [self.word(index) for index in classes[:2]]
        return self.defective(noun, " and ".join(words))
