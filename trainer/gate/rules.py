"""The rules: what a challenger must show to be promoted, and what it must not do.

One question decides: is it better (a tuned pack), or at least no worse (a new word, other thresholds, a rollback)? The
answer is the confidence bound of the AUROC's difference; so there is one test, and no second one to get lucky with. All other
rules can only stop a challenger: no product may surely be worse; recall floors and budgets, per product, refuse where their
own bound breaks, and stay open where the test has too few parts for them ever to break.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from dapo.errors import SettingsError
from dapo.inspection import Evaluation
from trainer.gate.bootstrap import (
    LEVEL,
    POWER,
    Difference,
    Scores,
    auroc,
    average_precision,
    paired_difference,
    rate_bounds,
)

MAX_USES = 12  # of one test set: who asks it often enough gets the answer that they want
_ANSWERS = ("better", "no worse")  # rules that answer the question
_WORST = (Evaluation.NOT_OK, Evaluation.NOT_DECIDABLE, Evaluation.UNDEFINED, Evaluation.OK)


class Question(StrEnum):
    """What a challenger has to show."""

    SUPERIOR = "superior"  # tuned packs
    NOT_INFERIOR = "not-inferior"  # new words, thresholds, rollbacks


class Outcome(StrEnum):
    """What became of it."""

    PROMOTE = "promote"
    REFUSE = "refuse"
    NOT_DECIDABLE = "not-decidable"


@dataclass(frozen=True)
class Rules:
    """A plant's own limits.

    Attributes:
        level: of every one-sided bound.
        margin: AUROC that a pack, or one product under it, may be worse by and still counts as no worse; a tuned pack whose
            gain is surely below it is refused.
        power: with which a true difference shall be seen, when parts are asked for.
        recall: type -> share of its parts that must be NotOK; "*": of all defective parts of a product, whatever their type.
        false_alarms: most good parts of a product that may be NotOK, as a share.
        not_decidable: most parts of a product that may be NotDecidable, as a share.
        min_parts: good parts, and defective ones, that a product needs to be judged at all.

    Raises:
        SettingsError: a value is out of its range.
    """

    level: float = LEVEL
    margin: float = 0.01
    power: float = POWER
    recall: Mapping[str, float] = field(default_factory=dict)
    false_alarms: float | None = None
    not_decidable: float | None = None
    min_parts: int = 10

    def __post_init__(self) -> None:
        inner = {"level": self.level, "margin": self.margin, "power": self.power}
        for name, value in inner.items():
            if not 0 < value < 1:
                raise SettingsError(f"gate: {name} is {value}; expected a share above 0 and below 1.")
        budgets = {"false_alarms": self.false_alarms, "not_decidable": self.not_decidable}
        limits = {f"recall of {name}": value for name, value in self.recall.items()}
        for name, limit in (budgets | limits).items():
            if limit is not None and not 0 <= limit <= 1:
                raise SettingsError(f"gate: {name} is {limit}; expected a share of 0 to 1.")
        if self.min_parts < 2:
            raise SettingsError(f"gate: min_parts is {self.min_parts}; expected 2 or more.")


@dataclass(frozen=True)
class Judged:
    """One labelled frame of the test, under both packs.

    Attributes:
        part: the physical part it shows.
        words: types of its defects, as far as they are said.
        champion, challenger: (anomaly score, verdict) under each pack's own thresholds.
    """

    product: str
    part: str
    defective: bool
    words: tuple[str, ...]
    champion: tuple[float, Evaluation]
    challenger: tuple[float, Evaluation]


@dataclass(frozen=True)
class Finding:
    """What one rule said.

    Attributes:
        rule: its name.
        outcome: PROMOTE where it is kept.
        said: for people, with figures.
        label_more: parts to label before it can be decided.
    """

    rule: str
    outcome: Outcome
    said: str
    label_more: int = 0


@dataclass(frozen=True)
class Decision:
    """All findings, and what follows from them.

    Attributes:
        auroc, average_precision: over all products; None where they could not be compared.
        products: the AUROC of each product.
    """

    question: Question
    findings: tuple[Finding, ...]
    auroc: Difference | None
    average_precision: Difference | None
    products: Mapping[str, Difference]

    @property
    def outcome(self) -> Outcome:
        """A broken rule refuses; else what can't be decided stays open; else it is promoted."""
        said = {finding.outcome for finding in self.findings}
        return next(one for one in (Outcome.REFUSE, Outcome.NOT_DECIDABLE, Outcome.PROMOTE) if one in said)

    @property
    def decisive(self) -> Finding:
        """What the outcome rests on: the answer to the question, the first rule broken, or what needs the most parts."""
        own = [finding for finding in self.findings if finding.outcome is self.outcome]
        if self.outcome is Outcome.PROMOTE:
            return next(finding for finding in own if finding.rule in _ANSWERS)
        return max(own, key=lambda finding: finding.label_more)

    @property
    def label_more(self) -> int:
        """Parts to label before all can be decided."""
        return max(finding.label_more for finding in self.findings)


def decide(
    frames: Sequence[Judged], question: Question, rules: Rules | None = None, *, uses: int = 0, seed: int = 0
) -> Decision:
    """Judge a challenger.

    Args:
        frames: the whole frozen test; thresholds of both packs come from other frames.
        uses: how often this test has decided before.
        seed: of the bootstrap.
    """
    rules = rules or Rules()
    findings = [_fresh(uses), *_finite(frames), *_enough(frames, rules)]
    difference = precision = None
    each: dict[str, Difference] = {}
    if all(finding.outcome is Outcome.PROMOTE for finding in findings[1:]):
        products = {name: _scores(own) for name, own in _by_product(frames).items()}
        difference = paired_difference(list(products.values()), auroc, seed=seed)
        precision = paired_difference(list(products.values()), average_precision, seed=seed)
        findings.append(_compared(difference, question, rules))
        each = {name: paired_difference([one], seed=seed) for name, one in products.items()}
        if len(products) > 1:
            findings += [_product(name, found, rules) for name, found in each.items()]
    findings += _guards(frames, question, rules)
    return Decision(question, tuple(findings), difference, precision, each)


def _fresh(uses: int) -> Finding:
    if uses >= MAX_USES:
        return Finding(
            "fresh test",
            Outcome.REFUSE,
            f"this test has decided {uses} times; after {MAX_USES} its parts are known too well. Label a fresh one.",
        )
    return Finding("fresh test", Outcome.PROMOTE, f"decides for the {uses + 1}. time, of {MAX_USES}")


def _finite(frames: Sequence[Judged]) -> Iterable[Finding]:
    broken = [f for f in frames if not (np.isfinite(f.champion[0]) and np.isfinite(f.challenger[0]))]
    if broken:
        said = f"{len(broken)} frames have no score, part {broken[0].part} of {broken[0].product} among them"
        yield Finding("scores", Outcome.REFUSE, said)


def _enough(frames: Sequence[Judged], rules: Rules) -> Iterable[Finding]:
    for product, own in _by_product(frames).items():
        good, bad = (len(members) for members in _scores(own).classes())
        if missing := max(0, rules.min_parts - good) + max(0, rules.min_parts - bad):
            said = f"{product}: {good} good and {bad} defective parts; each needs {rules.min_parts}"
            yield Finding("enough parts", Outcome.NOT_DECIDABLE, said, missing)
    if not frames:
        yield Finding("enough parts", Outcome.NOT_DECIDABLE, "the test is empty", 2 * rules.min_parts)


def _compared(found: Difference, question: Question, rules: Rules) -> Finding:
    lower, upper = found.lower(rules.level), found.upper(rules.level)
    said = (
        f"image AUROC {found.challenger:.3f} against {found.champion:.3f}: {100 * found.value:+.1f} points, "
        f"surely above {100 * lower:+.1f} and below {100 * upper:+.1f} ({found.parts} parts)"
    )
    if question is Question.SUPERIOR:
        if lower > 0:
            return Finding("better", Outcome.PROMOTE, said)
        if upper < rules.margin:
            gain = f"{said}; a gain of {100 * rules.margin:.0f} point is ruled out"
            return Finding("better", Outcome.REFUSE, gain)
        needed = found.parts_for(max(found.value, rules.margin), rules.level, rules.power)
        return Finding("better", Outcome.NOT_DECIDABLE, said, max(1, needed - found.parts))
    if lower > -rules.margin:
        return Finding("no worse", Outcome.PROMOTE, said)
    if upper < -rules.margin:
        return Finding(
            "no worse", Outcome.REFUSE, f"{said}; it is worse by more than {100 * rules.margin:.0f} point"
        )
    # As many as show the difference that was found to be above the margin; or, where it is not, that there is none.
    room = found.value + rules.margin
    needed = found.parts_for(room if room > 0 else rules.margin, rules.level, rules.power)
    return Finding("no worse", Outcome.NOT_DECIDABLE, said, max(1, needed - found.parts))


def _product(name: str, found: Difference, rules: Rules) -> Finding:
    """A gain on all must not be paid for by one."""
    upper = found.upper(rules.level)
    said = f"{name}: {100 * found.value:+.1f} points, surely below {100 * upper:+.1f}"
    return Finding("each product", Outcome.REFUSE if upper < -rules.margin else Outcome.PROMOTE, said)


@dataclass(frozen=True)
class _Part:
    """A part under both packs: the worst verdict of its frames."""

    defective: bool
    words: frozenset[str]
    champion: Evaluation
    challenger: Evaluation
    undefined: bool  # any frame of it, under the challenger


def _parts(frames: Sequence[Judged]) -> list[_Part]:
    own: dict[str, list[Judged]] = defaultdict(list)
    for frame in frames:
        own[frame.part].append(frame)
    return [
        _Part(
            defective=any(frame.defective for frame in those),
            words=frozenset(word for frame in those for word in frame.words),
            champion=min((frame.champion[1] for frame in those), key=_WORST.index),
            challenger=min((frame.challenger[1] for frame in those), key=_WORST.index),
            undefined=any(frame.challenger[1] is Evaluation.UNDEFINED for frame in those),
        )
        for those in own.values()
    ]


def _guards(frames: Sequence[Judged], question: Question, rules: Rules) -> Iterable[Finding]:
    products = {name: _parts(own) for name, own in _by_product(frames).items()}
    parts = [part for own in products.values() for part in own]
    limited = bool(rules.recall) or rules.false_alarms is not None or rules.not_decidable is not None
    lost = any(part.undefined and part.champion is not Evaluation.UNDEFINED for part in parts)
    if lost or (limited and any(part.undefined for part in parts)):
        yield Finding(
            "calibrated",
            Outcome.REFUSE,
            "the challenger has no thresholds for some product: calibrate it first",
        )
        return
    changed = sum(part.champion is not part.challenger for part in parts)
    if question is Question.NOT_INFERIOR and changed and (not rules.recall or rules.false_alarms is None):
        # The AUROC does not see thresholds.
        yield Finding(
            "verdicts",
            Outcome.REFUSE,
            f"{changed} of {len(parts)} parts get another verdict, and nothing says which is worse: "
            "set a floor of recall and a budget of false alarms",
        )
    for name, own in products.items():
        yield from _budgets(name, own, rules)
    for word, floor in rules.recall.items():
        showing = {
            name: [part.challenger for part in own if part.defective and word in ("*", *part.words)]
            for name, own in products.items()
        }
        for name, verdicts in showing.items():
            if verdicts:
                yield _floor(f"{name}: {'all types' if word == '*' else word}", verdicts, floor, rules.level)
        if not any(showing.values()):
            yield _floor(word, [], floor, rules.level)


def _budgets(name: str, parts: Sequence[_Part], rules: Rules) -> Iterable[Finding]:
    if rules.false_alarms is not None:
        good = [part.challenger for part in parts if not part.defective]
        yield _budget("false alarms", name, good, Evaluation.NOT_OK, rules.false_alarms, rules.level)
    if rules.not_decidable is not None:
        said = [part.challenger for part in parts]
        yield _budget("not decidable", name, said, Evaluation.NOT_DECIDABLE, rules.not_decidable, rules.level)


def _budget(
    rule: str, product: str, verdicts: Sequence[Evaluation], counted: Evaluation, most: float, level: float
) -> Finding:
    hits, count = sum(verdict is counted for verdict in verdicts), len(verdicts)
    lower, _ = rate_bounds(hits, count, level) if count else (0.0, 1.0)
    said = f"{product}: {hits} of {count} parts, surely above {lower:.1%}; the budget is {most:.1%}"
    return Finding(rule, Outcome.REFUSE if lower > most else Outcome.PROMOTE, said)


def _floor(what: str, verdicts: Sequence[Evaluation], floor: float, level: float) -> Finding:
    hits, count = sum(verdict is Evaluation.NOT_OK for verdict in verdicts), len(verdicts)
    # So many parts, all of them missed, would be the first to break it: with fewer any rate would pass.
    needed = 1 if floor >= 1 else math.floor(math.log(level) / math.log(1 - floor)) + 1 if floor > 0 else 0
    if count < needed:
        said = f"{what}: {count} parts; the floor of {floor:.1%} needs {needed} to be judged"
        return Finding("recall", Outcome.NOT_DECIDABLE, said, needed - count)
    _, upper = rate_bounds(hits, count, level) if count else (0.0, 1.0)
    broken = upper < floor or (floor >= 1 and hits < count)
    said = f"{what}: {hits} of {count} parts are NotOK, surely below {upper:.1%}; the floor is {floor:.1%}"
    return Finding("recall", Outcome.REFUSE if broken else Outcome.PROMOTE, said)


def _by_product(frames: Sequence[Judged]) -> dict[str, list[Judged]]:
    found: dict[str, list[Judged]] = defaultdict(list)
    for frame in frames:
        found[frame.product].append(frame)
    return dict(sorted(found.items()))


def _scores(frames: Sequence[Judged]) -> Scores:
    numbers = {part: number for number, part in enumerate(dict.fromkeys(frame.part for frame in frames))}
    return Scores(
        parts=np.array([numbers[frame.part] for frame in frames], np.int64),
        defective=np.array([frame.defective for frame in frames], bool),
        champion=np.array([frame.champion[0] for frame in frames], np.float64),
        challenger=np.array([frame.challenger[0] for frame in frames], np.float64),
    )
