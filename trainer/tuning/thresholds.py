"""Where verdicts begin: thresholds of a product, and of its types, from labelled frames that nothing was tuned on.

`threshold_notok` keeps a wanted rate of false alarms, or costs least; `threshold_ok` lets a wanted share of defective parts
pass; between the two a person looks. All counts are of parts: a part is as bad as the worst of its frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dapo.errors import SettingsError
from dapo.pack import Pack
from trainer.gate.bootstrap import rate_bounds

_DRAWS = 1000
_INTERVAL = 0.9
_UNDECIDED_FACTOR = (
    5.0  # without known defects: good parts to look at, per one that alarms (as `dapo calibrate`)
)

BY_LABELS = "labelled frames"  # how a product was calibrated, as its pack says it
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Wanted:
    """What thresholds shall keep.

    Attributes:
        false_alarms: share of good parts that may be NotOK.
        type_false_alarms: slug -> the same for parts whose likeliest type it is, as a share of all good parts.
        misses: share of defective parts that may be OK.
        cost: of a missed part, in false alarms; given, the cheapest threshold is taken instead of `false_alarms`.
        defective: share of parts that are defective on the line, for `cost`: a test has more of them than a line.

    Raises:
        SettingsError: a value is out of its range.
    """

    false_alarms: float = 0.01
    type_false_alarms: Mapping[str, float] = field(default_factory=dict)
    misses: float = 0.01
    cost: float | None = None
    defective: float = 0.01

    def __post_init__(self) -> None:
        shares = {
            "false-alarm rate": self.false_alarms,
            "miss rate": self.misses,
            "defect share": self.defective,
        }
        shares |= {f"false-alarm rate of {slug}": rate for slug, rate in self.type_false_alarms.items()}
        for name, value in shares.items():
            if not 0 < value < 1:
                raise SettingsError(f"{name} {value}: expected a share above 0 and below 1, such as 0.01.")
        if self.cost is not None and not 0 < self.cost < math.inf:
            raise SettingsError(f"cost {self.cost}: expected a number above 0, such as 50.")


@dataclass(frozen=True)
class Scored:
    """A product's labelled frames under the pack.

    Attributes:
        parts: name of each frame's part, [N].
        scores: anomaly scores, [N].
        defective: bool [N].
        types: slug of each frame's likeliest type; "" where the product has none.
    """

    parts: Sequence[str]
    scores: Floats
    defective: NDArray[np.bool_]
    types: Sequence[str]


@dataclass(frozen=True)
class Threshold:
    """Thresholds with their evidence.

    Attributes:
        ok, notok: the thresholds.
        good, bad: parts that they rest on.
        alarms: good parts that are NotOK.
        misses: defective parts that are OK.
        caught: defective parts that are NotOK.
        notok_interval: 90 % bootstrap interval of `notok` over parts.
        alarm_bound, miss_bound: one-sided 95 % upper bounds of the rates (Clopper and Pearson 1934).
    """

    ok: float
    notok: float
    good: int
    bad: int
    alarms: int
    misses: int
    caught: int
    notok_interval: tuple[float, float]
    alarm_bound: float
    miss_bound: float

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "notok_interval": list(self.notok_interval)}


@dataclass(frozen=True)
class _Parts:
    scores: Floats
    defective: NDArray[np.bool_]
    types: NDArray[np.str_]

    @classmethod
    def of(cls, frames: Scored) -> _Parts:
        worst: dict[str, int] = {}
        bad: dict[str, bool] = {}
        for row, part in enumerate(frames.parts):
            if part not in worst or frames.scores[row] > frames.scores[worst[part]]:
                worst[part] = row
            bad[part] = bad.get(part, False) or bool(frames.defective[row])
        rows = list(worst.values())
        return cls(frames.scores[rows], np.array(list(bad.values()), bool), np.array(frames.types)[rows])

    def some(self, chosen: NDArray[Any]) -> _Parts:
        return _Parts(self.scores[chosen], self.defective[chosen], self.types[chosen])


def find_thresholds(
    frames: Scored, wanted: Wanted, *, seed: int = 0
) -> tuple[Threshold, dict[str, Threshold]] | None:
    """A product's thresholds, and those of the types that a rate of their own is wanted for.

    The product's counts and bounds are of all parts as they will be judged, by the thresholds of their own type where it has
    some. A type that no good part was taken for keeps the product's: nothing says where its own would have to lie.

    Returns:
        None where there is no good part: thresholds have nothing to stand on.
    """
    parts = _Parts.of(frames)
    if parts.defective.all():
        return None
    rates = wanted.type_false_alarms
    own = {slug: parts.some(parts.types == slug) for slug in rates}
    by_type = {
        slug: _fitted(its, parts, replace(wanted, false_alarms=rates[slug], cost=None), seed)
        for slug, its in own.items()
        if (~its.defective).any()
    }
    limits = {slug: (one.ok, one.notok) for slug, one in by_type.items()}
    return _fitted(parts, parts, wanted, seed, limits), by_type


def _fitted(
    parts: _Parts,
    all_parts: _Parts,
    wanted: Wanted,
    seed: int,
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> Threshold:
    """Thresholds for `parts`; rates of false alarms are shares of the good ones of `all_parts`.

    Args:
        limits: thresholds of types, which count in the place of those that are found.
    """
    count = int((~all_parts.defective).sum())
    pair = _pair(parts, count, wanted)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(_DRAWS):
        rows = rng.integers(len(parts.scores), size=len(parts.scores))
        if not parts.defective[rows].all():
            drawn.append(_pair(parts.some(rows), count, wanted)[1])
    low, high = np.quantile(drawn or [pair[1]], [(1 - _INTERVAL) / 2, (1 + _INTERVAL) / 2])
    each = np.array([(limits or {}).get(str(slug), pair) for slug in parts.types])
    passed, alarmed = parts.scores < each[:, 0], parts.scores >= each[:, 1]
    good, bad = int((~parts.defective).sum()), int(parts.defective.sum())
    alarms, misses = int((alarmed & ~parts.defective).sum()), int((passed & parts.defective).sum())
    return Threshold(
        ok=pair[0],
        notok=pair[1],
        good=good,
        bad=bad,
        alarms=alarms,
        misses=misses,
        caught=int((alarmed & parts.defective).sum()),
        notok_interval=(float(low), float(high)),
        alarm_bound=rate_bounds(alarms, count)[1],
        miss_bound=rate_bounds(misses, bad)[1] if bad else 1.0,
    )


def _pair(parts: _Parts, count: int, wanted: Wanted) -> tuple[float, float]:
    good, bad = np.sort(parts.scores[~parts.defective]), np.sort(parts.scores[parts.defective])
    notok = _cheapest(good, bad, wanted) if wanted.cost is not None and len(bad) else None
    if notok is None:
        notok = _above(good, math.floor(wanted.false_alarms * count))
    if len(bad):
        passing = float(bad[min(math.floor(wanted.misses * len(bad)), len(bad) - 1)])
    else:
        passing = _above(good, math.floor(_UNDECIDED_FACTOR * wanted.false_alarms * count))
    return min(passing, notok), notok


def _above(ascending: Floats, allowed: int) -> float:
    """The lowest threshold that at most so many of these scores reach."""
    if allowed >= len(ascending):
        return 0.0 if len(ascending) else 1.0
    return _next(float(ascending[len(ascending) - 1 - allowed]))


def _cheapest(good: Floats, bad: Floats, wanted: Wanted) -> float:
    """The threshold that costs least per part of the line; of equal ones the highest."""
    assert wanted.cost is not None
    candidates = np.unique(np.concatenate([bad, [_next(float(value)) for value in good], [1.0]]))
    missed = np.searchsorted(bad, candidates) / len(bad)
    alarming = 1 - np.searchsorted(good, candidates) / max(1, len(good))
    costs = wanted.cost * wanted.defective * missed + (1 - wanted.defective) * alarming
    return float(candidates[np.flatnonzero(costs <= costs.min() + 1e-12)[-1]])


def _next(score: float) -> float:
    """The next float32: scores are float32 on their way through the contract."""
    return min(1.0, float(np.nextafter(np.float32(score), np.float32(2))))


def with_thresholds(
    pack: Pack, product: str, found: Threshold, types: Mapping[str, Threshold], said: Mapping[str, Any]
) -> Pack:
    """A new pack with a product's thresholds; nothing else changes.

    Args:
        said: of the frames, for the pack's memory.
    """
    evidence = {
        "by": BY_LABELS,
        **said,
        **found.as_json(),
        "types": {slug: one.as_json() for slug, one in types.items()},
    }
    changed = replace(
        pack.product(product),
        threshold_ok=found.ok,
        threshold_notok=found.notok,
        type_thresholds={slug: (one.ok, one.notok) for slug, one in types.items()},
        calibrated=True,
        calibration=evidence,
    )
    return pack.with_products({product: changed})
