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
from dapo.pack import ANY_PRODUCT, Pack
from dapo.packing import model_from_pack
from dapo.patches import has_stem
from dapo.vocabulary import slugify
from trainer.data.sample import Sample
from trainer.data.split import refuse_leaks
from trainer.evaluation.protocol import Outcome
from trainer.tuning.batches import Batches
from trainer.tuning.cache import FeatureCache
from trainer.tuning.examples import CELLS_PER_PATCH, Example, make_examples, manifest_hash
from trainer.tuning.frozen import Frozen, frozen_half
from trainer.tuning.learner import Learner
from trainer.tuning.look import Features, features_under, figures_of, outcomes_under, scores_of
from trainer.tuning.loop import History, Step, Tuning, tune
from trainer.tuning.memories import Memories, with_memories, with_stem_tap
from trainer.tuning.packs import learned_pack, products_with_pairs, remembering, with_words
from trainer.tuning.reference import without_memories
from trainer.tuning.scope import Scope, learned_scope
from trainer.tuning.sides import Sides
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
        notes: what people should know, a sentence each.
    """

    pack: Pack
    history: History | None
    before: Measured | None
    after: Measured | None
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
    _refuse_tiles(base, sides)
    learned = learned_scope(plan.scopes)
    kind = plan.memories.of if Scope.REFERENCE in plan.scopes else "taps"
    of_stem = kind == "stem" or (kind == "both" and has_stem(encoder.clip.visual))
    frozen = frozen_half(learned, base, encoder, stem=of_stem)
    cache = FeatureCache(plan.cache, frozen, encoder.image_size)
    notes: list[str] = []
    words = _words_learned(sides.train)
    examples = _examples(sides, cache, words, plan, encoder, tell)
    pack, history = with_words(base, encoder, words), None
    if learned is not None:
        pack, history = _learn(base, encoder, frozen, cache, examples, words, plan, checkpoint, tell)
    notes += _untrained(encoder, words)
    if of_stem:
        pack = with_stem_tap(pack, encoder, cache, examples["train"], plan.seed)
    if (
        any(product.reference for product in pack.products.values())
        and pack.features_hash != base.features_hash
    ):
        pack = without_memories(pack)
        if Scope.REFERENCE not in plan.scopes:
            notes.append(
                "the memories of good frames were dropped: they are of the old image side. Add scope 'reference'."
            )
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
        pack, more = _with_thresholds(pack, examples["validation"], seen["validation"], plan)
        notes += more
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
        learned=learned is not None,
    )
    before = after = None
    if examples["test"]:
        old = with_words(base, encoder, words)
        before = measure(old, features_under(old, encoder, frozen, cache, examples["test"]), examples["test"])
        assert seen["test"] is not None
        after = measure(pack, seen["test"], examples["test"])
    return Retuned(pack, history, before, after, _counts(sides), notes)


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


def _examples(
    sides: Sides,
    cache: FeatureCache,
    words: Mapping[str, Sequence[str]],
    plan: Plan,
    encoder: Encoder,
    tell: Progress,
) -> dict[str, list[Example]]:
    """All sides as examples, their features in the cache; refused where a picture is on two sides."""
    named, done = sides.named(), 0
    total = sum(len(samples) for samples in named.values())

    def advance(count: int) -> None:
        nonlocal done
        done += count
        tell("features", done, total)

    variants = {"train": plan.tuning.variants}
    contents = {name: cache.fill(own, variants.get(name, ("",)), advance) for name, own in named.items()}
    pixels = {
        sample.key + sample.product: content.pixels
        for name, own in named.items()
        for sample, content in zip(own, contents[name], strict=True)
    }
    refuse_leaks(named, lambda sample: pixels[sample.key + sample.product])
    size = plan.loss_size or CELLS_PER_PATCH * encoder.grid
    return {
        name: make_examples(own, contents[name], words, size, whole=plan.whole_masks)
        for name, own in named.items()
    }


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
    learner = Learner(model_from_pack(base, encoder), base, products_with_pairs(base, words))

    train, validation = examples["train"], examples["validation"]

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
    pack: Pack, examples: Sequence[Example], seen: Features | None, plan: Plan
) -> tuple[Pack, list[str]]:
    notes: list[str] = []
    own: dict[str, list[Outcome]] = defaultdict(list)
    if seen is not None:
        for outcome in outcomes_under(pack, seen, examples):
            own[outcome.sample.product].append(outcome)
    for product in sorted(set(pack.products) - set(own) - {ANY_PRODUCT}):
        notes.append(f"{product}: no frames for thresholds among those that choose.")
    for product, outcomes in sorted(own.items()):
        types = pack.product(product).types
        frames = Scored(
            parts=[outcome.sample.group or outcome.sample.key for outcome in outcomes],
            scores=scores_of(outcomes),
            defective=np.array([outcome.sample.defective for outcome in outcomes]),
            types=[types[int(o.prediction.type_scores.argmax())] if types else "" for o in outcomes],
        )
        if frames.defective.all():
            notes.append(f"{product}: no good frame among those that choose, so it has no thresholds.")
            continue
        found, by_type = find_thresholds(frames, plan.wanted, seed=plan.seed)
        pack = with_thresholds(pack, product, found, by_type, {"false_alarm_rate": plan.wanted.false_alarms})
        if found.alarm_bound > plan.wanted.false_alarms:
            notes.append(
                f"{product}: thresholds rest on {found.good} good parts; false alarms are surely below "
                f"{found.alarm_bound:.1%}, not below the {plan.wanted.false_alarms:.1%} that are wanted."
            )
    return pack, notes


def _words_learned(train: Sequence[Sample]) -> dict[str, tuple[str, ...]]:
    """Product -> types that its frames show. A type without any would only be pushed away."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for sample in train:
        found[sample.product].update(dict.fromkeys(sample.words))
    return {name: tuple(own) for name, own in sorted(found.items())}


def _untrained(encoder: Encoder, words: Mapping[str, Sequence[str]]) -> list[str]:
    knows = encoder.knows
    if knows is None:
        return []
    unknown = sorted({word for own in words.values() for word in own if not knows(word)})
    if not unknown:
        return []
    return [
        f"{encoder.name} was not trained on: {', '.join(unknown)}. They share one token, so they look alike to it."
    ]


def _refuse_tiles(base: Pack, sides: Sides) -> None:
    named = {sample.product for samples in sides.named().values() for sample in samples}
    for name in sorted(named & set(base.products)):
        product = base.products[name]
        if product.tiles or product.roi or product.ignore:
            raise SettingsError(
                f"product {name}: is cut into tiles or regions, which a retuning does not see yet. "
                "Leave it out with --products, or cut its frames beforehand."
            )


def _counts(sides: Sides) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name, samples in sides.named().items():
        for sample in samples:
            row = found.setdefault(sample.product, dict.fromkeys(sides.named(), 0))
            row[name] += 1
    return dict(sorted(found.items()))
