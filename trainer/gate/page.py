"""`gate.html`: one self-contained page that says what was decided, which rule decided, by how much, and what to label next."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from dapo.inspection import Verdict
from dapo.pack import Pack
from pipeline.atomic import write_whole
from pipeline.report.overlay import draw_overlay
from trainer.data.sample import Sample
from trainer.gate.bootstrap import Difference
from trainer.gate.compare import Compared
from trainer.gate.rules import MAX_USES, Outcome
from trainer.gate.run import Gated, Inspects

MAX_CHANGED = 24  # frames with another verdict that are shown, of those that lost most; the rest are counted
MAX_BYTES = 8 * 2**20  # of embedded pictures: the page opens on a phone
_SIDE = 480  # px of an embedded picture
_DOTS = 4000  # frames of the scatter, evenly; more make one blot
_PLOT = 400  # units a side of the scatter
_TITLES = {Outcome.PROMOTE: "Promote", Outcome.REFUSE: "Refuse", Outcome.NOT_DECIDABLE: "Not decidable"}


@dataclass(frozen=True)
class Span:
    """A difference as a row of the plot; places are percent of its width.

    Attributes:
        text: in points of AUROC.
    """

    name: str
    lower: float
    value: float
    upper: float
    text: str


@dataclass(frozen=True)
class Scale:
    """Places of no difference and of the margin, percent of the plot's width; its ends in points."""

    zero: float
    margins: tuple[float, float]
    least: str
    most: str


@dataclass(frozen=True)
class Scatter:
    """Scores of both packs, as paths in a square of `_PLOT` units.

    Attributes:
        thresholds: (x1, y1, x2, y2) of the lines from which a part is NotOK, where the test has one product.
    """

    good: str
    defective: str
    least: str
    most: str
    left_out: int
    thresholds: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Picture:
    """A frame with both packs' regions outlined, as data URIs."""

    compared: Compared
    champion: str
    challenger: str
    said: str = ""


def write_page(
    path: Path,
    gated: Gated,
    pair: Inspects,
    names: tuple[str, str],
    packs: tuple[Pack, Pack],
    *,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Write the page in one step.

    Args:
        pair: inspects the frames that are shown once more, since nobody kept where their defects are.
        names, packs: of champion and challenger, in this order.
        max_bytes: of embedded pictures; frames to label next come first.

    Raises:
        OutputError: it can't be written.
        SourceError: a frame can't be read.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("trainer.gate", "."), jinja2.PackageLoader("pipeline.report", ".")]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    room = [max_bytes]
    changed = gated.changed
    unlabelled = {sample.key: sample for sample in gated.test.unlabelled}
    said = {one.key: f"{one.reason.value}: {one.said}" for one in gated.proposals}
    next_frames = _pictures(pair, [unlabelled[key] for key in said], room, said)
    lost = _pictures(pair, [one.sample for one in changed[:MAX_CHANGED]], room, {})
    scale, spans = _spans(gated)
    decision = gated.decision
    alike = sum(finding.outcome is decision.outcome for finding in decision.findings)
    html = environment.get_template("page.html").render(
        title=_TITLES[decision.outcome],
        outcome=decision.outcome.value,
        decision=decision,
        more_rules=alike - 1 if decision.outcome is not Outcome.PROMOTE else 0,
        gated=gated,
        champion=names[0],
        challenger=names[1],
        scale=scale,
        spans=spans,
        scatter=_scatter(gated.compared, packs),
        changed=lost,
        more_changed=len(changed) - len(lost),
        next_frames=next_frames,
        level=gated.rules.level,
        most_uses=MAX_USES,
        titles=_TITLES,
        plot=_PLOT,
    )
    with write_whole(path) as file:
        file.write(html.encode("utf-8", "backslashreplace"))


def _spans(gated: Gated) -> tuple[Scale | None, list[Span]]:
    """One row for all products together, and one for each where there are several."""
    decision, rules = gated.decision, gated.rules
    if decision.auroc is None:
        return None, []
    rows = [("all products" if len(decision.products) > 1 else "image AUROC", decision.auroc)]
    rows += list(decision.products.items()) if len(decision.products) > 1 else []
    ends = [f(rules.level) for _, one in rows for f in (one.lower, one.upper)]
    least, most = min(-rules.margin, *ends), max(rules.margin, *ends)
    room = 0.05 * (most - least)
    least, most = least - room, most + room

    def place(value: float) -> float:
        return 100 * (value - least) / (most - least)

    def span(name: str, one: Difference) -> Span:
        low, high = one.lower(rules.level), one.upper(rules.level)
        text = f"{100 * one.value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        return Span(name, place(low), place(one.value), place(high), text)

    scale = Scale(
        place(0), (place(-rules.margin), place(rules.margin)), f"{100 * least:+.1f}", f"{100 * most:+.1f}"
    )
    return scale, [span(*row) for row in rows]


def _scatter(compared: Sequence[Compared], packs: tuple[Pack, Pack]) -> Scatter | None:
    compared = [one for one in compared if np.isfinite(_scores(one)).all()]
    if not compared:
        return None
    shown = compared[:: -(-len(compared) // _DOTS)]
    products = {one.sample.product for one in compared}
    limits = [pack.product(name).threshold_notok for pack in packs for name in products if len(products) == 1]
    known = [limit for limit in limits if limit is not None]
    scores = [score for one in compared for score in _scores(one)]
    least, most = min([*scores, *known]), max([*scores, *known])
    room = 0.04 * (most - least) or 0.01
    least, most = least - room, most + room

    def at(value: float) -> float:
        return round(_PLOT * (value - least) / (most - least), 1)

    def path(defective: bool, mark: str) -> str:
        found = [
            f"M{at(one.champion.anomaly_score)} {_PLOT - at(one.challenger.anomaly_score):.1f}{mark}"
            for one in shown
            if one.sample.defective is defective
        ]
        return "".join(found)

    lines: list[tuple[float, float, float, float]] = []
    if limits and limits[0] is not None:
        lines.append((at(limits[0]), 0, at(limits[0]), _PLOT))
    if limits and limits[1] is not None:
        lines.append((0, _PLOT - at(limits[1]), _PLOT, _PLOT - at(limits[1])))
    cross = "m-3-3l6 6m0-6l-6 6"
    return Scatter(
        path(False, "h0"),
        path(True, cross),
        f"{least:.2f}",
        f"{most:.2f}",
        len(compared) - len(shown),
        tuple(lines),
    )


def _scores(one: Compared) -> tuple[float, float]:
    return one.champion.anomaly_score, one.challenger.anomaly_score


def _pictures(
    pair: Inspects, samples: Sequence[Sample], room: list[int], said: dict[str, str]
) -> list[Picture]:
    """Frames with what both packs outline, as far as there is room for their bytes."""
    found = []
    for one in pair.frames(samples):
        pixels = one.sample.image()
        old, new = outlined(pixels, one.champion), outlined(pixels, one.challenger)
        room[0] -= len(old) + len(new)
        if room[0] < 0:
            break
        found.append(Picture(one, old, new, said.get(one.sample.key, "")))
    return found


def outlined(pixels: NDArray[np.uint8], verdict: Verdict) -> str:
    """A frame with its defects outlined, as a data URI."""
    drawn = draw_overlay(pixels, verdict)
    scale = min(1.0, _SIDE / max(drawn.shape[:2]))
    size = max(1, round(drawn.shape[1] * scale)), max(1, round(drawn.shape[0] * scale))
    small = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(small[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
