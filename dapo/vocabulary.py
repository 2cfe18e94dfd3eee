"""Words of defects: slugs for topics and files, synonyms, and the nearest known word for messages."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources

from dapo.errors import VocabularyError

UNKNOWN_SLUG = "unknown"  # a region whose type clears nothing; no word may take it
MAX_WORD = 80  # Kafka topic names end at 249 characters; a defect word is a few words


def slugify(word: str) -> str:
    """The name of a type in topics, files and rows: [a-z0-9-].

    >>> slugify("Faulty imprint")
    'faulty-imprint'

    Raises:
        VocabularyError: nothing is left of the word, it is too long, or it is the reserved "unknown".
    """
    if len(word) > MAX_WORD:
        raise VocabularyError(
            f"defect word '{word[:40]}...': longer than {MAX_WORD} characters. Give a short word."
        )
    plain = unicodedata.normalize("NFKD", word).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
    if not slug:
        raise VocabularyError(
            f"defect word '{word}': has no letter a-z or digit. Give it a name, such as 'scratch'."
        )
    if slug == UNKNOWN_SLUG:
        raise VocabularyError(
            f"defect word '{word}': is kept for regions of no known type. Choose another word."
        )
    return slug


def check_slugs(words: Iterable[str]) -> dict[str, str]:
    """Slug -> word; two words with one slug are refused.

    Raises:
        VocabularyError: names both words.
    """
    found: dict[str, str] = {}
    for word in words:
        slug = slugify(word)
        if slug in found:
            raise VocabularyError(
                f"'{found[slug]}' and '{word}' would share the name '{slug}' in topics and files. Keep one of them."
            )
        found[slug] = word
    return found


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, None where none is near."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


@cache
def synonyms() -> Mapping[str, Sequence[str]]:
    """Canonical defect class -> the words that the bundled encoder was trained on."""
    text = (resources.files("dapo") / "vocabulary.json").read_text(encoding="utf-8")
    types: Mapping[str, Sequence[str]] = json.loads(text)["types"]
    return types
