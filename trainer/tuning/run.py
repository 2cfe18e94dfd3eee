"""A retuning from data to pack: split, learn, remember, set thresholds, measure before and after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dapo.encoder import Encoder
from dapo.errors import SettingsError
from dapo.pack import Pack
from dapo.pack_changes import with_usual, without_usual
from dapo.packing import model_from_pack
from dapo.patches import has_stem
from dapo.vocabulary import nearest, slugify
from trainer.data.sample import Sample
from trainer.data.split import refuse_leaks
from trainer.drift.measure import LEAST_FRAMES as LEAST_USUAL
from trainer.evaluation.protocol import Outcome
from trainer.tuning.batches import Batches
from trainer.tuning.cache import Content, Cut, FeatureCache
from trainer.tuning.examples import CELLS_PER_PATCH, Example, make_examples, manifest_hash
from trainer.tuning.frozen import Frozen, frozen_half
from trainer.tuning.learner import Learner
from trainer.tuning.look import (
    Features,
    by_frame,
    features_under,
    figures_of,
    outcomes_under,
    scores_of,
    shown,
)
from trainer.tuning.loop import History, Step, Tuning, tune
from trainer.tuning.memories import Memories, needs_stem_tap, of_taps, with_memories, with_stem_tap
from trainer.tuning.notes import lost, unplaced, untrained
from trainer.tuning.packs import learned_pack, products_with_pairs, remembering, with_words
from trainer.tuning.reference import without_memories
from trainer.tuning.scope import Scope, learned_scope
from trainer.tuning.sides import Sides, kept_apart
from trainer.tuning.thresholds import Scored, Wanted, find_thresholds, with_thresholds

Progress = Callable[[str, int, int], None]  # what, done, of how many


@dataclass(frozen=True)
class Plan:
    """What a retuning shall do.

    Attributes:
        scopes: in the order they are worked through.
        tuning: of the scope that learns.
        memories: how memories are made.
        wanted: what thresholds shall keep.
        loss_size: side of the labels in cells; None: four per patch.
        whole_masks: a cell counts as defect only where it is covered wholly, which shrinks masks as the research code does.
        cache: folder of frozen features.
    """

    scopes: tuple[Scope, ...]
    tuning: Tuning
    cache: Path
    memories: Memories = field(default_factory=Memories)
    wanted: Wanted = field(default_factory=Wanted)
    loss_size: int | None = None
    whole_masks: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """A pack on the test side: its outcomes, figures per product, and their mean."""

    outcomes: list[Outcome]
    products: dict[str, dict[str, Any]]
    mean: dict[str, Any]


@dataclass(frozen=True)
class Retuned:
    """What came of it.

    Attributes:
        pack: the new one.
        history: of the losses; None where nothing was learned.
        before, after: on the test side; None where there is no test.
        sides: the frames as they were used; parts that the base was made with may have moved.
        notes: what people should know, a sentence each.
    """

    pack: Pack
    history: History | None
    before: Measured | None
    after: Measured | None
    sides: Sides
    counts: dict[str, dict[str, int]]
    notes: list[str]


def retune(
    base: Pack,
    encoder: Encoder,
    sides: Sides,
    plan: Plan,
    *,
    checkpoint: Path | None = None,
    tell: Progress = lambda what, done, total: None,
) -> Retuned:
    """Make a better pack of one.

    Args:
        base: what is tuned; its products keep types, regions and scale.
        encoder: the base's.
        sides: labelled frames.
        checkpoint: see `trainer.tuning.loop.tune`.

    Raises:
        SourceError: a frame or mask can't be read, or the sides leak.
        SettingsError: the scopes can't be worked through with these data.
    """
    _refuse(base, encoder, sides, plan)
    learned = learned_scope(plan.scopes)
    of_stem = Scope.REFERENCE in plan.scopes and plan.memories.of != "taps" and has_stem(encoder.clip.visual)
    frozen = frozen_half(learned, base, encoder, stem=of_stem)
    cache = FeatureCache(plan.cache, frozen, encoder.image_size)
    sides, contents, notes = _filled(sides, cache, base, plan, tell)
    words = _words_of(sides.train)
    # A word that is learned without one frame that shows it would only be pushed away.
    taught = _words_of([s for s in sides.train if s.drawn or not _in_tiles(base, s)])
    size = plan.loss_size or CELLS_PER_PATCH * encoder.grid
    examples = {
        name: make_examples(own, contents[name], taught, size, whole=plan.whole_masks)
        for name, own in sides.named().items()
    }
    pack, history = with_words(base, encoder, words), None
    if learned is not None:
        learned_words = {name: taught.get(name, ()) for name in words}
        pack, history = _learn(base, encoder, frozen, cache, examples, learned_words, plan, checkpoint, tell)
        pack = with_words(pack, encoder, words)
        notes += unplaced(examples["train"])
    notes += untrained(encoder, words)
    if learned in (Scope.FULL, Scope.STEM) and (moved := of_taps(pack, encoder)):
        pack = without_memories(pack, moved)
        notes.append(
            f"memories of {', '.join(moved)} were dropped where they are not made again: they are of taps as they were before."
        )
    if of_stem and needs_stem_tap(pack, encoder, examples["train"]):
        pack = with_stem_tap(pack, encoder, cache, examples["train"], plan.seed)
    seen = {
        name: features_under(pack, encoder, frozen, cache, own) if own else None
        for name, own in examples.items()
    }
    if Scope.REFERENCE in plan.scopes:
        tell("memories", 0, 1)
        pack, more = with_memories(pack, examples, seen, plan.memories, learned=learned is not None)
        notes += more
        tell("memories", 1, 1)
    if Scope.THRESHOLDS in plan.scopes:
        pack, more = _with_thresholds(pack, examples, seen["validation"], plan)
        notes += more
    notes += lost(base, pack, {example.product for own in examples.values() for example in own})
    if learned is not None or Scope.REFERENCE in plan.scopes:
        pack = without_usual(pack)
    pack = _with_usual(pack, examples["validation"], seen["validation"])
    pack = remembering(
        pack,
        base,
        examples,
        {
            "scopes": [str(scope) for scope in plan.scopes],
            "tuning": asdict(plan.tuning) if learned is not None else None,
            "memories": asdict(plan.memories) if Scope.REFERENCE in plan.scopes else None,
            "seed": plan.seed,
        },
        learned=learned is not None or Scope.REFERENCE in plan.scopes,
        chose=bool({Scope.REFERENCE, Scope.THRESHOLDS} & set(plan.scopes)),
    )
    before = after = None
    if examples["test"]:
        old = with_words(base, encoder, words)
        before = measure(old, features_under(old, encoder, frozen, cache, examples["test"]), examples["test"])
        assert seen["test"] is not None
        after = measure(pack, seen["test"], examples["test"])
    return Retuned(pack, history, before, after, sides, _counts(sides), notes)


def measure(pack: Pack, features: Features, examples: Sequence[Example]) -> Measured:
    """A pack on examples whose features are known."""
    outcomes = outcomes_under(pack, features, examples)
    rows = {word.slug: word.word for word in pack.types}
    said = {slugify(word): word for example in examples for word in example.sample.words}
    words = {
        name: [said.get(slug, rows[slug]) for slug in pack.product(name).types]
        for name in {example.product for example in examples}
    }
    products, mean = figures_of(pack, outcomes, words)
    return Measured(outcomes, products, mean)


def _filled(
    sides: Sides, cache: FeatureCache, base: Pack, plan: Plan, tell: Progress
) -> tuple[Sides, dict[str, list[Content]], list[str]]:
    """All frames in the cache; the sides as they may be, what each frame is told by, and what to tell of it.

    Raises:
        SourceError: a picture or a part is on two sides.
    """
    sides, notes = _looked_at(sides, base)
    named, done = sides.named(), 0
    total = sum(len(samples) for samples in named.values())

    def advance(count: int) -> None:
        nonlocal done
        done += count
        tell("features", done, total)

    # Frames may still move to the side that is learned from, so all are mirrored.
    cuts = {name: Cut.of(base.product(name)) for own in named.values() for name in {s.product for s in own}}
    filled = {name: cache.fill(own, plan.tuning.variants, advance, cuts) for name, own in named.items()}
    content_of = {
        id(sample): content
        for name, own in named.items()
        for sample, content in zip(own, filled[name], strict=True)
    }
    sides, moved = kept_apart(sides, lambda sample: content_of[id(sample)].pixels, base.provenance)
    refuse_leaks(sides.named(), lambda sample: content_of[id(sample)].pixels)
    contents = {name: [content_of[id(sample)] for sample in own] for name, own in sides.named().items()}
    if moved:
        notes.append(f"{moved} frames were moved: the pack was made with frames of their parts before.")
    return sides, contents, notes


def _looked_at(sides: Sides, base: Pack) -> tuple[Sides, list[str]]:
    """The sides without frames whose defect production is told not to look at: to it they are good ones."""

    def seen(samples: Sequence[Sample]) -> tuple[Sample, ...]:
        return tuple(sample for sample in samples if shown(sample, base.product(sample.product)))

    kept = Sides(seen(sides.train), seen(sides.validation), seen(sides.test), sides.given)
    before, after = (sum(map(len, one.named().values())) for one in (sides, kept))
    if before == after:
        return sides, []
    return kept, [
        f"{before - after} frames show their defect only where their product is not looked at (roi, ignore): left out."
    ]


def _learn(
    base: Pack,
    encoder: Encoder,
    frozen: Frozen,
    cache: FeatureCache,
    examples: Mapping[str, Sequence[Example]],
    words: Mapping[str, Sequence[str]],
    plan: Plan,
    checkpoint: Path | None,
    tell: Progress,
) -> tuple[Pack, History]:
    tuning = plan.tuning
    train, validation = ([e for e in examples[side] if e.teaches] for side in ("train", "validation"))
    states = {(example.product, example.defective) for example in train}
    both = [name for name in words if {(name, True), (name, False)} <= states]
    if not any(example.defective for example in train):
        raise SettingsError(
            f"scope {tuning.scope}: no defective frame to learn from. Label some (of products in tiles, draw where the "
            "defect is), or take scope 'reference'."
        )
    learner = Learner(model_from_pack(base, encoder), base, products_with_pairs(base, both), both)

    def batches(own: Sequence[Example]) -> Batches:
        return Batches(
            own,
            words,
            cache,
            batch=tuning.batch,
            seed=plan.seed,
            variants=tuning.variants,
            balanced=tuning.objective == "default",
        )

    def step(now: Step) -> None:
        tell(f"loss {now.total:.3f}", now.step, now.steps)

    history = tune(
        learner,
        frozen,
        batches(train),
        words,
        base.generic_words,
        tuning,
        validation=batches(validation) if validation else None,
        checkpoint=checkpoint,
        told=f"{base.configuration_hash} {manifest_hash(train)} {manifest_hash(validation)}",
        tell=step,
    )
    return learned_pack(base, learner, words, paper=tuning.objective == "paper"), history


def _with_thresholds(
    pack: Pack, examples: Mapping[str, Sequence[Example]], seen: Features | None, plan: Plan
) -> tuple[Pack, list[str]]:
    """Thresholds from the frames that choose."""
    notes: list[str] = []
    own: dict[str, list[Outcome]] = defaultdict(list)
    if seen is not None:
        for outcome in outcomes_under(pack, seen, examples["validation"]):
            own[outcome.sample.product].append(outcome)
    known = {example.product for side in examples.values() for example in side}
    for product in sorted(known - set(own)):
        notes.append(f"{product}: no frames for thresholds among those that choose.")
    for product, outcomes in sorted(own.items()):
        types = pack.product(product).types
        frames = Scored(
            parts=[outcome.sample.group or outcome.sample.key for outcome in outcomes],
            scores=scores_of(outcomes),
            defective=np.array([outcome.sample.defective for outcome in outcomes]),
            types=[types[int(o.prediction.type_scores.argmax())] if types else "" for o in outcomes],
        )
        thresholds = find_thresholds(frames, plan.wanted, seed=plan.seed)
        if thresholds is None:
            notes.append(f"{product}: no good part among those that choose, so it has no thresholds.")
            continue
        found, by_type = thresholds
        for slug in sorted((set(plan.wanted.type_false_alarms) & set(types)) - set(by_type)):
            notes.append(
                f"{product}: no good part is taken for {slug}, so it keeps the product's thresholds."
            )
        pack = with_thresholds(pack, product, found, by_type, {"false_alarm_rate": plan.wanted.false_alarms})
        if plan.wanted.cost is None and found.alarm_bound > plan.wanted.false_alarms:
            notes.append(
                f"{product}: thresholds rest on {found.good} good parts; false alarms are surely below "
                f"{found.alarm_bound:.1%}, not below the {plan.wanted.false_alarms:.1%} that are wanted."
            )
    return pack, notes


def _with_usual(pack: Pack, examples: Sequence[Example], seen: Features | None) -> Pack:
    """What good frames that nothing was learned from look like, where there are enough: drift is noticed against them."""
    for product in sorted({example.product for example in examples} & set(pack.products)):
        good = [row for row, e in enumerate(examples) if e.product == product and not e.sample.defective]
        own = [examples[row] for row in good]
        frames = by_frame(own)
        if seen is not None and len(frames) >= LEAST_USUAL:
            features = seen.rows(good)
            outcomes = outcomes_under(pack, features, own)
            mean = np.stack([features.cls[rows].mean(0).numpy() for rows in frames])
            pack = with_usual(pack, product, scores_of(outcomes), mean)
    return pack


def _in_tiles(base: Pack, sample: Sample) -> bool:
    """Whether a frame is cut into several windows."""
    tiles = base.product(sample.product).tiles
    return tiles is not None and tiles.rows * tiles.columns > 1


def _words_of(train: Sequence[Sample]) -> dict[str, tuple[str, ...]]:
    """Product -> types that its frames show."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for sample in train:
        found[sample.product].update(dict.fromkeys(sample.words))
    return {name: tuple(own) for name, own in sorted(found.items())}


def _refuse(base: Pack, encoder: Encoder, sides: Sides, plan: Plan) -> None:
    """What can't be worked through, told before any work."""
    samples = [sample for side in sides.named().values() for sample in side]
    if plan.loss_size is not None and plan.loss_size % encoder.grid:
        raise SettingsError(
            f"--loss-size {plan.loss_size}: expected a multiple of {encoder.grid}, the patches along a side of {encoder.name}."
        )
    if Scope.REFERENCE in plan.scopes and plan.memories.of == "stem" and not has_stem(encoder.clip.visual):
        raise SettingsError(f"memories of the stem: {encoder.name} has none. Make them of its taps.")
    known = {word.slug for word in base.types} | {slugify(w) for sample in samples for w in sample.words}
    if unknown := sorted(set(plan.wanted.type_false_alarms) - known):
        near = nearest(unknown[0], known)
        raise SettingsError(
            f"--type-false-alarm-rate {unknown[0]}: neither the pack nor the data has such a type."
            + (f" Did you mean '{near}'?" if near else "")
        )


def _counts(sides: Sides) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name, samples in sides.named().items():
        for sample in samples:
            row = found.setdefault(sample.product, dict.fromkeys(sides.named(), 0))
            row[name] += 1
    return dict(sorted(found.items()))
