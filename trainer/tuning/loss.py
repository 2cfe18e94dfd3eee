"""What is minimised.

`paper`: the objective of method section 2 over all words of the data.

`default`: what `default` scoring does with the features, directly. It detects by a product's pair of directions, normal and
defect, and names by the product's own words; so per tap a cross-entropy of each patch for the pair, defect and good cells
balanced (a defect covers few), and one of the most anomalous patches for the frame; of CLS the same for the frame; and for the
words a cross-entropy of defect patches and of CLS. On photographs it found more than `paper`, from the same frames
(docs/retune.md).

Weak labels (a defect that nobody drew) have no say in where; a defect whose type is none of the words none in which, and by
`paper`, which has no word for it, none in where either. Products of one state only have no say in whether (`Learner.both`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from dapo.head import pair
from dapo.model import ImageFeatures
from dapo.objective import LOCAL_WEIGHT, local_losses
from trainer.tuning.batches import Batch
from trainer.tuning.learner import Learner

Objective = Literal["default", "paper"]
Words = Mapping[str, Sequence[str]]
_COVERED = 0.15  # of a patch, from which it counts as defect
_TOP = 0.015  # share of the patches that speak for the frame: four of dapo-tiny's 256
_HALF = 0.5  # what the frame's patches and the words' losses count, beside whether and where
_RAREST = 0.02  # defect patches are not thought rarer than this: few would count too much
_MOST = 8.0  # no patch counts more


@dataclass(frozen=True)
class Loss:
    """Parts of a batch's loss as they count, each a scalar.

    Attributes:
        image: is it defective.
        local: where.
        types: which defect.
    """

    image: Tensor
    local: Tensor
    types: Tensor

    @property
    def total(self) -> Tensor:
        return self.image + self.local + self.types


def loss_of(
    learner: Learner, features: ImageFeatures, batch: Batch, words: Words, generic: str, objective: Objective
) -> Loss:
    """The loss of a batch.

    Args:
        features: of the batch under the learner's model.
        words: product -> its words, in the order of the batch's states.
        generic: the generic word of this step.
    """
    if objective == "paper":
        return _paper(learner, features, batch, words)
    here = dict.fromkeys(batch.products)
    vocabulary = list(dict.fromkeys(word for product in here for word in words.get(product, ())))
    text = learner.model.text_matrix([*vocabulary, generic], learner.readout)
    rows = {word: row for row, word in enumerate(vocabulary, 1)}
    tau = learner.model.temperature
    pairs = learner.pairs(text[0], text[-1], batch.products)
    direction = (pairs[:, 1] - pairs[:, 0]) / tau
    defective, taps = batch.defective.float(), torch.stack(features.taps, 1)
    logits = (taps * direction[:, None, None]).sum(-1)  # [B, taps, N]
    top = logits.topk(max(1, round(_TOP * logits.shape[-1])), -1).values.mean(-1)
    image = logits.new_zeros(())
    told = torch.tensor([product in learner.both for product in batch.products], device=taps.device)
    if bool(told.any()):
        truth = defective[told]
        whole = F.binary_cross_entropy_with_logits((features.cls[told] * direction[told]).sum(-1), truth)
        patches = F.binary_cross_entropy_with_logits(top[told], truth[:, None].expand(-1, top.shape[1]))
        image = told.float().mean() * (whole + _HALF * patches)
    covered, kinds = in_patches(batch.states, logits.shape[-1])
    local = _where(logits, covered, batch.drawn)
    types = image.new_zeros(())
    for product in here:
        own = [rows[word] for word in words.get(product, ())]
        if len(own) > 1:
            chosen = torch.tensor(
                [row for row, name in enumerate(batch.products) if name == product], device=taps.device
            )
            its = text[own] / tau
            share = len(chosen) / len(batch)
            types = types + share * _HALF * _which(features, taps, batch, covered, kinds, chosen, its)
    return Loss(image, local, types)


def in_patches(states: Tensor, patches: int) -> tuple[Tensor, Tensor]:
    """States [B, L, L] -> which patches are defect, bool [B, N], and the highest state in each, [B, N].

    A defect too small to cover its share of any patch keeps the one that it covers most.
    """
    grid = round(patches**0.5)
    step = states.shape[-1] // grid
    if not step:  # nobody drew anything: all states are nothing
        empty = torch.zeros(len(states), patches, device=states.device)
        return empty.bool(), empty.long()
    cover = F.avg_pool2d((states != 0).float()[:, None], step)[:, 0].flatten(1)
    kinds = F.max_pool2d(states.float()[:, None], step)[:, 0].flatten(1).long()
    most = cover.amax(1, keepdim=True)
    return (cover > _COVERED) | ((cover == most) & (most > 0)), kinds


def _where(logits: Tensor, covered: Tensor, drawn: Tensor) -> Tensor:
    """Balanced cross-entropy of every patch of the frames that are drawn, mean over taps."""
    if not bool(drawn.any()):
        return logits.new_zeros(())
    truth = covered[drawn].float()[:, None].expand(-1, logits.shape[1], -1)
    share = truth.mean()
    weight = torch.where(truth > 0, 0.5 / share.clamp(min=_RAREST), 0.5 / (1 - share).clamp(min=_RAREST))
    return F.binary_cross_entropy_with_logits(logits[drawn], truth, weight.clamp(max=_MOST))


def _which(
    features: ImageFeatures,
    taps: Tensor,
    batch: Batch,
    covered: Tensor,
    kinds: Tensor,
    chosen: Tensor,
    words: Tensor,
) -> Tensor:
    """Cross-entropy over a product's words of its defect patches and of CLS.

    Args:
        chosen: the product's frames.
        words: its rows of text over the temperature, [K, D].
    """
    found = taps.new_zeros(())
    patches = covered[chosen] & (kinds[chosen] > 0)
    if bool(patches.any()):
        each = (taps[chosen] @ words.T).transpose(1, 2)[patches]  # [cells, taps, K]
        truth = (kinds[chosen][patches] - 1)[:, None].expand(-1, each.shape[1])
        found = found + F.cross_entropy(each.flatten(0, 1), truth.flatten())
    known = chosen[batch.word[chosen] >= 0]
    if len(known):
        found = found + F.cross_entropy(features.cls[known] @ words.T, batch.word[known])
    return found


def _paper(learner: Learner, features: ImageFeatures, batch: Batch, words: Words) -> Loss:
    model = learner.model
    vocabulary = list(dict.fromkeys(word for own in words.values() for word in own))
    rows = {word: row for row, word in enumerate(vocabulary, 1)}
    text = model.text_matrix(vocabulary, learner.readout)
    states = torch.stack(
        [
            _renamed(state, [0, *(rows[word] for word in words.get(product, ()))])
            for state, product in zip(batch.states, batch.products, strict=True)
        ]
    )
    drawn = batch.drawn & (states >= 0).flatten(1).all(1)
    image = F.cross_entropy(features.cls @ pair(text).T / model.temperature, batch.defective.long())
    nothing = image.new_zeros(())
    if not bool(drawn.any()):
        return Loss(image, nothing, nothing)
    parts = local_losses([tap[drawn] for tap in features.taps], text, states[drawn], model.temperature)
    local = torch.stack([part.sum() for part in parts]).sum()
    return Loss(image, LOCAL_WEIGHT * local * drawn.float().mean(), nothing)


def _renamed(states: Tensor, rows: Sequence[int]) -> Tensor:
    """A product's own states -> rows of the text matrix; `UNNAMED` stays."""
    table = torch.tensor([*rows, -1], device=states.device)  # -1 indexes the last: itself
    return table[states]
