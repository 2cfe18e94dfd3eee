"""Durations as people write them."""

from __future__ import annotations

import re

from dapo.errors import SettingsError

_HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0, "w": 168.0}


def hours(text: str) -> float:
    """Hours of "90m", "24h", "3d" or "2w".

    >>> hours("3d")
    72.0

    Raises:
        SettingsError: it is none of these, or not above 0.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([mhdw])", text.strip())
    value = float(found[1]) * _HOURS[found[2]] if found else 0.0
    if value <= 0:
        raise SettingsError(f"'{text}' is no duration. Write 90m, 24h, 3d or 2w.")
    return value
