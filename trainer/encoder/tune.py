"""The default prompt pack: V, W, T, P and adapters of DAPO, tuned for dapo-tiny on the same procedural surfaces.

    python -m trainer.encoder.tune --pool POOL --validation VALIDATION --out dapo/weights/dapo-tiny.pack --seed 1

The objective is the paper's (dapo/objective.py) over a changing choice of words, with two additions that the `default`
scoring needs, because it detects with generic words and types with CLS too: the same objective for the pair normal /
generic word, and a cross-entropy of CLS over the defect words of images that hold one type. The encoder stays frozen; its
stem features come from the pool, so that a step costs no pixel. Tuned at the paper's temperature, the pack gets one of its
own at the end (trainer/encoder/temperature.py).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F

from dapo.encoder import Encoder, load_encoder
from dapo.model import DapoModel, ImageFeatures
from dapo.objective import objective
from dapo.pack import ANY_PRODUCT, Pack, Product
from dapo.pack_io import write_pack
from dapo.packing import make_pack
from dapo.vocabulary import slugify
from trainer.encoder.features import Pool, open_pool
from trainer.encoder.generator import DEFECT_NAMES
from trainer.encoder.sentences import class_words, generic_words
from trainer.encoder.temperature import fit_temperature

# Best F1 of cells on the validation families lies at 0.4 to 0.45, where half as many defects go without outline as at 0.5.
_MASK_THRESHOLD = 0.4
_CLEAR_COVER = 64  # of 255: a cell with a quarter of a defect belongs to it


@dataclass(frozen=True)
class Tuning:
    """How long and how. Batch and Adam as in the paper; the rate falls to zero, since the pool is seen once."""

    steps: int = 600
    batch: int = 8
    words: int = 10
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)


def start_from_encoder(model: DapoModel) -> None:
    """Start the adapters at the encoder's own projection (layer norm's affine part folded in), not at random.

    The norm divides by each patch's spread, which the L2 norm after the adapter undoes, up to the bias.
    """
    visual = model.clip.visual
    gain, shift, projection = visual.ln_post.weight, visual.ln_post.bias, visual.proj
    width = len(gain)
    centre = torch.eye(width) - 1.0 / width
    with torch.no_grad():
        for layer in model.adapters.layers:
            layer.get_parameter("weight").copy_((centre @ torch.diag(gain) @ projection).T)
            layer.get_parameter("bias").copy_(shift @ projection)


class Draw:
    """Seeded batches of whole surfaces with the words to read them by."""

    def __init__(self, pool: Pool, tuning: Tuning, seed: int) -> None:
        self._pool, self._tuning = pool, tuning
        self._rng = np.random.default_rng([seed, 21])
        self._words, self._generic = class_words(), generic_words()

    def _pick(self, words: tuple[str, ...]) -> str:
        return words[int(self._rng.integers(len(words)))]

    def next(self) -> tuple[Tensor, list[str], Tensor, str]:
        """Stem features [B, 272, 16, 16], words, text row per cell [B, 32, 32], one generic word."""
        rng, pool = self._rng, self._pool
        rows = np.sort(rng.choice(len(pool), self._tuning.batch, replace=False))
        clear = np.where(pool.cover[rows] >= _CLEAR_COVER, pool.types[rows], 0)
        present = [int(c) for c in np.unique(clear) if c]
        others = [
            c for c in rng.permutation(np.arange(1, len(DEFECT_NAMES) + 1)).tolist() if c not in present
        ]
        chosen = [*present, *others][: max(self._tuning.words, len(present))]
        lookup = np.zeros(len(DEFECT_NAMES) + 1, np.int64)
        lookup[chosen] = np.arange(1, len(chosen) + 1)
        features = torch.from_numpy(pool.features[rows].astype(np.float32))
        words = [self._pick(self._words[c - 1]) for c in chosen]
        return features, words, torch.from_numpy(lookup[clear]), self._pick(self._generic)


def loss_of(
    features: ImageFeatures, text: Tensor, generic: Tensor, types: Tensor, temperature: float
) -> Tensor:
    """The objective over the words, the same over the generic word, and the CLS type loss."""
    labels = (types > 0).flatten(1).any(1).long()
    typed = objective(features, text, types, labels, temperature).total
    pair = torch.stack([text[0], generic])
    found = objective(features, pair, (types > 0).long(), labels, temperature).total
    single, target = [], []
    for row, cells in enumerate(types):
        kinds = torch.unique(cells[cells > 0])
        if len(kinds) == 1:
            single.append(row)
            target.append(int(kinds[0]) - 1)
    if not single:
        return typed + found
    logits = features.cls[single] @ text[1:].T / temperature
    return typed + found + F.cross_entropy(logits, torch.tensor(target))


def tune(encoder: Encoder, pool: Pool, tuning: Tuning, seed: int) -> DapoModel:
    """Tune a fresh model on the pool; seeded."""
    torch.manual_seed(seed)
    model = DapoModel(encoder, seed=seed)
    start_from_encoder(model)
    optimiser = torch.optim.Adam(model.trainable(), lr=tuning.learning_rate, betas=tuning.betas)
    draw, running = Draw(pool, tuning, seed), math.nan
    columns = (
        TextColumn("prompts {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("", total=tuning.steps)
        for step in range(tuning.steps):
            for group in optimiser.param_groups:
                group["lr"] = tuning.learning_rate * 0.5 * (1 + math.cos(math.pi * step / tuning.steps))
            features, words, types, generic_word = draw.next()
            text = model.text_matrix([*words, generic_word])
            seen = model.image_features(features, stem=True)  # the pool holds what the stem says
            value = loss_of(seen, text[:-1], text[-1], types, model.temperature)
            optimiser.zero_grad()
            torch.autograd.backward(value)
            nn.utils.clip_grad_norm_(model.trainable(), 5.0)
            optimiser.step()
            now = float(value.detach())
            running = now if math.isnan(running) else 0.98 * running + 0.02 * now
            progress.update(task, advance=1, description=f"loss {running:.3f}")
    return model.eval()


def default_pack(model: DapoModel, provenance: dict[str, Any]) -> Pack:
    """The pack with every trained word; product "*" types with one word a class."""
    words = [word for group in class_words() for word in group]
    # A class's first word is the plainest; these are what "*" answers with.
    plain = tuple(slugify(group[0]) for group in class_words())
    training = sorted({*words, *generic_words()})
    pack = make_pack(model, words, provenance={**provenance, "training_words": training})
    return pack.with_products({ANY_PRODUCT: Product(types=plain, mask_threshold=_MASK_THRESHOLD)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--validation", type=Path, required=True, help="pool that sets the temperature")
    parser.add_argument("--weights", type=Path, help="dapo-tiny.safetensors; default: the bundled one")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=Tuning.steps)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tuning = Tuning(steps=options.steps)
    started = time.monotonic()
    encoder = load_encoder("dapo-tiny", path=options.weights)
    if options.weights is not None:  # trained for the bundle, wherever the file lies while it is made
        encoder = Encoder(**{**vars(encoder), "weights": "bundled"})
    model = tune(encoder, open_pool(options.pool), tuning, options.seed)
    provenance = {
        "pool": json.loads((options.pool / "pool.json").read_text()),
        "temperature_from": json.loads((options.validation / "pool.json").read_text()),
        "tuning": asdict(tuning),
        "seed": options.seed,
    }
    pack = fit_temperature(default_pack(model, provenance), encoder, open_pool(options.validation))
    digest = write_pack(pack, options.out)
    print(
        json.dumps(
            {
                "out": str(options.out),
                "configuration_hash": digest,
                "seconds": round(time.monotonic() - started, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
