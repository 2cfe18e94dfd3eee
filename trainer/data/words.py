"""Names in a data set -> defect words: built-in maps of the public sets, and a user's own file over them.

A map is TOML: `[words]` for any product, `[product.NAME.words]` for one, `[product.NAME] types = [...]` for the words its
multi-type task has in the literature, `masks = [...]` for the names of the grey values of its masks, from 1.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from dapo.errors import SourceError
from trainer.data.reading import read_text
from trainer.data.sample import GOOD

VOCABULARIES = ("mvtec", "mpdd", "mad", "visa", "real_iad")
_LISTS = ("types", "masks")
_TABLES = "Expected [words], [product.NAME.words], or types = ['scratch', ...] in [product.NAME]."


class Words:
    """What a data set's names mean.

    Args:
        vocabularies: built-in maps, the later wins.
        file: a user's map, which wins over all.
        lists: whether the lists of the built-in maps count: a user's product may be called like one of theirs.

    Raises:
        SourceError: the file can't be read or is no such map; names table and expectation.
    """

    def __init__(
        self, vocabularies: Iterable[str] = (), file: Path | None = None, *, lists: bool = True
    ) -> None:
        self._any: dict[str, str] = {}
        self._product: dict[str, dict[str, str]] = {}
        self._lists: dict[tuple[str, str], tuple[str, ...]] = {}
        for name in vocabularies:
            text = (resources.files("trainer.data") / "vocabulary" / f"{name}.toml").read_text(
                encoding="utf-8"
            )
            self._add(tomllib.loads(text), name)
        if not lists:
            self._lists = {}
        if file is not None:
            self._add(_read(file), str(file))

    def word(self, product: str, name: str) -> str:
        """The word of a folder or label; underscores become spaces where no map names it. A good frame's is "good"."""
        own = self._product.get(product, {})
        word = own.get(name) or self._any.get(name) or name.replace("_", " ").strip()
        return GOOD if word.casefold() == GOOD else word

    def types(self, product: str) -> tuple[str, ...]:
        """Words that the product's multi-type task lists; empty where no map says."""
        return self._lists.get((product, "types"), ())

    def mask_names(self, product: str) -> tuple[str, ...]:
        """Names of the grey values of the product's masks, from 1; empty where no map says."""
        return self._lists.get((product, "masks"), ())

    def _add(self, document: Mapping[str, Any], where: str) -> None:
        if unknown := set(document) - {"words", "product"}:
            raise SourceError(f"{where}: unknown table '{min(unknown)}'. {_TABLES}")
        self._any |= _words(document.get("words", {}), f"{where}: [words]")
        products = document.get("product", {})
        if not isinstance(products, dict):
            raise SourceError(f"{where}: 'product': {_TABLES}")
        for name, body in products.items():
            here = f"{where}: [product.{name}"
            if not isinstance(body, dict) or set(body) - {"words", *_LISTS}:
                raise SourceError(f"{here}]: {_TABLES}")
            self._product[name] = self._product.get(name, {}) | _words(
                body.get("words", {}), f"{here}.words]"
            )
            for key in _LISTS:
                if key in body:
                    self._lists[name, key] = _list(body[key], f"{here}]: {key}")


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise SourceError(f"{file}: not valid TOML: {error}.") from error


def _words(table: object, where: str) -> dict[str, str]:
    if not isinstance(table, dict) or not all(
        isinstance(word, str) and word.strip() for word in table.values()
    ):
        raise SourceError(f"{where}: expected lines such as broken_large = 'broken'.")
    return table


def _list(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) and word.strip() for word in value):
        raise SourceError(f"{where}: expected a list of words.")
    return tuple(value)
