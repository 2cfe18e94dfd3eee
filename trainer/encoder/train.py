"""Training of dapo-tiny on a pool of stem features.

    python -m trainer.encoder.train --pool POOL --validation VALIDATION --out dapo/weights/dapo-tiny.safetensors

The stem is frozen; trained are the linear after it, the vision transformer and the text tower. First on crops of 8 x 8
patches (cheap, and any place can hold anything), then on whole images. Loss, per image:

    dense cross-entropy of patches against one sentence per defect class, at each of the four taps (a cell is a defect if
    more than 12 % of it is covered, thinner rims are ignored, weight 2)  + 0.5 dice
    + 0.5 generic word against normal (detection never needs a type)
    + prototypes: class vectors that anchor both towers while neither means anything yet; dropped at export
    + image-level cross-entropy of CLS  + 0.2 multi-positive CLIP loss of CLS against captions

The schedule is fixed and its last state is exported: nothing is chosen on validation, which is only watched.
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
from numpy.typing import NDArray
from open_clip.model import CLIP
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F

from dapo.tiny import JOINT_WIDTH, STEM_CHANNELS, StemPatches, build_tiny
from dapo.tiny_tokenizer import WordTokenizer
from trainer.encoder.features import GRID, Pool, open_pool
from trainer.encoder.forward import image_taps
from trainer.encoder.generator import DEFECT_NAMES, FAMILIES
from trainer.encoder.sentences import Writer, phrases
from trainer.encoder.stem import pretrained_stem
from trainer.encoder.validate import validate

CLASSES = len(DEFECT_NAMES)
_DEFECT_COVER = 0.12  # a cell with less of a defect is neither: its loss is ignored
_PROTOTYPE_SCALE = 12.0
_MAX_SCALE = 60.0


@dataclass(frozen=True)
class Schedule:
    """How long and how: everything that decides the result besides pool and seed."""

    crop_steps: int = 3000
    full_steps: int = 1000
    crop_batch: int = 32
    full_batch: int = 12
    crop: int = 8
    learning_rate: float = 8e-4
    weight_decay: float = 0.05
    warm_up: int = 150
    drop_general: float = 0.25


@dataclass(frozen=True)
class Batch:
    """One training batch: crops of stem features with their labels.

    Attributes:
        features: float32 [B, 272, n, n]; `mean`, `std`: float32 [B, 272] of the whole image.
        target: int64 [B, 2n, 2n], 0 normal, 1 + class.
        weight: float32 [B, 2n, 2n], 0 where a rim is ignored.
        present: float32 [B, C], classes clearly inside the crop.
        touched: bool [B], any defect pixel inside the crop.
        family: int [B].
        offset: position of the crop on the position embedding.
        groups: int64 [B], which of the two sentence banks describes the image.
    """

    features: Tensor
    mean: Tensor
    std: Tensor
    target: Tensor
    weight: Tensor
    present: Tensor
    touched: Tensor
    family: NDArray[np.uint8]
    offset: tuple[int, int]
    groups: Tensor
    bank_family: int


class Sampler:
    """Draws batches: a third from one family, the rest from all; crops prefer places with defects."""

    def __init__(
        self, pool: Pool, statistics: tuple[NDArray[np.float32], NDArray[np.float32]], seed: int
    ) -> None:
        self.pool = pool
        self.mean, self.std = statistics
        self.rng = np.random.default_rng([seed, 11])
        self.by_family = {int(f): np.nonzero(pool.family == f)[0] for f in np.unique(pool.family)}

    def _corner(self, row: int, size: int) -> tuple[int, int]:
        rng, top = self.rng, GRID + 1 - size
        if size == GRID:
            return 0, 0
        y, x = (int(v) for v in rng.integers(0, top, 2))
        ys, xs = np.nonzero(self.pool.cover[row] > _DEFECT_COVER * 255)
        if len(ys) and rng.random() < 0.75:
            at = rng.integers(len(ys))
            y = int(np.clip(ys[at] // 2 - rng.integers(0, size), 0, top - 1))
            x = int(np.clip(xs[at] // 2 - rng.integers(0, size), 0, top - 1))
        return y, x

    def draw(self, size: int, count: int) -> Batch:
        rng, pool = self.rng, self.pool
        family = int(rng.choice(list(self.by_family)))
        alike = count // 3
        rows = np.concatenate(
            [rng.choice(self.by_family[family], alike), rng.integers(0, len(pool), count - alike)]
        )
        features = np.empty((count, STEM_CHANNELS, size, size), np.float32)
        types = np.empty((count, 2 * size, 2 * size), np.int64)
        cover = np.empty((count, 2 * size, 2 * size), np.float32)
        for i, row in enumerate(rows):
            y, x = self._corner(int(row), size)
            features[i] = pool.features[row][:, y : y + size, x : x + size]
            cells = np.s_[2 * y : 2 * (y + size), 2 * x : 2 * (x + size)]
            types[i], cover[i] = pool.types[row][cells], pool.cover[row][cells] / np.float32(255)
        defect, clean = cover > _DEFECT_COVER, cover == 0
        present = np.stack(
            [
                np.bincount(t.ravel(), c.ravel(), CLASSES + 1)[1:] > 0.2
                for t, c in zip(types, cover, strict=True)
            ]
        )
        top = GRID + 1 - size
        return Batch(
            torch.from_numpy(features),
            torch.from_numpy(self.mean[rows]),
            torch.from_numpy(self.std[rows]),
            torch.from_numpy(np.where(defect, types, 0)),
            torch.from_numpy(np.where(defect, 2.0, np.where(clean, 1.0, 0.0)).astype(np.float32)),
            torch.from_numpy(present.astype(np.float32)),
            torch.from_numpy((cover > 0).any((1, 2))),
            pool.family[rows],
            (int(rng.integers(0, top)), int(rng.integers(0, top))),
            torch.from_numpy(np.repeat([0, 1], [alike, count - alike])),
            family,
        )


def pool_statistics(
    pool: Pool, seed: int
) -> tuple[Tensor, Tensor, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Channel mean and spread of the pool (from 1,000 images), and of each image: float32 [N, 272] each."""
    mean = np.empty((len(pool), STEM_CHANNELS), np.float32)
    std = np.empty_like(mean)
    for first in range(0, len(pool), 256):
        part = pool.features[first : first + 256].astype(np.float32)
        mean[first : first + 256], std[first : first + 256] = part.mean((2, 3)), part.std((2, 3), ddof=1)
    rows = np.sort(np.random.default_rng([seed, 3]).choice(len(pool), min(len(pool), 1000), replace=False))
    some = pool.features[rows].astype(np.float32)
    general = torch.from_numpy(some.mean((0, 2, 3))), torch.from_numpy(some.std((0, 2, 3)) + 1e-4)
    return *general, (mean, std)


def sinusoid_positions() -> Tensor:
    """[256, width] two-dimensional sinusoids, a start that already knows neighbours from strangers."""
    quarter = JOINT_WIDTH // 4
    omega = 1.0 / (100 ** (torch.arange(quarter) / quarter))
    ys, xs = torch.meshgrid(torch.arange(GRID).float(), torch.arange(GRID).float(), indexing="ij")
    parts = [f(t.reshape(-1, 1) * omega) for t in (ys, xs) for f in (torch.sin, torch.cos)]
    return torch.cat(parts, 1)


class EncoderLoss(nn.Module):
    """The training loss; owns the class prototypes."""

    def __init__(self) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(
            torch.linalg.qr(torch.randn(JOINT_WIDTH, CLASSES + 1))[0].T.contiguous()
        )

    def forward(
        self,
        batch: Batch,
        cls: Tensor,
        taps: list[Tensor],
        banks: Tensor,
        captions: Tensor,
        same: Tensor,
        scale: Tensor,
        anchor: float,
    ) -> Tensor:
        """`banks` [2, C+2, D]; `captions` [B, D]; `same` [B, B] rows sum to 1; `anchor` weight of the prototypes."""
        bank = banks[batch.groups]
        prototypes = F.normalize(self.prototypes, dim=-1)
        text_rows = banks[:, : CLASSES + 1]
        text = F.cross_entropy(
            _PROTOTYPE_SCALE * (text_rows @ prototypes.T).flatten(0, 1), torch.arange(CLASSES + 1).repeat(2)
        )
        dense = anchored = torch.zeros(())
        states = torch.zeros(())
        defect = (batch.target > 0).float()
        for tap in taps:
            logits = self._cells(scale * tap @ bank.transpose(1, 2))
            dense = dense + self._mean(
                F.cross_entropy(logits[:, : CLASSES + 1], batch.target, reduction="none"), batch
            )
            generic = logits[:, CLASSES + 1] - logits[:, 0]
            dense = dense + 0.5 * self._mean(
                F.binary_cross_entropy_with_logits(generic, defect, reduction="none"), batch
            )
            anchors = self._cells(_PROTOTYPE_SCALE * tap @ prototypes.T)
            anchored = anchored + self._mean(F.cross_entropy(anchors, batch.target, reduction="none"), batch)
            states = states + logits[:, : CLASSES + 1].softmax(1)
        anomaly = 1 - (states / len(taps))[:, 0]
        known = (batch.weight > 0).float()
        overlap = (anomaly * defect).sum((1, 2))
        dice = 1 - (2 * overlap + 1) / ((anomaly * known).sum((1, 2)) + defect.sum((1, 2)) + 1)
        has = defect.sum((1, 2)) > 0
        dice_mean = dice[has].mean() if bool(has.any()) else torch.zeros(())
        image = self._image(batch, scale * (cls[:, None] * bank).sum(-1))
        pairs = scale * cls @ captions.T
        clip = -0.5 * (
            (F.log_softmax(pairs, 1) * same).sum(1).mean() + (F.log_softmax(pairs.T, 1) * same).sum(1).mean()
        )
        taps_count = len(taps)
        return (
            0.5 * text
            + dense / taps_count
            + 0.5 * dice_mean
            + anchor * anchored / taps_count
            + 0.5 * image
            + 0.2 * clip
        )

    @staticmethod
    def _cells(logits: Tensor) -> Tensor:
        """[B, n*n, K] -> [B, K, 2n, 2n], the resolution of the labels."""
        side = math.isqrt(logits.shape[1])
        grid = logits.transpose(1, 2).reshape(len(logits), -1, side, side)
        return F.interpolate(grid, (2 * side, 2 * side), mode="bilinear")

    @staticmethod
    def _mean(loss: Tensor, batch: Batch) -> Tensor:
        return (loss * batch.weight).sum() / batch.weight.sum()

    @staticmethod
    def _image(batch: Batch, logits: Tensor) -> Tensor:
        """Image-level loss; a crop with only a sliver of a defect is neither normal nor defective."""
        usable = (batch.present.sum(1) > 0) | ~batch.touched
        if not bool(usable.any()):
            return torch.zeros(())
        target = torch.cat([(~batch.touched).float()[:, None], batch.present], 1)[usable]
        target = target / target.sum(1, keepdim=True)
        logits = logits[usable]
        typed = -(F.log_softmax(logits[:, : CLASSES + 1], 1) * target).sum(1).mean()
        generic = logits[:, CLASSES + 1] - logits[:, 0]
        return typed + 0.5 * F.binary_cross_entropy_with_logits(generic, 1 - target[:, 0])


def same_caption(batch: Batch) -> Tensor:
    """[B, B]: pairs of images whose captions fit each other (same family, same defects), rows sum to 1."""
    keys = [
        (int(family), tuple(np.nonzero(row.numpy())[0]))
        for family, row in zip(batch.family, batch.present, strict=True)
    ]
    same = torch.tensor([[float(a == b) for b in keys] for a in keys])
    return same / same.sum(1, keepdim=True)


def train(
    pool: Pool, validation: Pool | None, schedule: Schedule, seed: int
) -> tuple[CLIP, WordTokenizer, list[dict[str, float]]]:
    """Train from scratch; the same pool, schedule, seed and number of threads give the same bytes."""
    torch.manual_seed(seed)
    tokenizer = WordTokenizer(phrases())
    clip: Any = build_tiny(tokenizer.vocab_size)
    loss = EncoderLoss()
    general_mean, general_std, statistics = pool_statistics(pool, seed)
    patches: StemPatches = clip.visual.conv1
    patches.stem.load_state_dict(pretrained_stem().state_dict())
    patches.stem.requires_grad_(False)
    patches.projection.pool_mean.copy_(general_mean)
    patches.projection.pool_std.copy_(general_std)
    with torch.no_grad():
        clip.logit_scale.fill_(math.log(12.0))
        clip.visual.positional_embedding.zero_()
        clip.visual.positional_embedding[1:] = 0.1 * sinusoid_positions()
        nn.init.normal_(clip.token_embedding.weight, std=0.05)
    named = [(n, p) for m in (clip, loss) for n, p in m.named_parameters() if p.requires_grad]
    decayed = [p for n, p in named if p.dim() >= 2 and "embedding" not in n]
    plain = [p for n, p in named if p.dim() < 2 or "embedding" in n]
    groups = [
        {"params": decayed, "weight_decay": schedule.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=(0.9, 0.98), fused=True)
    sampler, writer = Sampler(pool, statistics, seed), Writer(np.random.default_rng([seed, 12]))
    names, total, curve = list(FAMILIES), schedule.crop_steps + schedule.full_steps, []
    columns = (
        TextColumn("dapo-tiny {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    clip.train()
    running = math.nan
    with Progress(*columns) as progress:
        task = progress.add_task("", total=total)
        for step in range(total):
            done = step / total
            rate = min(1.0, (step + 1) / schedule.warm_up) * (0.49 * (1 + math.cos(math.pi * done)) + 0.02)
            for group in optimiser.param_groups:
                group["lr"] = schedule.learning_rate * rate
            whole = step >= schedule.crop_steps
            size, count = (GRID, schedule.full_batch) if whole else (schedule.crop, schedule.crop_batch)
            batch = sampler.draw(size, count)
            sentences = [*writer.bank(writer.noun(names[batch.bank_family])), *writer.bank(writer.noun(None))]
            for family, row in zip(batch.family, batch.present, strict=True):
                sentences.append(writer.caption(names[family], [int(c) for c in np.nonzero(row.numpy())[0]]))
            text = clip.encode_text(tokenizer(sentences), normalize=True)
            banks = text[: 2 * (CLASSES + 2)].view(2, CLASSES + 2, -1)
            keep = (torch.rand(count) > schedule.drop_general).float()
            cls, taps = image_taps(clip, batch.features, batch.mean, batch.std, batch.offset, keep)
            scale = clip.logit_scale.exp().clamp(max=_MAX_SCALE)
            value = loss(
                batch, cls, taps, banks, text[2 * (CLASSES + 2) :], same_caption(batch), scale, 1 - 0.8 * done
            )
            optimiser.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
            optimiser.step()
            now = float(value.detach())
            running = now if math.isnan(running) else 0.98 * running + 0.02 * now
            progress.update(task, advance=1, description=f"loss {running:.3f}")
            if validation is not None and ((step + 1) % 1000 == 0 or step + 1 == total):
                clip.eval()
                row = {"step": step + 1, "loss": round(running, 4), **validate(clip, tokenizer, validation)}
                clip.train()
                curve.append(row)
                progress.console.print(json.dumps(row))
    return clip.eval(), tokenizer, curve


def main() -> None:
    from trainer.encoder.export import export

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--validation", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--crop-steps", type=int, default=Schedule.crop_steps)
    parser.add_argument("--full-steps", type=int, default=Schedule.full_steps)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    schedule = Schedule(crop_steps=options.crop_steps, full_steps=options.full_steps)
    pool = open_pool(options.pool)
    started = time.monotonic()
    validation = open_pool(options.validation) if options.validation else None
    clip, tokenizer, curve = train(pool, validation, schedule, options.seed)
    seconds = round(time.monotonic() - started, 1)
    provenance = {
        "pool": json.loads((options.pool / "pool.json").read_text()),
        "schedule": asdict(schedule),
        "seed": options.seed,
        "seconds": seconds,
        "validation": curve,
    }
    digest = export(clip, tokenizer, provenance, options.out)
    print(
        json.dumps(
            {"out": str(options.out), "sha256": digest, "seconds": seconds, **(curve[-1] if curve else {})}
        )
    )


if __name__ == "__main__":
    main()
