"""The model while it is tuned, with each product's own pair of directions beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dapo.model import DapoModel
from dapo.pack import PAIR, Pack
from trainer.tuning.scope import Scope


class Learner(nn.Module):
    """What a tuning changes.

    A product's pair (normal, defect) is that of the words plus an offset that starts where the pack left it, at zero for a new
    product. Products differ in what is normal on them; one pair for all has to be right about none of them exactly.

    Args:
        model: of the pack.
        pack: whose pairs are gone on from.
        products: that have a pair of their own.
        both: products that have good and defective frames. Of all others nothing is learned of frames as a whole: who sees
            one state only learns that all is so. None: all.
    """

    def __init__(
        self, model: DapoModel, pack: Pack, products: Sequence[str], both: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.both = frozenset(products if both is None else both)
        self.readout = pack.readout
        self.products = tuple(products)
        common = np.stack([pack.tensors["text.normal"], pack.tensors["text.generic"]])
        offsets = [pack.tensors.get(PAIR + name, common) - common for name in products]
        width = pack.encoder.joint_width
        start = np.stack(offsets) if offsets else np.zeros((0, 2, width), np.float32)
        self.offsets = nn.Parameter(torch.from_numpy(start.astype(np.float32)).to(self.device))

    @property
    def device(self) -> torch.device:
        return self.model.prompts.normal.device

    def train(self, mode: bool = True) -> Learner:
        super().train(mode)
        self.model.train(mode)
        return self

    def choose(self, scope: Scope, *, pairs: bool) -> list[list[nn.Parameter]]:
        """Give gradients to what a scope learns, and to nothing else; what has a slower rate is the second list.

        Args:
            pairs: whether products have pairs of their own.
        """
        if scope is Scope.STEM:
            self.model.tune_patches()
        prompts = self.model.prompts
        fast = [prompts.normal, prompts.abnormal, *prompts.text]
        slow: list[nn.Parameter] = []
        if scope is Scope.FULL:
            fast = self.model.trainable()
            if self.model.patch is not None:
                slow = list(self.model.patch.parameters())
        elif scope is Scope.STEM:
            assert self.model.patch is not None
            fast += self.model.adapters.parameters()
            slow = list(self.model.patch.parameters())
        if pairs and len(self.products):
            fast = [*fast, self.offsets]
        slower = {id(parameter) for parameter in slow}
        fast = [parameter for parameter in fast if id(parameter) not in slower]
        chosen = slower | {id(parameter) for parameter in fast}
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) in chosen)
        return [fast, slow]

    def pairs(self, normal: Tensor, generic: Tensor, products: Sequence[str]) -> Tensor:
        """Each frame's pair, [B, 2, D], L2-normalised.

        Args:
            normal, generic: rows of the text matrix, [D].
            products: name of each frame's product; one that is not learned has the common pair.
        """
        common = torch.stack([normal, generic])
        place = {name: row for row, name in enumerate(self.products)}
        offsets = [
            self.offsets[place[name]] if name in place else torch.zeros_like(common) for name in products
        ]
        return F.normalize(common + torch.stack(offsets), dim=-1)

    @torch.no_grad()
    def learned_pairs(self, pack: Pack) -> dict[str, NDArray[np.float32]]:
        """The products' pairs as a pack carries them, on top of its own words."""
        common = torch.from_numpy(np.stack([pack.tensors["text.normal"], pack.tensors["text.generic"]]))
        found = F.normalize(common + self.offsets.cpu(), dim=-1).numpy().astype(np.float32)
        return {PAIR + name: np.ascontiguousarray(found[row]) for row, name in enumerate(self.products)}
