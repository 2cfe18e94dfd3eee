"""The reference's way on whole data sets: prompts tuned on the test split of one, tested on the test splits of others.

    python -m trainer.paper.transfer --tuned-on visa:/data/VisA --tested-on mvtec:/data/mvtec --tested-on mpdd:/data/MPDD \\
        --encoder ViT-L-14-336-quickgelu --image-size 518 --device cuda

Hand-written prompts and DAPO's, by the reference protocol (method sections 2, 3 and 5): the paper's objective, Adam at 1e-3,
batches of 8, a fixed number of epochs, paper scoring over the words of each data set. OUT gets dapo.pack, transfer.md and
runs.json; the same call goes on where it stopped. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dapo.encoder import Encoder, load_encoder
from dapo.pack_io import read_pack, write_pack
from pipeline.atomic import write_whole
from trainer.data.dataset import ProductData
from trainer.data.open import open_dataset
from trainer.data.sample import Sample
from trainer.paper.claims import EPOCHS, Trial, run_trial, tuned
from trainer.paper.comparison import DAPO, HAND, Figures
from trainer.paper.kept import Kept
from trainer.retune import CACHE
from trainer.tuning.sides import labelled

PACK = "dapo.pack"
SHOWN = ("image AUROC", "image AP", "pixel AUROC", "AUPRO", "seen types AUROC", "novel types AUROC")
Means = dict[str, dict[str, dict[str, float]]]  # data set -> variant -> metric -> mean over its products


def transfer(
    tuned_on: str,
    tested_on: Sequence[str],
    encoder: Encoder,
    out: Path,
    *,
    cache: Path = CACHE,
    epochs: int = EPOCHS,
    seed: int = 0,
) -> Means:
    """Tune once, and test on each data set.

    Args:
        tuned_on, tested_on: as `trainer.data.open.open_dataset` knows them.
        out: folder for what is kept.

    Raises:
        SourceError, OutputError: a data set can't be read, or a file not written.
    """
    train = tuple(labelled(_test_split(tuned_on)))
    setup = {
        "encoder": [encoder.name, encoder.sha256, encoder.image_size],
        "tuned_on": tuned_on,
        "epochs": epochs,
        "seed": seed,
        "frames": len(train),
    }
    keep = Kept(out / "runs.json", setup, 2 * len(tested_on))
    found: Means = {}
    for name in tested_on:
        trial = Trial("products", seed, f"tuned on {tuned_on}", train, tuple(_products(name)))
        for variant in (HAND, DAPO):

            def work(trial: Trial = trial, learned: bool = variant.learned) -> Figures:
                if not learned:
                    return run_trial(trial, HAND, encoder, cache)
                path = out / PACK
                pack = read_pack(path) if path.exists() else tuned(trial, DAPO, encoder, cache, epochs)
                if not path.exists():
                    write_pack(pack, path)
                return run_trial(trial, DAPO, encoder, cache, pack=pack)

            figures: Figures = keep(f"{variant.name}; {name}", work)
            found.setdefault(name, {})[variant.name] = _means(figures)
    return found


def table(means: Means) -> str:
    """Markdown: a row per data set and variant."""
    lines = ["| tested on | prompts | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 2) + "|"]
    for name, variants in means.items():
        for variant, row in variants.items():
            cells = [f"{row[metric]:.3f}" if metric in row else "-" for metric in SHOWN]
            lines.append(f"| {name} | {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _means(figures: Figures) -> dict[str, float]:
    """Unweighted over the products that have it."""
    found = {}
    for metric in SHOWN:
        values = [value for row in figures.values() if (value := row[metric]) is not None]
        if values:
            found[metric] = float(np.mean(values))
    return found


def _products(name: str) -> list[ProductData]:
    data = open_dataset(name)
    return [data.product(product).test for product in data.products()]


def _test_split(name: str) -> list[Sample]:
    return [sample for product in _products(name) for sample in product.samples]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tuned-on", required=True, help="a data set: FORMAT:PATH (docs/data.md)")
    parser.add_argument(
        "--tested-on", action="append", required=True, help="another; may be given several times"
    )
    parser.add_argument("--encoder", default="dapo-tiny", help="open_clip architecture")
    parser.add_argument("--tag", default="openai", help="its weights: a hub tag")
    parser.add_argument("--image-size", type=int, default=None)
    parser.add_argument("--weights", type=Path, help="its weights: a local file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("transfer"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    encoder = load_encoder(options.encoder, options.tag, options.image_size, options.weights)
    encoder.clip.to(torch.device(options.device))
    means = transfer(
        options.tuned_on, options.tested_on, encoder, options.out, epochs=options.epochs, seed=options.seed
    )
    text = table(means)
    with write_whole(options.out / "transfer.md") as file:
        file.write(text.encode())
    print(text)
    print(json.dumps({"encoder": encoder.name, "tuned_on": options.tuned_on, "tested_on": means}))


if __name__ == "__main__":
    main()
