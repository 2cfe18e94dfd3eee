"""`report.html`: one self-contained page of a run."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import jinja2

from pipeline.report.overlay import colour_of
from pipeline.summary import FrameOutcome, RunSummary

MAX_FRAMES = 60  # overlays embedded; the page stays in the tens of MB that a phone opens
MAX_BYTES = 30 * 2**20  # of embedded pictures, whatever their number
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 150, 8, 18


def write_report(out: Path, summary: RunSummary) -> Path:
    """Write `out`/report.html in one step and return its path."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    frames, left_out = _embedded(out, summary.worst)
    html = environment.get_template("page.html").render(
        summary=summary,
        frames=frames,
        left_out=left_out,
        types=sorted(summary.types.items(), key=lambda item: (-item[1].frames, item[0])),
        colour_of=lambda slug: "rgb({}, {}, {})".format(*colour_of(slug)),
        bars=_bars(summary.histogram),
        limits=_limits(summary),
        width=_WIDTH,
        height=_HEIGHT,
    )
    path = out / "report.html"
    partial = path.with_name("report.html.partial")
    partial.write_text(html, encoding="utf-8", errors="backslashreplace")
    os.replace(partial, path)
    return path


def _embedded(out: Path, worst: list[FrameOutcome]) -> tuple[list[tuple[FrameOutcome, str]], int]:
    """The worst frames with their overlays as data URIs, and how many have none for want of room."""
    frames: list[tuple[FrameOutcome, str]] = []
    total = left_out = 0
    for frame in worst:
        path = out / frame.overlay if frame.overlay else None
        if path is None or not path.is_file():
            frames.append((frame, ""))
            continue
        size = path.stat().st_size
        if sum(1 for _, uri in frames if uri) >= MAX_FRAMES or total + size > MAX_BYTES:
            left_out += 1
            continue
        total += size
        kind = "png" if path.suffix == ".png" else "jpeg"
        frames.append((frame, f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"))
    return frames, left_out


def _bars(histogram: list[int]) -> list[tuple[float, float, float, float, int]]:
    """(x, y, width, height, count) per bin that has any."""
    top = max(histogram, default=0)
    step = (_WIDTH - 2 * _LEFT) / len(histogram)
    room = _HEIGHT - _BOTTOM - 4
    return [
        (_LEFT + i * step, _HEIGHT - _BOTTOM - room * n / top, max(step - 1, 1), room * n / top, n)
        for i, n in enumerate(histogram)
        if n
    ]


def _limits(summary: RunSummary) -> list[tuple[str, float, float]]:
    """(name, value, x) of the thresholds."""
    named = (("OK below", summary.threshold_ok), ("NotOK from", summary.threshold_notok))
    return [(name, value, _LEFT + value * (_WIDTH - 2 * _LEFT)) for name, value in named if value is not None]
