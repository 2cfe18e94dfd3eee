"""A quick look at an encoder in training: held-back families and fresh draws, hand-written prompts. Nothing is chosen by it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from dapo.tiny_tokenizer import WordTokenizer
from trainer.encoder.features import CELLS, GRID, Pool
from trainer.encoder.forward import image_taps
from trainer.encoder.generator import FAMILIES, VALIDATION_FAMILIES
from trainer.encoder.sentences import class_words

_PHOTOS = ("a photo of a {}", "a cropped photo of the {}", "{}")
_GENERIC = ("defect", "damage", "anomaly")
_TOP_CELLS = 8


@torch.no_grad()
def _row(clip: CLIP, tokenizer: WordTokenizer, states: list[str]) -> Tensor:
    sentences = [photo.format(state) for photo in _PHOTOS for state in states]
    return F.normalize(clip.encode_text(tokenizer(sentences), normalize=True).mean(0), dim=-1)


@torch.no_grad()
def validate(clip: CLIP, tokenizer: WordTokenizer, pool: Pool, count: int = 2000) -> dict[str, float]:
    """AUROC of images (map and CLS) and cells, type accuracy, on the first `count` images of the pool; `_new`: families
    never trained on."""
    normal = _row(clip, tokenizer, ["flawless object", "perfect object", "object without defect"])
    generic = _row(clip, tokenizer, [f"object with {word}" for word in _GENERIC])
    typed = torch.stack(
        [_row(clip, tokenizer, [f"object with {word}" for word in words[:2]]) for words in class_words()]
    )
    scale = clip.logit_scale.exp()
    maps, images, type_cells, type_cls = [], [], [], []
    count = min(count, len(pool))
    for first in range(0, count, 20):
        features = torch.from_numpy(pool.features[first : min(count, first + 20)].astype(np.float32))
        mean, std = features.mean((2, 3)), features.std((2, 3))
        cls, taps = image_taps(clip, features, mean, std, (0, 0))
        pair = torch.stack([normal, generic])
        cells = torch.stack([F.softmax(scale * tap @ pair.T, -1)[..., 1] for tap in taps]).mean(0)
        maps.append(cells)
        images.append(F.softmax(scale * cls @ pair.T, -1)[:, 1])
        words = F.softmax(scale * torch.stack(taps).mean(0) @ typed.T, -1)
        top = cells.topk(_TOP_CELLS, 1)
        weighted = (
            words.gather(1, top.indices[..., None].expand(-1, -1, words.shape[-1])) * top.values[..., None]
        ).sum(1)
        type_cells.append(weighted / weighted.sum(1, keepdim=True))
        type_cls.append(F.softmax(scale * cls @ typed.T, -1))
    map_, image = torch.cat(maps).numpy(), torch.cat(images).numpy()
    types = torch.sqrt(torch.cat(type_cells) * torch.cat(type_cls)).numpy().argmax(1)
    return _figures(pool, count, map_, image, types)


def _figures(
    pool: Pool, count: int, maps: NDArray[np.float32], cls: NDArray[np.float32], types: NDArray[np.int64]
) -> dict[str, float]:
    cover, defects = pool.cover[:count], pool.types[:count]
    defective = np.asarray((cover > 0).reshape(count, -1).any(1))
    cell = (
        (cover > 30).reshape(count, GRID, CELLS // GRID, GRID, CELLS // GRID).any((2, 4)).reshape(count, -1)
    )
    top = np.sort(maps, 1)[:, -_TOP_CELLS:].mean(1)
    names = list(FAMILIES)
    new: NDArray[np.bool_] = np.isin(
        pool.family[:count], [names.index(family) for family in VALIDATION_FAMILIES]
    )
    truth = np.array(
        [
            np.bincount(d[c > 30], minlength=1).argmax() if (c > 30).any() else 0
            for d, c in zip(defects, cover, strict=True)
        ]
    )
    clear: NDArray[np.bool_] = np.asarray(truth > 0)
    figures = {
        "image_map": roc_auc_score(defective, top),
        "image_cls": roc_auc_score(defective, cls),
        "image_new": roc_auc_score(defective[new], top[new] + cls[new]),
        "pixel": roc_auc_score(cell.ravel(), maps.ravel()),
        "pixel_new": roc_auc_score(cell[new].ravel(), maps[new].ravel()),
        "types": (types[clear] + 1 == truth[clear]).mean(),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}
