"""Thresholds from good frames alone, and how sure they are.

`threshold_notok` at the wanted false-alarm rate, `threshold_ok` at five times that rate; between the two a person looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dapo.errors import SettingsError
from dapo.pack import Pack
from dapo.pack_changes import with_history

OK_FACTOR = 5.0  # frames to look at, per frame that alarms
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Calibration:
    """Thresholds with their evidence.

    Attributes:
        frames: good frames used.
        rate: wanted share of good frames that alarm.
        alarms: of these frames, at `threshold_notok`.
        upper_bound: one-sided 95 % bound of the true false-alarm rate (Clopper and Pearson 1934).
        frames_needed: good frames without alarm from which the bound would reach the wanted rate.
    """

    threshold_ok: float
    threshold_notok: float
    frames: int
    rate: float
    alarms: int
    upper_bound: float
    frames_needed: int

    @property
    def sure(self) -> bool:
        """Whether the bound keeps what was asked for."""
        return self.upper_bound <= self.rate

    @property
    def has_band(self) -> bool:
        """Whether any score lies between the thresholds: else no frame is NotDecidable."""
        return self.threshold_ok < self.threshold_notok

    @property
    def frames_for_band(self) -> int:
        """Good frames from which `threshold_ok` may lie on another score than `threshold_notok`."""
        return math.ceil(1 / (OK_FACTOR * self.rate))

    def provenance(self) -> dict[str, Any]:
        """What the pack remembers."""
        return {
            "by": "good frames",
            "frames": self.frames,
            "false_alarm_rate": self.rate,
            "alarms": self.alarms,
            "upper_bound_95": self.upper_bound,
        }


def upper_bound(alarms: int, frames: int) -> float:
    """One-sided 95 % upper bound of a rate after `alarms` of `frames` (Clopper-Pearson).

    >>> round(upper_bound(0, 150), 3)
    0.02
    """
    if alarms >= frames:
        return 1.0
    from scipy.stats import beta  # of the extra `model`: the commands of a machine without it must start too

    return float(beta.ppf(CONFIDENCE, alarms + 1, frames - alarms))


def check_rate(rate: float) -> None:
    """Whether thresholds can be set for this rate, asked before any frame is inspected.

    Raises:
        SettingsError: it is outside 0 < rate < 0.2: five times it must stay below 1.
    """
    if not 0 < rate < 1 / OK_FACTOR:
        raise SettingsError(
            f"--false-alarm-rate {rate}: expected a share above 0 and below {1 / OK_FACTOR:g}, such as 0.01."
        )


def calibrate(scores: Sequence[float], rate: float) -> Calibration:
    """Thresholds for good frames of these anomaly scores.

    The threshold lies just above the score that may not alarm any more: at most floor(rate x frames) of them alarm.

    Args:
        scores: anomaly scores of good frames, finite.
        rate: wanted false-alarm rate, see `check_rate`.

    Raises:
        SettingsError: no frames, or a rate outside its range.
    """
    check_rate(rate)
    values = np.sort(np.asarray(scores, np.float64))
    if not len(values):
        raise SettingsError("no good frame could be inspected: there is nothing to calibrate from.")
    notok = _threshold(values, rate)
    alarms = int((values >= notok).sum())
    needed = math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - rate))
    ok = min(notok, _threshold(values, OK_FACTOR * rate))
    return Calibration(ok, notok, len(values), rate, alarms, upper_bound(alarms, len(values)), needed)


def _threshold(ascending: np.ndarray[Any, np.dtype[np.float64]], rate: float) -> float:
    allowed = min(math.floor(rate * len(ascending)), len(ascending) - 1)
    highest_good = float(ascending[len(ascending) - 1 - allowed])
    # Scores are float32 on their way through the contract: step over the next float32, not the next float64.
    return min(1.0, float(np.nextafter(np.float32(highest_good), np.float32(2))))


def calibrated(pack: Pack, product: str, found: Calibration) -> Pack:
    """A new pack with the product's thresholds set; nothing else changes."""
    changed = replace(
        pack.product(product),
        threshold_ok=found.threshold_ok,
        threshold_notok=found.threshold_notok,
        type_thresholds={},
        calibrated=True,
        calibration=found.provenance(),
    )
    return replace(
        pack.with_products({product: changed}), provenance=with_history(pack, {"calibrate": product})
    )
