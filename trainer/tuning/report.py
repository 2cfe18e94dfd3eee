"""`report.html` of a retuning: what it is worth, how it learned, what it still gets wrong. One self-contained page."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from dapo.judge import upsample
from dapo.pack import Pack
from dapo.vocabulary import slugify
from pipeline.atomic import write_whole
from pipeline.report.overlay import colours
from trainer.evaluation.protocol import Outcome
from trainer.tuning.loop import History
from trainer.tuning.run import Measured, Retuned
from trainer.tuning.thresholds import BY_LABELS

_WIDTH, _HEIGHT = 640, 200
_BINS = 10  # of the reliability diagram
_SHOWN = 12  # pictures of each kind of mistake
_SIDE = 240  # px of a picture
_HEAT = 0.45  # share of the map in a picture
# Title, part and name of the figures that are compared.
_FIGURES = (
    ("image AUROC", "image", "auroc"),
    ("image AP", "image", "ap"),
    ("pixel AUROC", "pixel", "auroc"),
    ("AUPRO", "pixel", "aupro"),
    ("types", "types", "accuracy"),
)


@dataclass(frozen=True)
class Curve:
    """One line of the plot of losses."""

    name: str
    colour: str
    points: str
    last: float


@dataclass(frozen=True)
class Matrix:
    """Types of a product: `rows` [(true type, [count per type said])]."""

    product: str
    types: tuple[str, ...]
    rows: list[tuple[str, list[int]]]


@dataclass(frozen=True)
class Bin:
    """Frames of like scores: the middle of their scores, the share that is defective, how many."""

    score: float
    defective: float
    frames: int


@dataclass(frozen=True)
class Shown:
    """A frame that is got wrong."""

    uri: str
    score: float
    said: str
    name: str


def write_report(path: Path, done: Retuned, base: Pack, note: dict[str, Any]) -> None:
    """Write the page in one step.

    Raises:
        OutputError: it can't be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("trainer.tuning", "."), jinja2.PackageLoader("pipeline.report", ".")]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    outcomes = done.after.outcomes if done.after else []
    html = environment.get_template("report.html").render(
        done=done,
        base=base,
        note=note,
        table=_table(done.before, done.after),
        titles=[title for title, _, _ in _FIGURES],
        curves=_curves(done.history),
        matrices=_matrices(done.pack, outcomes),
        bins=reliability(outcomes),
        calibrated=[
            (name, product)
            for name, product in sorted(done.pack.products.items())
            if product.calibration.get("by") == BY_LABELS
        ],
        mistakes=[
            ("Defective, and scored lowest", _pictures(outcomes, defective=True)),
            ("Good, and scored highest", _pictures(outcomes, defective=False)),
        ],
        width=_WIDTH,
        height=_HEIGHT,
    )
    with write_whole(path) as file:
        file.write(html.encode("utf-8", "backslashreplace"))


def reliability(outcomes: Sequence[Outcome]) -> list[Bin]:
    """What share of frames of like scores is defective: ten bins of the same width, empty ones left out."""
    scores = np.array([outcome.prediction.score for outcome in outcomes])
    defective = np.array([outcome.sample.defective for outcome in outcomes])
    places = np.minimum((scores * _BINS).astype(int), _BINS - 1) if len(scores) else np.zeros(0, int)
    return [
        Bin(float(scores[own].mean()), float(defective[own].mean()), int(own.sum()))
        for own in (places == place for place in range(_BINS))
        if own.any()
    ]


def _table(
    before: Measured | None, after: Measured | None
) -> list[tuple[str, list[tuple[float | None, float | None]]]]:
    if before is None or after is None:
        return []
    rows = [(name, before.products[name], after.products[name]) for name in sorted(after.products)]
    rows.append(("mean", before.mean, after.mean))
    return [
        (name, [(_value(old, part, metric), _value(new, part, metric)) for _, part, metric in _FIGURES])
        for name, old, new in rows
    ]


def _value(row: dict[str, Any], part: str, metric: str) -> float | None:
    value = (row.get(part) or {}).get(metric)
    return None if value is None else float(value)


def _curves(history: History | None) -> list[Curve]:
    if history is None or not history.total:
        return []
    named = {
        "total": history.total,
        "validation": history.validation,
        "image": history.image,
        "local": history.local,
        "types": history.types,
    }
    top = max(max(values) for values in named.values() if values) or 1.0
    palette = colours(named)
    found = []
    for name, values in named.items():
        if not values or not any(values):
            continue
        step = _WIDTH / max(1, len(values) - 1)
        points = " ".join(
            f"{i * step:.1f},{_HEIGHT * (1 - value / top):.1f}" for i, value in enumerate(values)
        )
        red, green, blue = palette[name]
        found.append(Curve(name, f"rgb({red}, {green}, {blue})", points, values[-1]))
    return found


def _matrices(pack: Pack, outcomes: Sequence[Outcome]) -> list[Matrix]:
    found = []
    for product in sorted({outcome.sample.product for outcome in outcomes}):
        types = pack.product(product).types
        counts: Counter[tuple[str, str]] = Counter()
        for outcome in outcomes:
            word = outcome.sample.word
            if outcome.sample.product == product and outcome.sample.defective and word and types:
                counts[slugify(word), types[int(outcome.prediction.type_scores.argmax())]] += 1
        said = tuple(slug for slug in types if any(slug in pair for pair in counts))
        if len(said) > 1:
            rows = [(true, [counts[true, slug] for slug in said]) for true in said]
            found.append(Matrix(product, said, rows))
    return found


def _pictures(outcomes: Sequence[Outcome], *, defective: bool) -> list[Shown]:
    """Defective frames of the lowest scores, or good ones of the highest, with their maps."""
    own = [outcome for outcome in outcomes if outcome.sample.defective == defective]
    own.sort(key=lambda outcome: outcome.prediction.score, reverse=not defective)
    return [
        Shown(
            _picture(outcome),
            outcome.prediction.score,
            ", ".join(outcome.sample.words) or outcome.sample.state.value,
            f"{outcome.sample.product}: {outcome.sample.key}",
        )
        for outcome in own[:_SHOWN]
    ]


def _picture(outcome: Outcome) -> str:
    image = outcome.sample.image()
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    anomaly = upsample(outcome.prediction.map.astype(np.float32), _SIDE, _SIDE)
    heat = cv2.applyColorMap((255 * np.clip(anomaly, 0, 1)).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    mixed: NDArray[np.uint8] = np.concatenate(
        [small, (small * (1 - _HEAT) + heat * _HEAT).astype(np.uint8)], 1
    )
    _, data = cv2.imencode(".jpg", mixed[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
