"""Which frames to label next: those the packs are unsure of, and those unlike anything that is labelled.

Half of the choice is uncertain frames, the one that is in most doubt first. The other half covers the rest: always the frame
furthest from all that is labelled or chosen (greedy k-centre: Gonzalez 1985; Sener and Savarese, arXiv 1708.00489). Both keep
their distance from what is chosen, so a hundred views of one doubtful part are chosen once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from dapo.inspection import Verdict

Floats = NDArray[np.float64]

_SAME = 1e-6  # distance of two copies: what rounding leaves of none
_BLOCK = 1024  # rows of one product of matrices: 10,000 against 10,000 frames stay below 100 MB
_ASKED = 2000  # labelled frames that say how far apart labelled ones lie
_USUAL = 95  # percent of the labelled frames that have another one nearer than what is called novel


class Reason(StrEnum):
    """Why a frame is worth a label."""

    UNCERTAIN = "uncertain"  # two packs disagree, or its score lies near a threshold
    NOVEL = "novel"  # further from what is labelled than labelled frames are from each other
    DIVERSE = "diverse"  # stands for frames that nothing labelled or chosen is like


@dataclass(frozen=True)
class Candidate:
    """A frame that nobody has labelled.

    Attributes:
        key: unique.
        embedding: float [D], of any length above 0: the image feature under the pack in force.
        verdicts: under the pack in force, and under a challenger where there is one; the same packs for all candidates.
    """

    key: str
    embedding: NDArray[np.float32]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Proposal:
    """A frame to label.

    Attributes:
        said: the reason for people, with figures.
    """

    key: str
    reason: Reason
    said: str


def label_next(candidates: Sequence[Candidate], labelled: NDArray[np.float32], count: int) -> list[Proposal]:
    """Choose frames to label; the same whatever the order of the candidates.

    Args:
        labelled: embeddings of the frames that are labelled, float [M, D]; M may be 0.
        count: most of them. Fewer come back where the rest are copies of what is labelled or chosen.

    Example:
        for proposal in label_next(candidates, labelled, 20):
            print(proposal.key, proposal.reason, proposal.said)
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.key)
    if not ordered or count < 1:
        return []
    features, known = _unit(np.stack([one.embedding for one in ordered])), _unit(labelled)
    doubts = _doubts(ordered)
    doubt = np.array([value for value, _ in doubts])
    far = _to_nearest(features, known)
    space, usual = _space(features, far, count), _usual(known)
    apart = np.full(len(ordered), np.inf)  # from what is chosen
    found: list[Proposal] = []
    while len(found) < count:
        reach = np.minimum(far, apart)
        free = (apart >= space) & (reach > _SAME)
        if not free.any():
            break
        unsure = free & (doubt > 0)
        if len(found) % 2 == 0 and unsure.any():
            at = int(np.lexsort((-reach, -doubt, ~unsure))[0])
            found.append(Proposal(ordered[at].key, Reason.UNCERTAIN, doubts[at][1]))
        else:
            at = _furthest(features, np.where(free, reach, -np.inf))
            found.append(Proposal(ordered[at].key, *_why(float(far[at]), float(reach[at]), usual)))
        apart = np.minimum(apart, _distance(features, features[at]))
    return found


def _doubts(candidates: Sequence[Candidate]) -> list[tuple[float, str]]:
    """(doubt from 0 to 1, why) of each: 1 where the verdicts differ or the score lies on a threshold."""
    scores = np.array([[verdict.anomaly_score for verdict in one.verdicts] for one in candidates])
    finite = np.where(np.isfinite(scores), scores, np.nan)
    known = np.isfinite(finite).any(0)
    spread = np.zeros(scores.shape[1])
    # Near is what is nearer than a standard deviation of all frames: scores of packs have no common scale.
    if known.any():
        spread[known] = np.nanstd(finite[:, known], axis=0)
    return [_doubt(one.verdicts, spread) for one in candidates]


def _doubt(verdicts: Sequence[Verdict], spread: Floats) -> tuple[float, str]:
    if len({verdict.evaluation for verdict in verdicts}) > 1:
        return 1.0, f"the packs disagree: {' and '.join(verdict.evaluation.value for verdict in verdicts)}"
    best = (0.0, "")
    for verdict, wide in zip(verdicts, spread, strict=True):
        for limit in (verdict.threshold_ok, verdict.threshold_notok):
            if limit is None or not np.isfinite(verdict.anomaly_score):
                continue
            distance = abs(verdict.anomaly_score - limit)
            doubt = 1 - distance / wide if wide > 0 else float(distance == 0)
            said = f"score {verdict.anomaly_score:.3f} is near the threshold {limit:.3f}"
            best = max(best, (doubt, said), key=lambda found: found[0])
    return best


def _why(far: float, reach: float, usual: float) -> tuple[Reason, str]:
    if np.isfinite(far) and far > usual:
        nearest = f"the nearest labelled frame has a cosine of {_cosine(far):.2f}"
        return Reason.NOVEL, f"{nearest}, labelled ones have {_cosine(usual):.2f} and more to each other"
    if np.isfinite(reach):
        return Reason.DIVERSE, f"nothing labelled or proposed has a cosine above {_cosine(reach):.2f} to it"
    return Reason.DIVERSE, "the most usual of the frames; none is labelled"


def _furthest(features: Floats, reach: Floats) -> int:
    """The frame furthest from what is labelled or chosen; where nothing is, the one nearest to the middle of all."""
    if np.isposinf(reach).any():
        return int(np.linalg.norm(features - features.mean(0), axis=1).argmin())
    return int(reach.argmax())


def _space(features: Floats, far: Floats, count: int) -> float:
    """How far chosen frames are kept from each other.

    After `count` steps of the greedy k-centre some frame is still so far from all of them. Half of it is the widest distance
    that always leaves room for `count` frames: of `count` + 1 frames that are so far apart, each choice takes at most one.
    """
    reach = far.copy()
    for _ in range(min(count, len(features))):
        at = _furthest(features, reach)
        reach = np.minimum(reach, _distance(features, features[at]))
    return max(float(reach.max()) / 2, _SAME)


def _usual(known: Floats) -> float:
    """Distance within which nearly all labelled frames have another labelled one; infinite where there are too few."""
    if len(known) < 2:
        return np.inf
    step = -(-len(known) // _ASKED)
    asked = np.arange(0, len(known), step)
    nearest = []
    for start in range(0, len(asked), _BLOCK):
        rows = asked[start : start + _BLOCK]
        cosines = known[rows] @ known.T
        cosines[np.arange(len(rows)), rows] = -1  # itself
        nearest.append(_chord(cosines.max(1)))
    return float(np.percentile(np.concatenate(nearest), _USUAL))


def _to_nearest(features: Floats, known: Floats) -> Floats:
    """Distance of each frame to the nearest labelled one, [N]; infinite where none is."""
    if not len(known):
        return np.full(len(features), np.inf)
    starts = range(0, len(features), _BLOCK)
    return np.concatenate([_chord((features[at : at + _BLOCK] @ known.T).max(1)) for at in starts])


def _distance(features: Floats, one: Floats) -> Floats:
    return _chord(features @ one)


def _chord(cosines: Floats) -> Floats:
    """Distance on the unit sphere: it keeps the triangle inequality, as 1 - cosine does not."""
    return np.sqrt(np.maximum(0, 2 - 2 * cosines))


def _cosine(chord: float) -> float:
    return 1 - chord**2 / 2


def _unit(rows: NDArray[np.float32]) -> Floats:
    rows = np.atleast_2d(np.asarray(rows, np.float64))
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny))
