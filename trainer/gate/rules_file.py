"""A plant's limits in a file.

margin = 0.01            # all of them may be left out: trainer.gate.rules.Rules
false_alarms = 0.02
not_decidable = 0.1

[recall]
"*" = 0.9                # of all defective parts of a product
scratch = 0.95           # of those that show a scratch
"""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from dapo.errors import SettingsError
from dapo.vocabulary import nearest
from trainer.data.reading import read_text
from trainer.gate.rules import Rules


def read_rules(path: Path) -> Rules:
    """Rules from a TOML file; what it does not name is as always.

    Raises:
        SourceError: the file can't be read.
        SettingsError: it is no TOML, has a key that is not known (names the nearest), or a value that is none.
    """
    try:
        document = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}.") from error
    known = [field.name for field in fields(Rules)]
    given: dict[str, Any] = {}
    for key, value in document.items():
        if key not in known:
            near = nearest(key, known)
            hint = f"Did you mean '{near}'?" if near else f"Known: {', '.join(known)}."
            raise SettingsError(f"{path}: unknown key '{key}'. {hint}")
        if key == "recall":
            if not isinstance(value, dict):
                raise SettingsError(f"{path}: recall: expected a table [recall] of type = share.")
            given[key] = {
                word: float(_number(share, f"{path}: recall of {word}")) for word, share in value.items()
            }
        else:
            given[key] = _number(value, f"{path}: {key}")
    if not isinstance(given.get("min_parts", 0), int):
        raise SettingsError(f"{path}: min_parts is {given['min_parts']}; expected a whole number.")
    try:
        return Rules(**given)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def _number(value: object, where: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingsError(f"{where} is {value!r:.40}; expected a number.")
    return value
