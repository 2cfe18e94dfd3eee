"""One run of the gate: both packs over the frozen test, the decision, and the frames to label next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from dapo.errors import SourceError
from dapo.inspection import Verdict
from trainer.data.sample import Sample
from trainer.data.split import group_of
from trainer.gate.compare import Compared, left_out
from trainer.gate.rules import Decision, Judged, Question, Rules, decide
from trainer.gate.testset import TestSet, ToldUses, Uses
from trainer.label_next import Candidate, Proposal, label_next

MAX_CANDIDATES = 1000  # unlabelled frames that are inspected: a minute or two, whatever lies in the folder
PROPOSED = 20  # frames to label next: what a person does at one sitting


class Inspects(Protocol):
    """Both packs at work; `trainer.gate.compare.Pair`."""

    def frames(
        self, samples: Iterable[Sample], skip: Callable[[Sample, SourceError], None] | None = None
    ) -> Iterator[Compared]: ...


@dataclass(frozen=True)
class Gated:
    """What a run of the gate found.

    Attributes:
        champion, challenger: configuration hashes.
        uses: how often this test had decided before.
        compared: frames that decided, without their defect regions.
        unusable: frames whose picture can't be used: they say nothing of either pack.
        proposals: frames to label next, the first first.
    """

    champion: str
    challenger: str
    test: TestSet
    rules: Rules
    uses: int
    decision: Decision
    compared: tuple[Compared, ...]
    unusable: tuple[Sample, ...]
    proposals: tuple[Proposal, ...]

    @property
    def parts(self) -> dict[str, bool]:
        """Part -> whether any frame of it shows a defect."""
        found: dict[str, bool] = {}
        for one in self.compared:
            part = group_of(one.sample)
            found[part] = found.get(part, False) or one.sample.defective
        return found

    @property
    def changed(self) -> list[Compared]:
        """Frames with another verdict, those that were right and are wrong now first."""
        return sorted((one for one in self.compared if one.changed), key=_gained)


def run_gate(
    pair: Inspects,
    test: TestSet,
    *,
    champion: str,
    challenger: str,
    question: Question,
    rules: Rules | None = None,
    uses: Uses | None = None,
    propose: int = PROPOSED,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> Gated:
    """Ask the gate once. The test must be new to both packs: `trainer.gate.testset.refuse_seen`.

    Args:
        champion, challenger: configuration hashes.
        uses: who counts; told of this use where the packs were compared.
        propose: most frames to label next, of those that nobody has looked at.
        seed: of the bootstrap.
        advance: told how many more frames are inspected, of `frames_of`.

    Raises:
        SourceError: a frame can't be read, decoded or judged.
    """
    rules, uses = rules or Rules(), uses or ToldUses()
    before = uses.uses(test.sha256)
    known = [_plain(one) for one in _counted(pair.frames(test.samples), advance)]
    usable = tuple(one for one in known if one.embedding is not None)
    decision = decide([_judged(one) for one in usable], question, rules, uses=before, seed=seed)
    candidates = [
        Candidate(one.sample.key, one.embedding, (one.champion, one.challenger))
        for one in _counted(pair.frames(_candidates(test, propose), left_out), advance)
        if one.embedding is not None
    ]
    embeddings = [one.embedding for one in usable if one.embedding is not None]
    labelled = np.stack(embeddings) if embeddings else np.zeros((0, 1), np.float32)
    proposals = tuple(label_next(candidates, labelled, propose))
    if decision.auroc is not None:
        uses.count(test.sha256)  # last: a run that ends in an error has told nobody anything
    return Gated(
        champion=champion,
        challenger=challenger,
        test=test,
        rules=rules,
        uses=before,
        decision=decision,
        compared=usable,
        unusable=tuple(one.sample for one in known if one.embedding is None),
        proposals=proposals,
    )


def frames_of(test: TestSet, propose: int = PROPOSED) -> int:
    """How many frames a run inspects."""
    return len(test.samples) + len(_candidates(test, propose))


def _judged(one: Compared) -> Judged:
    sample = one.sample
    return Judged(
        product=sample.product,
        part=group_of(sample),
        defective=sample.defective,
        words=sample.words,
        champion=(one.champion.anomaly_score, one.champion.evaluation),
        challenger=(one.challenger.anomaly_score, one.challenger.evaluation),
    )


def _candidates(test: TestSet, propose: int) -> Sequence[Sample]:
    """Evenly over all of them: neighbours in a folder look alike."""
    step = max(1, -(-len(test.unlabelled) // MAX_CANDIDATES))
    return test.unlabelled[::step] if propose else ()


def _counted(frames: Iterator[Compared], advance: Callable[[int], None]) -> Iterator[Compared]:
    for frame in frames:
        advance(1)
        yield frame


def _plain(one: Compared) -> Compared:
    """Without the masks of its defects: those of 10,000 large frames fill a memory."""
    return replace(one, champion=_bare(one.champion), challenger=_bare(one.challenger))


def _bare(verdict: Verdict) -> Verdict:
    return replace(verdict, defects=())


def _gained(one: Compared) -> tuple[int, float]:
    """By how much the challenger is better about a frame: verdict first, then score."""
    order = ("OK", "Undefined", "NotDecidable", "NotOK")
    sign = 1 if one.sample.defective else -1
    steps = order.index(one.challenger.evaluation.value) - order.index(one.champion.evaluation.value)
    return sign * steps, sign * (one.challenger.anomaly_score - one.champion.anomaly_score)
