"""The paper's claims, tested: learned prompts beside hand-written ones, and beside two ablations of themselves.

    python -m trainer.paper.claims --data PHOTOGRAPHS --out paper

(a) New products: tuned on half of the products, tested on the other half, and the other way round; another half for each seed.
(b) Novel types: tuned on one half of every product's physical groups without a third of the types, tested on the other half.

Prompts are tuned from scratch and scored by the reference protocol (method sections 2, 3 and 5): the paper's objective, Adam at
1e-3, batches of 8, a fixed number of epochs. What is done is kept in OUT/runs.json; the same call goes on where it stopped.
OUT gets tables (claims.md) and plots; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dapo.encoder import Encoder, load_encoder
from dapo.handwritten import make_handwritten_pack
from dapo.model import DapoModel
from dapo.pack import ANY_PRODUCT, Pack, Product, TypeWord
from dapo.packing import make_pack
from dapo.predictor import Predictor
from dapo.vocabulary import slugify
from pipeline.atomic import write_whole
from trainer.data.dataset import ProductData
from trainer.data.sample import Sample, State
from trainer.evaluation.protocol import Outcome, figures, pack_for, predict
from trainer.paper.comparison import METRICS, TITLES, VARIANTS, Figures, Run, Variant, gains, pictures, tables
from trainer.paper.kept import Kept
from trainer.paper.photographs import drawn, halves, photographs
from trainer.retune import CACHE
from trainer.tuning.loop import Tuning
from trainer.tuning.run import Plan, retune
from trainer.tuning.scope import Scope
from trainer.tuning.sides import Sides

EPOCHS, BATCH = 5, 8  # of the paper
FOLDS = 3  # of the types: a third is withheld
NO_WORD = "x"  # stands where a sentence has the defect's word, as the prompts' own placeholders do


@dataclass(frozen=True)
class Trial:
    """What is tuned on, and what is tested on.

    Attributes:
        claim: "products" or "types".
        withheld: words that no frame of `train` shows; empty where that is not asked about.
    """

    claim: str
    seed: int
    name: str
    train: tuple[Sample, ...]
    test: tuple[ProductData, ...]
    withheld: tuple[str, ...] = ()


def new_products(frames: Mapping[str, Sequence[Sample]], seeds: Sequence[int], most: int) -> list[Trial]:
    """Two trials per seed: one half of the products teaches and the other is tested, then the other way round.

    Args:
        frames: of each product, all of its test split.
        most: frames of each state that a product teaches with.
    """
    found = []
    for seed in seeds:
        names = [sorted(frames)[place] for place in np.random.default_rng(seed).permutation(len(frames))]
        halved = names[: len(names) // 2], names[len(names) // 2 :]
        for taught, tested in (halved, halved[::-1]):
            found.append(
                Trial(
                    "products",
                    seed,
                    f"tuned on {', '.join(sorted(taught))}",
                    tuple(sample for name in taught for sample in drawn(frames[name], most, most, seed)),
                    tuple(ProductData(name, tuple(frames[name])) for name in sorted(tested)),
                )
            )
    return found


def novel_types(
    halved: Mapping[str, tuple[Sequence[Sample], Sequence[Sample]]], seeds: Sequence[int], most: int
) -> list[Trial]:
    """A trial per seed: a third of the words of all products that have several is withheld.

    Args:
        halved: of each product, two halves that share no physical group; the first teaches for the first seed, then in turn.
    """
    kinds = {
        name: {s.word for half in own for s in half if s.defective and s.drawn and s.word}
        for name, own in halved.items()
    }
    words = sorted({word for own in kinds.values() if len(own) > 1 for word in own if word})
    found = []
    for fold, seed in enumerate(seeds):
        withheld = tuple(words[fold % FOLDS :: FOLDS])
        train = []
        for own in halved.values():
            known = [sample for sample in own[fold % 2] if not set(sample.words) & set(withheld)]
            train += drawn(known, most, most, seed)
        tested = tuple(
            ProductData(name, tuple(own[1 - fold % 2]))
            for name, own in sorted(halved.items())
            if len(kinds[name]) > 1 and kinds[name] & set(withheld)
        )
        found.append(Trial("types", seed, f"without {', '.join(withheld)}", tuple(train), tested, withheld))
    return found


def run_trial(
    trial: Trial,
    variant: Variant,
    encoder: Encoder,
    cache: Path,
    *,
    epochs: int = EPOCHS,
    pack: Pack | None = None,
) -> Figures:
    """Tune as the variant says, and test.

    Args:
        pack: that was tuned so already, by `tuned`.
    """
    trained = {word for sample in trial.train for word in sample.words}
    words = sorted(trained | {word for product in trial.test for word in product.words})
    if not variant.learned:
        pack = make_handwritten_pack(encoder, words)
    elif pack is None:
        pack = tuned(trial, variant, encoder, cache, epochs)
    if not variant.words:
        pack = _of_one_word(pack, words)
    fitted = pack_for(pack, encoder, trial.test, "paper")
    predictor = Predictor(fitted, encoder=encoder, runtime="torch", threads=torch.get_num_threads())
    found: Figures = {}
    for product in trial.test:
        outcomes = predict(predictor, product)
        row = figures(product, outcomes, encoder.image_size, sorted(trained))
        row["withheld"] = _of_withheld(product, outcomes, trial.withheld, encoder.image_size)
        if not variant.words:
            row["multi_type"] = None  # all types are one: which of them is no question
        found[product.name] = {name: _at(row, path) for name, path in METRICS.items()}
    return found


def tuned(trial: Trial, variant: Variant, encoder: Encoder, cache: Path, epochs: int) -> Pack:
    """A pack tuned from scratch on the trial's frames, as the variant says."""
    train = trial.train if variant.words else tuple(_of_no_type(sample) for sample in trial.train)
    depth = {} if variant.deep else {"tokens": 0, "text_depth": 0}
    words = sorted({word for sample in train for word in sample.words})
    fresh = make_pack(DapoModel(encoder, seed=trial.seed, **depth), words)
    tuning = Tuning(
        Scope.FULL,
        epochs=epochs,
        batch=BATCH,
        schedule="constant",
        objective="paper",
        seed=trial.seed,
    )
    plan = Plan((Scope.FULL,), tuning, cache, loss_size=encoder.image_size, seed=trial.seed)
    return retune(fresh, encoder, Sides(train, (), ()), plan).pack


def _of_no_type(sample: Sample) -> Sample:
    return replace(sample, regions=tuple(replace(region, word=NO_WORD) for region in sample.regions))


def _of_one_word(pack: Pack, words: Sequence[str]) -> Pack:
    """The pack in which each word means what the placeholder does."""
    at = [word.slug for word in pack.types].index(NO_WORD)
    row = pack.tensors["text.types"][at]
    types = tuple(TypeWord(slugify(word), word) for word in words)
    return replace(
        pack,
        types=types,
        products={ANY_PRODUCT: Product(types=tuple(word.slug for word in types))},
        tensors={**pack.tensors, "text.types": np.tile(row, (len(words), 1))},
    )


def _of_withheld(
    product: ProductData, outcomes: Sequence[Outcome], withheld: Sequence[str], size: int
) -> dict[str, Any] | None:
    """Figures of the frames that show a withheld type and nothing else, beside the good ones."""
    chosen = [
        outcome
        for outcome in outcomes
        if outcome.sample.state is State.GOOD or outcome.sample.word in withheld
    ]
    if not any(outcome.sample.defective for outcome in chosen):
        return None
    data = ProductData(product.name, tuple(outcome.sample for outcome in chosen))
    plain = [replace(outcome, states=None) for outcome in chosen]
    return figures(data, plain, size, (), types=False)


def _at(row: Mapping[str, Any], path: Sequence[str]) -> float | None:
    value: Any = row
    for name in path:
        value = None if value is None else value.get(name)
    return None if value is None else float(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="photographs with their manifest.csv")
    parser.add_argument("--encoder", default="dapo-tiny", help="open_clip architecture")
    parser.add_argument("--tag", default="openai", help="its weights: a hub tag")
    parser.add_argument("--image-size", type=int, default=None)
    parser.add_argument("--weights", type=Path, help="its weights: a local file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("paper"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument(
        "--most", type=int, default=40, help="frames of each state that a product teaches with"
    )
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    encoder = load_encoder(options.encoder, options.tag, options.image_size, options.weights)
    encoder.clip.to(torch.device(options.device))
    frames = {
        name: [sample for sample in own if sample.split != "train"]
        for name, own in photographs(options.data).items()
    }
    seeds = range(options.seeds)
    trials = new_products(frames, seeds, options.most)
    trials += novel_types(
        {name: halves(options.data, own) for name, own in frames.items()}, seeds, options.most
    )
    setup = {
        "encoder": [encoder.name, encoder.sha256, encoder.image_size],
        "epochs": options.epochs,
        "most": options.most,
        "frames": sum(map(len, frames.values())),
    }
    jobs = [(trial, variant) for trial in trials for variant in VARIANTS]
    keep, runs = Kept(options.out / "runs.json", setup, len(jobs)), []
    for trial, variant in jobs:

        def work(trial: Trial = trial, variant: Variant = variant) -> Figures:
            return run_trial(trial, variant, encoder, CACHE, epochs=options.epochs)

        name = f"{variant.name}; {trial.claim}, seed {trial.seed}, {trial.name}"
        runs.append(Run(trial.claim, trial.seed, variant.name, keep(name, work)))
    text = tables(runs)
    with write_whole(options.out / "claims.md") as file:
        file.write(text.encode())
    for claim, picture in pictures(runs).items():
        with write_whole(options.out / f"{claim}.svg") as file:
            file.write(picture.encode())
    print(text)
    print(
        json.dumps(
            {
                **setup,
                "seeds": options.seeds,
                "gains_in_points": {
                    claim: {
                        metric: [round(one, 2) for one in value]
                        for metric, value in gains(runs, claim).items()
                    }
                    for claim in TITLES
                },
                "paper": {"products": {"image AUROC": 3.7}, "types": {"novel types": 6.5}},
                "minutes": round(keep.minutes, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
