"""One product through the protocol: predictions, then every metric of it.

`paper`: paper scoring over the words of the whole data set, frames as a whole. `default`: generic words detect, the product's
words type, and frames are cut as production cuts them. Maps and masks are squashed to the model's input alike; maps are
enlarged once, bilinear, corners aligned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dapo import head
from dapo.encoder import Encoder
from dapo.inspection import Prediction
from dapo.judge import looked_at, upsample
from dapo.model import ImageFeatures
from dapo.pack import ANY_PRODUCT, PAIR, REFERENCE, USUAL, Pack, Product, Scoring, TypeWord
from dapo.packing import type_vector
from dapo.predictor import Predictor
from dapo.preprocess import resize
from dapo.tiles import merge, windows
from dapo.vocabulary import slugify
from trainer.data.dataset import ProductData
from trainer.data.sample import GOOD, Sample
from trainer.evaluation.aupro import aupro
from trainer.evaluation.metrics import Counts, tally, three
from trainer.evaluation.multitype import MultiType

Protocol = Literal["paper", "default"]
BATCH = 8
_OF_PRODUCTS = (PAIR, REFERENCE, USUAL)  # begin the names of tensors that belong to one product
PAPER = Scoring(kind="paper", top_k_fraction=1.0, fuse_map=0.0, smoothing_sigma=0.0, type_fuse_cls=0.0)


@dataclass(frozen=True)
class Outcome:
    """One test image as predicted: `states` [1+K, S, S] are the probabilities of the multi-type task, which cut frames lack."""

    sample: Sample
    prediction: Prediction
    states: NDArray[np.float32] | None


def pack_for(pack: Pack, encoder: Encoder, products: Sequence[ProductData], protocol: Protocol) -> Pack:
    """The pack with the words of the data: each known word's own row, one text encoding for any other."""
    words = list(dict.fromkeys(word for product in products for word in product.words))
    rows = {known.slug: row for row, known in enumerate(pack.types)}
    vectors, types = [], []
    for word in words:
        slug = slugify(word)
        if slug in rows:
            vectors.append(pack.tensors["text.types"][rows[slug]])
            types.append(pack.types[rows[slug]])
        else:
            vectors.append(type_vector(pack, encoder, word))
            types.append(TypeWord(slug, word, encoder.knows is None or encoder.knows(word)))
    width = pack.encoder.joint_width
    table = np.stack(vectors).astype(np.float32) if vectors else np.zeros((0, width), np.float32)
    named = {
        product.name: replace(
            as_named(pack, product.name),
            types=tuple(slugify(word) for word in product.words),
            type_thresholds={},
        )
        for product in products
    }
    return replace(
        pack,
        types=tuple(types),
        products={ANY_PRODUCT: Product(types=tuple(word.slug for word in types)), **named},
        scoring=PAPER if protocol == "paper" else replace(pack.scoring, kind="default"),
        tensors={**_without_others(pack, named), "text.types": table},
    )


def as_named(pack: Pack, name: str) -> Product:
    """The product; one that the pack does not know is cut, and its regions count, as it is without a name. It has no types."""
    before = pack.product(name)
    nameless = Product(
        mask_threshold=before.mask_threshold, tiles=before.tiles, roi=before.roi, ignore=before.ignore
    )
    return pack.products.get(name, nameless)


def _without_others(pack: Pack, named: Mapping[str, Product]) -> dict[str, NDArray[np.float32]]:
    """The pack's tensors without those of products that are not evaluated."""
    return {
        name: array
        for name, array in pack.tensors.items()
        if not any(name.startswith(kind) and name.removeprefix(kind) not in named for kind in _OF_PRODUCTS)
    }


def predict(
    predictor: Predictor, product: ProductData, advance: Callable[[int], None] = lambda count: None
) -> list[Outcome]:
    """All test images of a product, in order; by `default` scoring cut and weighed as its pack says."""
    own = predictor.pack.product(product.name)
    as_production = predictor.scoring.kind == "default"
    if as_production and is_cut(own):
        return [_predict_cut(predictor, sample, advance) for sample in product.samples]
    outcomes = []
    several = len(product.words) > 1 and product.has_masks
    for first in range(0, len(product.samples), BATCH):
        samples = product.samples[first : first + BATCH]
        images = np.stack([resize(sample.image(), predictor.image_size) for sample in samples])
        features = predictor.features(images)
        predictions = predictor.predictions(features, [product.name] * len(samples))
        if as_production:
            predictions = [looked_at(prediction, own) for prediction in predictions]
        states: Sequence[NDArray[np.float32] | None] = [None] * len(samples)
        if several:
            states = list(_states(predictor, features, predictions, product.name))
        outcomes += [Outcome(*row) for row in zip(samples, predictions, states, strict=True)]
        advance(len(samples))
    return outcomes


def is_cut(product: Product) -> bool:
    """Whether the model sees parts of a frame, not the frame as it is."""
    return bool(product.tiles or product.roi)


def _predict_cut(predictor: Predictor, sample: Sample, advance: Callable[[int], None]) -> Outcome:
    """One image as production merges and weighs its windows."""
    product, image = predictor.pack.product(sample.product), sample.image()
    height, width = image.shape[:2]
    parts = windows(width, height, product.tiles, product.roi)
    predictions: list[Prediction] = []
    for first in range(0, len(parts), BATCH):
        small = np.stack(
            [resize(part.cut(image), predictor.image_size) for part in parts[first : first + BATCH]]
        )
        predictions += predictor.predict(small, [sample.product] * len(small))
    advance(1)
    return Outcome(sample, looked_at(merge(predictions, parts, width, height), product), None)


@torch.inference_mode()
def _states(
    predictor: Predictor, features: ImageFeatures, predictions: Sequence[Prediction], product: str
) -> NDArray[np.float32]:
    """Probabilities of good and of each own type per pixel, float16 [B, 1+K, S, S]."""
    pack, size = predictor.pack, predictor.image_size
    rows = {word.slug: row for row, word in enumerate(pack.types)}
    device = features.cls.device
    table = pack.tensors["text.types"][[rows[slug] for slug in pack.product(product).types]]
    own = torch.from_numpy(table).to(device)
    taps = features.taps[:-1] if pack.has_stem_tap else features.taps
    if predictor.scoring.kind == "paper":
        text = torch.cat([torch.from_numpy(pack.tensors["text.normal"]).to(device)[None], own])
        maps = head.state_maps(taps, text, pack.temperature, size) / len(taps)
        return np.asarray(maps.cpu().numpy(), np.float16)
    share = (torch.stack(taps).mean(0) @ own.T / pack.temperature).softmax(-1)
    cells = np.stack([p.map for p in predictions]).astype(np.float32)
    anomaly = torch.from_numpy(cells).to(device).flatten(1)[..., None]
    states = torch.cat([1 - anomaly, anomaly * share], -1)
    return np.asarray(head.upsample(states, size).cpu().numpy(), np.float16)


def figures(
    product: ProductData,
    outcomes: Sequence[Outcome],
    size: int,
    trained_words: Sequence[str],
    *,
    types: bool = True,
) -> dict[str, Any]:
    """Every metric of method section 5 for one product; None where the data has no say.

    Args:
        size: side of the maps and masks.
        trained_words: words of the pack's own tuning; any other is novel.
        types: whether the predictions name types.
    """
    scores = np.array([outcome.prediction.score for outcome in outcomes])
    defective = np.array([outcome.sample.defective for outcome in outcomes])
    result: dict[str, Any] = {
        "images": len(outcomes),
        "defective": int(defective.sum()),
        "image": three(tally(scores, defective)) if product.has_good and defective.any() else None,
        "pixel": None,
        "types": type_accuracy(product, outcomes) if types else None,
        "multi_type": None,
    }
    if product.has_masks:
        result["pixel"] = _pixel(outcomes, size)
        if any(outcome.states is not None for outcome in outcomes):
            result["multi_type"] = _multi_type(product, outcomes, size, trained_words)
    return result


def _pixel(outcomes: Sequence[Outcome], size: int) -> dict[str, float | None]:
    counts, maps, masks = Counts(), [], []
    for outcome in outcomes:
        mask = outcome.sample.mask_at(size)
        if mask is None:
            continue
        anomaly = upsample(outcome.prediction.map.astype(np.float32), size, size).astype(np.float16)
        counts.add(anomaly, mask)
        maps.append(anomaly)
        masks.append(mask)
    return {**three(tally(counts)), "aupro": aupro(maps, masks)}


def _multi_type(
    product: ProductData, outcomes: Sequence[Outcome], size: int, trained_words: Sequence[str]
) -> dict[str, Any]:
    task = MultiType([GOOD, *product.words])
    for outcome in outcomes:
        truth = outcome.sample.types_at(product.words, size)
        if truth is not None and outcome.states is not None:
            task.add(outcome.states, truth)
    seen = [word for word in product.words if word in trained_words]
    novel = [word for word in product.words if word not in trained_words]
    return {
        "all": task.figures(),
        "seen": task.figures(seen),
        "novel": task.figures(novel),
        "novel_words": novel,
        "absent_words": [word for word in task.absent if word != GOOD],
    }


def type_accuracy(product: ProductData, outcomes: Sequence[Outcome]) -> dict[str, float | int] | None:
    """Share of defective images whose likeliest type is the true one, beside chance and the commonest type."""
    truth = [outcome.sample.word for outcome in outcomes if outcome.sample.defective and outcome.sample.word]
    if len(product.words) < 2 or not truth:
        return None
    said = [
        product.words[int(outcome.prediction.type_scores.argmax())]
        for outcome in outcomes
        if outcome.sample.defective and outcome.sample.word
    ]
    commonest = max(truth.count(word) for word in set(truth))
    hits = sum(a == b for a, b in zip(truth, said, strict=True))
    return {
        "accuracy": hits / len(truth),
        "chance": 1 / len(product.words),
        "commonest": commonest / len(truth),
        "images": len(truth),
    }


def mean_figures(products: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Unweighted mean over products, each metric over the products that have it."""
    paths = [("image", m) for m in ("auroc", "ap", "f1_max")]
    paths += [("pixel", m) for m in ("auroc", "aupro", "ap", "f1_max")] + [
        ("types", "accuracy"),
        ("types", "chance"),
    ]
    result: dict[str, Any] = {"products": len(products)}
    for part, metric in paths:
        values = [p[part][metric] for p in products if p[part] and p[part].get(metric) is not None]
        result.setdefault(part, {})[metric] = float(np.mean(values)) if values else None
    multi: dict[str, dict[str, float | None]] = {}
    for kind in ("all", "seen", "novel"):
        for metric in ("auroc", "ap", "f1"):
            values = [
                p["multi_type"][kind][metric]
                for p in products
                if p["multi_type"] and p["multi_type"][kind][metric] is not None
            ]
            multi.setdefault(kind, {})[metric] = float(np.mean(values)) if values else None
    result["multi_type"] = multi
    return result
