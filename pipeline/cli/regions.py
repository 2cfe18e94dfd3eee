"""Regions, tiles and what to unset, as a command line gives them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dapo.errors import SettingsError
from dapo.pack import Polygon, Tiles

_TILES = re.compile(r"(\d{1,4})x(\d{1,4})(?:@(\d*\.?\d+))?")
_UNSET: dict[str, tuple[str, Any]] = {
    "roi": ("roi", ()),
    "ignore": ("ignore", ()),
    "tiles": ("tiles", None),
    "mm-per-px": ("mm_per_px", None),
}


def polygons(option: str, texts: Sequence[str]) -> tuple[Polygon, ...]:
    """Corners x,y in fractions of width and height, separated by blanks; one text a polygon.

    >>> polygons("--roi", ["0,0 1,0 1,0.5"])
    (((0.0, 0.0), (1.0, 0.0), (1.0, 0.5)),)

    Raises:
        SettingsError: a corner is not two numbers.
    """
    return tuple(tuple(_corner(option, corner) for corner in text.split()) for text in texts)


def _corner(option: str, text: str) -> tuple[float, float]:
    try:
        x, y = (float(number) for number in text.split(","))
    except ValueError as error:
        raise SettingsError(
            f"{option}: '{text}' is no corner. Expected x,y in fractions of the frame, "
            "such as '0.1,0.1 0.9,0.1 0.9,0.8'."
        ) from error
    return x, y


def parse_tiles(text: str) -> Tiles:
    """ROWSxCOLUMNS or ROWSxCOLUMNS@OVERLAP.

    >>> parse_tiles("3x4@0.2")
    Tiles(rows=3, columns=4, overlap=0.2)

    Raises:
        SettingsError: it is written otherwise.
    """
    found = _TILES.fullmatch(text.strip())
    if found is None:
        raise SettingsError(f"--tiles {text}: expected ROWSxCOLUMNS@OVERLAP, such as 3x4@0.1.")
    rows, columns, overlap = found.groups()
    return Tiles(int(rows), int(columns), *([float(overlap)] if overlap else []))


def cleared(names: Sequence[str]) -> dict[str, Any]:
    """Attribute of `dapo.pack.Product` -> its value where it is not set.

    Raises:
        SettingsError: a name is not among them.
    """
    for name in names:
        if name not in _UNSET:
            raise SettingsError(f"--clear {name}: expected one of {', '.join(_UNSET)}.")
    return dict(_UNSET[name] for name in names)
