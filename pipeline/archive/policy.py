"""Which images are kept, and why. Pure: worker and archiver come to the same answer without a word between them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from schemas.results import ResultRow

_SALT = b"audit:"  # other samples drawn from the same keys must not coincide with this one
_SPAN = 2**64


class Reason(StrEnum):
    """Why an image is kept; in the manifest as `kept_because`."""

    NOT_OK = "not-ok"
    NOT_DECIDABLE = "not-decidable"
    FAILED = "failed"
    AUDIT = "audit"  # drawn by its hash, whatever its score: what OK frames look like, without bias
    NEAR_THRESHOLD = "near-threshold"  # OK, but nearly not: what to label next


OF_OK_FRAMES = frozenset({Reason.AUDIT, Reason.NEAR_THRESHOLD})


@dataclass(frozen=True, slots=True)
class Policy:
    """What to keep beyond all NotOK, NotDecidable and Failed frames.

    Attributes:
        near_margin: an OK frame is near its threshold from (1 - near_margin) * threshold_ok on; 0 keeps none.
        audit_rate: share of OK frames that are drawn.
        ok_per_day: most OK frames kept per camera and day.
    """

    near_margin: float = 0.1
    audit_rate: float = 0.01
    ok_per_day: int = 500


def keeps_for_audit(frame_key: str, rate: float) -> bool:
    """Is this frame in the audit sample? By a hash of its key: a share `rate` of all frames, the same ones every time.

    A frame that is drawn at one rate is drawn at every higher one.

    Args:
        rate: 0 to 1.
    """
    digest = hashlib.sha256(_SALT + frame_key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < rate * _SPAN


def reason_to_keep(row: ResultRow, policy: Policy) -> Reason | None:
    """Why this frame's image is kept; None: it is not. Quotas are not looked at.

    A frame that was judged without thresholds (Undefined) is treated as OK: drawn, never near. A dropped one (Aborted)
    was never looked at. An `image_uri` is the worker's promise: such a frame is kept.
    """
    if row.result_state == "Aborted":
        return None
    if row.result_state == "Failed":
        return Reason.FAILED
    if row.evaluation == "NotOK":
        return Reason.NOT_OK
    if row.evaluation == "NotDecidable":
        return Reason.NOT_DECIDABLE
    if row.image_uri is not None or keeps_for_audit(row.frame_key, policy.audit_rate):
        return Reason.AUDIT
    return Reason.NEAR_THRESHOLD if _near(row, policy.near_margin) else None


def _near(row: ResultRow, margin: float) -> bool:
    if margin == 0 or row.evaluation != "OK" or row.anomaly_score is None or row.threshold_ok is None:
        return False
    return row.anomaly_score >= (1 - margin) * row.threshold_ok
