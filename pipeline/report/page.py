"""`report.html`: one self-contained page of a run."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import jinja2

from pipeline.atomic import write_whole
from pipeline.report.overlay import OTHER, Colour, colours
from pipeline.summary import FrameOutcome, RunSummary

MAX_FRAMES = 60  # overlays embedded; the page stays in the tens of MB that a phone opens
MAX_BYTES = 30 * 2**20  # of embedded pictures, whatever their number
_WIDTH, _HEIGHT, _LEFT = 640, 150, 8


def write_report(out: Path, summary: RunSummary, palette: Mapping[str, Colour] | None = None) -> Path:
    """Write `out`/report.html in one step and return its path.

    Args:
        palette: that the overlays were drawn with.

    Raises:
        OutputError: it can't be written.
    """
    palette = colours(sorted(summary.types)) if palette is None else palette
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    frames, plain, left_out = _embedded(out, summary.worst)
    html = environment.get_template("page.html").render(
        summary=summary,
        frames=frames,
        plain=plain,
        left_out=left_out,
        types=sorted(summary.types.items(), key=lambda item: (-item[1].frames, item[0])),
        colour_of=lambda slug: "rgb({}, {}, {})".format(*palette.get(slug, OTHER)),
        bars=_bars(summary.histogram),
        most=max(summary.histogram, default=0),
        limits=_limits(summary),
        width=_WIDTH,
        height=_HEIGHT,
    )
    path = out / "report.html"
    with write_whole(path) as file:
        file.write(html.encode("utf-8", "backslashreplace"))
    return path


def _embedded(
    out: Path, worst: list[FrameOutcome]
) -> tuple[list[tuple[FrameOutcome, str]], list[FrameOutcome], int]:
    """The worst frames with their overlays as data URIs, those that have no overlay, and how many found no room."""
    frames: list[tuple[FrameOutcome, str]] = []
    plain: list[FrameOutcome] = []
    total = left_out = 0
    for frame in worst:
        path = out / frame.overlay if frame.overlay else None
        if path is None or not path.is_file():
            plain.append(frame)
            continue
        size = path.stat().st_size
        if len(frames) >= MAX_FRAMES or total + size > MAX_BYTES:
            left_out += 1
            continue
        total += size
        kind = "png" if path.suffix == ".png" else "jpeg"
        frames.append((frame, f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"))
    return frames, plain, left_out


def _bars(histogram: list[int]) -> list[tuple[float, float, float, float, int]]:
    """(x, y, width, height, count) per bin that has any."""
    top = max(histogram, default=0)
    step = (_WIDTH - 2 * _LEFT) / len(histogram)
    return [
        (_LEFT + i * step, _HEIGHT * (1 - n / top), max(step - 1, 1), _HEIGHT * n / top, n)
        for i, n in enumerate(histogram)
        if n
    ]


def _limits(summary: RunSummary) -> list[tuple[str, float, float]]:
    """(name, value, x) of the thresholds."""
    named = (("OK below", summary.threshold_ok), ("NotOK from", summary.threshold_notok))
    return [(name, value, _LEFT + value * (_WIDTH - 2 * _LEFT)) for name, value in named if value is not None]
