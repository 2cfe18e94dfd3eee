"""All steps of a retuning that nobody watches: collect, split, tune, ask the gate, and what the policy makes of its answer.

Each step leaves its files in the run's folder; a step whose files are there is not done again.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from dapo.encoder import Encoder
from dapo.errors import SettingsError
from dapo.pack import Pack, Product
from dapo.pack_io import read_pack, write_pack
from pipeline.atomic import write_whole
from pipeline.bundled import default_pack_path
from pipeline.registry.promote import name_challenger
from pipeline.registry.registry import Registry
from pipeline.settings import Settings
from trainer.data.archive import ArchiveDataset
from trainer.data.dataset import ProductData
from trainer.data.sample import Sample, State
from trainer.drift.look import drawn_frames, with_usual_frames
from trainer.gate.compare import Pair
from trainer.gate.page import write_page
from trainer.gate.record import record_of
from trainer.gate.rules import Question, Rules
from trainer.gate.run import run_gate
from trainer.gate.testset import make_test_set, refuse_seen
from trainer.periodic.collect import usable
from trainer.periodic.runs import Run
from trainer.tuning.report import write_report
from trainer.tuning.run import Plan, Progress, Retuned, retune
from trainer.tuning.scope import LEARNED, Scope
from trainer.tuning.sides import Sides, lasting_sides
from trainer.tuning.summary import summary

PACK, REPORT, NOTE, CHECKPOINT = "retuned.pack", "report.html", "retune.json", "checkpoint.safetensors"
TEST, GATE, PAGE = "test.json", "gate.json", "gate.html"
PROMOTE, NOTHING = "promote", "nothing-labelled"
_PROPOSED = 20  # frames to label next
_OF_SHADOW = ("frames", "agreement", "types_changed", "rank_correlation")


@dataclass(frozen=True)
class Policy:
    """What becomes of a challenger that the gate lets through.

    Attributes:
        then: "hold": it is named challenger, and a person decides; "shadow": it also inspects live frames beside the champion;
            "promote": it becomes champion.
        shadow_frames: that it inspects before it is promoted; 0: none.
        most_changed: share of live verdicts that it may change and still be promoted.
    """

    then: Literal["hold", "shadow", "promote"] = "hold"
    shadow_frames: int = 200
    most_changed: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.most_changed <= 1:
            raise SettingsError(f"--most-changed {self.most_changed}: expected a share of 0 to 1.")
        if self.then == "shadow" and not self.shadow_frames:
            raise SettingsError("--then shadow: give --shadow-frames above 0.")


class Line(Protocol):
    """The running line, as far as a retuning touches it. All raise DapoError where it can't be done."""

    def check(self, policy: Policy) -> None:
        """See that what the policy may ask for can be had: hours before it is needed."""
        ...

    def shadow(self, digest: str, frames: int) -> Mapping[str, Any]:
        """Let a pack inspect live frames beside the champion; `pipeline.registry.shadow.Agreement.report`."""
        ...

    def promote(self, digest: str) -> None:
        """Make a pack the champion."""
        ...


@dataclass(frozen=True)
class Job:
    """What is retuned, and how.

    Attributes:
        champion: in force, which is tuned.
        products: some of the archive's; none: all. One that is not there is refused.
        salt: names the lasting split: a part is on one side for as long as the salt is the same.
        by: who it is done for: user and host.
    """

    champion: Pack
    encoder: Encoder
    plan: Plan
    settings: Settings
    products: Sequence[str] = ()
    salt: str = "1"
    rules: Rules = Rules()
    policy: Policy = Policy()
    by: str = ""


class LastingUses:
    """Uses of the lasting test. It grows, and is no fresh one for that: so it is counted under its salt, not its content."""

    def __init__(self, registry: Registry, salt: str) -> None:
        self._registry = registry
        self._name = hashlib.sha256(f"lasting test {salt}".encode("utf-8", "surrogatepass")).hexdigest()

    def uses(self, test_hash: str) -> int:
        """See `trainer.gate.testset.Uses`."""
        return self._registry.uses(self._name)

    def count(self, test_hash: str) -> int:
        """See `trainer.gate.testset.Uses`."""
        return self._registry.count(self._name)


def carry_out(
    job: Job,
    data: ArchiveDataset,
    registry: Registry,
    line: Line,
    run: Run,
    *,
    tell: Progress = lambda what, done, total: None,
    say: Callable[[str], None] = lambda text: None,
    mine: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Do what is left of a run, and finish it.

    Args:
        data: the archive as it was when the run began.
        tell: of progress.
        say: of notes, a sentence each.
        mine: raises where somebody else has begun to retune meanwhile; asked before what can't be taken back.

    Returns:
        What came of it, as plain data; `outcome` is the gate's, or `NOTHING`.

    Raises:
        DapoError: a step can't be done; the same call goes on from there.
    """
    line.check(job.policy)
    found = usable(data, job.products, tell, say)
    labelled = [s for own in found.values() for s in own if s.state is not State.UNLABELLED]
    began = {
        "run": run.folder.name,
        "as_of": run.as_of.isoformat(),
        "champion": job.champion.configuration_hash,
        "frames": {name: len(own) for name, own in found.items()},
        "labelled": len(labelled),
    }
    if not labelled:
        outcome = {
            **began,
            "outcome": NOTHING,
            "did": "nothing",
            "said": "nobody has labelled a frame of these days: 'dapo label-next' says which to begin with",
        }
        run.forget()
        return outcome
    challenger = _challenger(job, data, labelled, run, tell, say)
    mine()
    digest = registry.push(challenger)
    record = _gated(job, found, challenger, registry, run, tell)
    mine()
    outcome = {
        **began,
        "challenger": digest,
        "outcome": record["outcome"],
        "said": record["said"],
        "label_more": record["label_more"],
        **_followed(job, registry, line, challenger, record["outcome"], say),
    }
    run.finish(outcome)
    return outcome


def _challenger(
    job: Job,
    data: ArchiveDataset,
    labelled: Sequence[Sample],
    run: Run,
    tell: Progress,
    say: Callable[[str], None],
) -> Pack:
    """The tuned pack: made now, or by the call that was stopped."""
    if run.file(NOTE).exists():  # written last
        return read_pack(run.file(PACK))
    sides = lasting_sides(labelled, job.salt)
    plan = _possible(job.plan, job.champion, sides.train, say)
    done = _tuned(job, plan, sides, run.file(CHECKPOINT), tell)
    # All that the pack names: whatever was learned, it has forgotten what each usually looks like.
    named = [name for name in data.products() if name in done.pack.products]
    drawn = drawn_frames(data, job.settings.archive.audit_rate, products=named)
    usual = with_usual_frames(done.pack, drawn, job.settings.model, job.settings.run.batch)
    done = replace(done, pack=usual)
    for line in done.notes:
        say(line)
    write_pack(done.pack, run.file(PACK))
    run.write(TEST, [sample.key for sample in done.sides.test])
    note = summary(done, job.champion)
    write_report(run.file(REPORT), done, job.champion, note)
    run.write(NOTE, note)
    run.file(CHECKPOINT).unlink(missing_ok=True)
    return done.pack


def _possible(plan: Plan, champion: Pack, train: Sequence[Sample], say: Callable[[str], None]) -> Plan:
    """The plan without what these frames can't teach."""
    learns = any(s.defective and (s.drawn or not champion.product(s.product).tiles) for s in train)
    scopes = tuple(scope for scope in plan.scopes if learns or scope not in LEARNED)
    if scopes != plan.scopes:
        say(
            "no defective frame to learn from yet (of products in tiles, its defect has to be drawn): only good frames are "
            "remembered, and thresholds set"
        )
    return replace(plan, scopes=scopes or (Scope.REFERENCE, Scope.THRESHOLDS))


def _tuned(job: Job, plan: Plan, sides: Sides, checkpoint: Path, tell: Progress) -> Retuned:
    try:
        return retune(job.champion, job.encoder, sides, plan, checkpoint=checkpoint, tell=tell)
    except SettingsError:
        if not checkpoint.exists():
            raise
        # Frames of the time before may have been archived since the run began: its checkpoint is of other data.
        checkpoint.unlink()
        return retune(job.champion, job.encoder, sides, plan, checkpoint=checkpoint, tell=tell)


def _gated(
    job: Job,
    found: Mapping[str, Sequence[Sample]],
    challenger: Pack,
    registry: Registry,
    run: Run,
    tell: Progress,
) -> dict[str, Any]:
    """What the gate says, asked now or by the call that was stopped; kept in the registry."""
    known = run.read(GATE)
    if known is None:
        known = _asked(job, found, challenger, registry, run, tell)
    record = {name: known[name] for name in known if name != "label_next"}
    registry.keep_gate(job.champion.configuration_hash, challenger.configuration_hash, record)
    return record


def _asked(
    job: Job,
    found: Mapping[str, Sequence[Sample]],
    challenger: Pack,
    registry: Registry,
    run: Run,
    tell: Progress,
) -> dict[str, Any]:
    judging = set(run.read(TEST) or ())
    packs = job.champion, challenger
    products, others = [], []
    for name, samples in found.items():
        own = [s for s in samples if s.key in judging or s.state is State.UNLABELLED]
        products.append(ProductData(name, tuple(own)))
        others += [s for s in samples if s.key not in judging and s.state is not State.UNLABELLED]
    test = make_test_set([product for product in products if product.samples])
    refuse_seen(test, dict(zip(("champion", "challenger"), packs, strict=True)), others)
    pair = Pair(*packs, job.settings.model, job.settings.run.batch)
    done: dict[str, int] = defaultdict(int)

    def advance(count: int) -> None:
        done["frames"] += count
        tell("gate", done["frames"], max(done["frames"], len(test.samples)))

    gated = run_gate(
        pair,
        test,
        champion=job.champion.configuration_hash,
        challenger=challenger.configuration_hash,
        question=_question(job.plan),
        rules=job.rules,
        uses=LastingUses(registry, job.salt),
        propose=_PROPOSED,
        advance=advance,
    )
    write_page(run.file(PAGE), gated, pair, ("champion", "challenger"), packs)
    record = record_of(gated)
    with write_whole(run.file(GATE)) as file:
        file.write(json.dumps(record, allow_nan=False).encode())
    return record


def _question(plan: Plan) -> Question:
    """New thresholds have to be no worse; what was tuned has to be better."""
    return Question.NOT_INFERIOR if set(plan.scopes) == {Scope.THRESHOLDS} else Question.SUPERIOR


def lost(champion: Pack, challenger: Pack) -> list[str]:
    """Products that had thresholds or a memory of good frames, and have none any more: no frame of theirs was labelled."""
    found = []
    bundled = read_pack(default_pack_path()).products
    for name, before in sorted(champion.products.items()):
        if _decides(before) == _decides(bundled.get(name)):
            continue  # of the demo: no line of anybody's shows it
        after = challenger.products.get(name)
        decided = before.threshold_notok is not None and (after is None or after.threshold_notok is None)
        remembered = before.reference is not None and (after is None or after.reference is None)
        if decided or remembered:
            found.append(name)
    return found


def _decides(product: Product | None) -> object:
    return product and (product.threshold_ok, product.threshold_notok, product.calibration, product.reference)


def _followed(
    job: Job, registry: Registry, line: Line, challenger: Pack, outcome: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """What the policy makes of the gate's answer."""
    if outcome != PROMOTE:
        return {"did": "nothing"}
    policy, digest = job.policy, challenger.configuration_hash
    if registry.pointers().challenger != digest:
        name_challenger(registry, digest, by=job.by, why="retuned; the gate lets it through")
    if policy.then == "hold":
        return {"did": "named challenger"}
    gone = lost(job.champion, challenger)
    if policy.then == "promote" and gone:
        # The gate's test has no frame of them, and the line may not show them while a shadow looks.
        return {
            "did": f"named challenger; {', '.join(gone)} would lose thresholds or memory, since nothing of theirs is labelled: "
            "label some, or promote it by hand"
        }
    told: dict[str, Any] = {}
    if policy.shadow_frames:
        say(f"shadow: {policy.shadow_frames} live frames")
        seen = line.shadow(digest, policy.shadow_frames)
        changed = None if seen["agreement"] is None else 1 - float(seen["agreement"])
        told = {"shadow": {name: seen[name] for name in _OF_SHADOW}}
        if policy.then == "shadow":
            return {"did": "named challenger, and shadowed", **told}
        if changed is None or int(seen["frames"]) < policy.shadow_frames:
            return {
                "did": f"named challenger; only {seen['frames']} of {policy.shadow_frames} live frames could be compared, so "
                "it is not promoted",
                **told,
            }
        if changed > policy.most_changed:
            return {
                "did": f"named challenger; it changes {changed:.1%} of live verdicts, more than {policy.most_changed:.1%}, "
                "so a person has to promote it",
                **told,
            }
    line.promote(digest)
    return {"did": "promoted", **told}
