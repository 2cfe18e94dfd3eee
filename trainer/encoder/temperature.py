"""Temperature scaling (Guo et al., arXiv 1706.04599): probabilities of a tuned pack that mean what they say.

Tuning sharpens similarities until nearly every cell is 0 or 1: ranks survive, thresholds find nothing to stand on. One
number, fitted on surfaces that nothing was trained on, takes that back; no rank within a tap changes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from dapo.encoder import Encoder
from dapo.pack import Pack
from dapo.tower import ImageTower
from trainer.encoder.features import CELLS, GRID, Pool
from trainer.encoder.generator import FAMILIES, VALIDATION_FAMILIES

_CLEAR_COVER = 100  # of 255: what is covered less is neither normal nor a defect here
_RANGE = (0.02, 1.0)
_BATCH = 32


def fit_temperature(pack: Pack, encoder: Encoder, pool: Pool) -> Pack:
    """The pack with the temperature that makes its anomaly maps likeliest on the pool's validation families.

    Raises:
        SystemExit: the pool has no picture of them.
    """
    names = list(FAMILIES)
    rows = np.nonzero(np.isin(pool.family, [names.index(name) for name in VALIDATION_FAMILIES]))[0]
    if not len(rows):
        raise SystemExit(
            f"the pool has no picture of {', '.join(VALIDATION_FAMILIES)}: draw it with --families validation"
        )
    similarities = torch.cat(_similarities(pack, encoder, pool, rows))
    cover = pool.cover[rows].reshape(len(rows), GRID, CELLS // GRID, GRID, CELLS // GRID).max((2, 4))
    cover = torch.from_numpy(cover.reshape(len(rows), -1))
    clear, defect = (cover == 0) | (cover > _CLEAR_COVER), cover > _CLEAR_COVER

    def surprise(temperature: float) -> float:
        anomaly = (similarities / temperature).softmax(-1)[..., 1].mean(1)[clear].clamp(1e-6, 1 - 1e-6)
        loss = torch.nn.functional.binary_cross_entropy(anomaly, defect[clear].float())
        return float(loss)

    found = minimize_scalar(surprise, bounds=_RANGE, method="bounded", options={"xatol": 1e-3})
    return replace(pack, temperature=round(float(found.x), 3))


@torch.inference_mode()
def _similarities(pack: Pack, encoder: Encoder, pool: Pool, rows: np.ndarray) -> list[Tensor]:
    """[B, taps, N, 2] to the normal and the generic vector, batch by batch."""
    tower = ImageTower(pack, encoder).eval()
    text = torch.from_numpy(np.stack([pack.tensors["text.normal"], pack.tensors["text.generic"]])).float()
    found = []
    for first in range(0, len(rows), _BATCH):
        features = torch.from_numpy(pool.features[rows[first : first + _BATCH]].astype(np.float32))
        _, *taps = tower.behind_stem(features)  # the pool holds what the stem says
        found.append(torch.stack(taps, 1) @ text.T)
    return found
