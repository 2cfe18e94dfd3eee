"""Lines in a picture: SVG that a browser and a README show alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2

from pipeline.report.overlay import colours

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 320, 56, 44
_TICKS = 5


@dataclass(frozen=True)
class Line:
    """Points (x, y), x ascending."""

    name: str
    points: Sequence[tuple[float, float]]


def plot(lines: Sequence[Line], below: str, title: str) -> str:
    """Lines with dots, both axes from the least to the highest value; an empty line is left out.

    Args:
        below: what x is.
        title: what y is.
    """
    drawn = [line for line in lines if line.points]
    xs = [x for line in drawn for x, _ in line.points] or [0.0]
    ys = [y for line in drawn for _, y in line.points] or [0.0]
    low, high = _around(min(ys), max(ys))
    right, top = _WIDTH - 12, 26
    span = max(xs) - min(xs) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            round(_LEFT + (right - _LEFT) * (x - min(xs)) / span, 1),
            round(_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - top) * (y - low) / (high - low), 1),
        )

    palette = colours([line.name for line in drawn])
    shown = [
        {
            "name": line.name,
            "colour": "rgb({}, {}, {})".format(*palette[line.name]),
            "points": " ".join("{},{}".format(*place(*point)) for point in line.points),
            "dots": [(*place(x, y), f"{line.name}, {x:g}: {y:.3f}") for x, y in line.points],
        }
        for line in drawn
    ]
    steps = [low + (high - low) * step / (_TICKS - 1) for step in range(_TICKS)]
    return _template("plot.svg").render(
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        bottom=_BOTTOM,
        rows=-(-len(drawn) // 3),
        vertical=[(place(min(xs), y)[1], f"{y:.2f}") for y in steps],
        horizontal=[(place(x, low)[0], f"{x:g}") for x in sorted({round(x) for x in xs})],
        lines=shown,
        below=below,
        title=title,
    )


@dataclass(frozen=True)
class Series:
    """What one method reaches.

    Attributes:
        values: (mean, spread) by group; a group that is missing has none.
    """

    name: str
    values: Mapping[str, tuple[float, float]]


def dots(series: Sequence[Series], groups: Sequence[str], title: str) -> str:
    """A dot with its spread per method and group, groups side by side.

    Args:
        groups: names of what is measured, from left to right.
        title: what y is.
    """
    ends = [value + sign * wide for one in series for value, wide in one.values.values() for sign in (-1, 1)]
    low, high = _around(min(ends, default=0.0), max(ends, default=1.0))
    right, top = _WIDTH - 12, 26
    each = (right - _LEFT) / max(1, len(groups))

    def height(y: float) -> float:
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - top) * (y - low) / (high - low), 1)

    palette = colours([one.name for one in series])
    shown = []
    for place, one in enumerate(series):
        own = []
        for number, group in enumerate(groups):
            if group in one.values:
                value, wide = one.values[group]
                x = round(_LEFT + each * (number + (place + 1) / (len(series) + 1)), 1)
                said = f"{one.name}, {group}: {value:.3f} ± {wide:.3f}"
                own.append((x, height(value), height(value - wide), height(value + wide), said))
        shown.append({"name": one.name, "colour": "rgb({}, {}, {})".format(*palette[one.name]), "dots": own})
    steps = [low + (high - low) * step / (_TICKS - 1) for step in range(_TICKS)]
    return _template("dots.svg").render(
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        bottom=_BOTTOM,
        rows=-(-len(series) // 2),
        vertical=[(height(y), f"{y:.2f}") for y in steps],
        horizontal=[(round(_LEFT + each * (number + 0.5), 1), name) for number, name in enumerate(groups)],
        series=shown,
        title=title,
    )


def _template(name: str) -> jinja2.Template:
    loader = jinja2.PackageLoader("trainer.paper", ".")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True).get_template(name)


def _around(low: float, high: float) -> tuple[float, float]:
    """Bounds on whole hundredths, at least two of them apart."""
    low, high = int(low * 100) / 100, -(-int(high * 1000) // 10) / 100
    return (low, high) if high - low >= 0.02 else (low - 0.01, high + 0.01)
