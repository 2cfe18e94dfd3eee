"""The text tower: learned tokens in place of the placeholders, deep tokens mixed in block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dapo.encoder import text_tower

Readout = Literal["eot", "reference"]


def encode_prompts(
    clip: nn.Module,
    ids: Tensor,
    context: Tensor,
    deep: Sequence[Tensor] = (),
    alpha: float = 0.01,
    readout: Readout = "eot",
) -> Tensor:
    """Encode every sentence with every one of its E learned contexts.

    No mask at all: every position attends to every other, the padding after the end of text included. Deep
    tokens sit after the start token and get no position embedding; with N of them they are replaced in blocks
    0..N-1, stay untouched through block N and leave the sequence after it. Where there is no block N they
    never leave, and every position after them lies `n` further: the `reference` read-out ignores that, as the
    research code does.

    Args:
        clip: open_clip model.
        ids: int64 [R, L], one sentence per row, placeholders at positions 1..l.
        context: [R, E, l, width], takes the placeholders' place.
        deep: N tensors [n, width], one per block from the first.
        alpha: share of the output of the block before in the deep tokens.
        readout: "eot", the true end of text, or "reference".

    Returns:
        [R, E, D] in the joint space, not normalised.
    """
    tower = text_tower(clip)
    rows, prompts, length, _ = context.shape
    embedded = tower.token_embedding(ids)[:, None].expand(-1, prompts, -1, -1)
    hidden = torch.cat([embedded[:, :, :1], context, embedded[:, :, 1 + length :]], 2).flatten(0, 1)
    hidden = hidden + tower.positional_embedding[: ids.shape[1]]
    inserted = 0
    for index, block in enumerate(tower.transformer.resblocks):
        if index < len(deep):
            own = deep[index].expand(len(hidden), -1, -1)
            mixed = own if index == 0 else alpha * hidden[:, 1 : 1 + inserted] + (1 - alpha) * own
            hidden = torch.cat([hidden[:, :1], mixed, hidden[:, 1 + inserted :]], 1)
            inserted = own.shape[1]
        hidden = block(hidden)
        if index == len(deep) and inserted:
            hidden = torch.cat([hidden[:, :1], hidden[:, 1 + inserted :]], 1)
            inserted = 0
    at = end_of_text(clip, ids).repeat_interleave(prompts) + (inserted if readout == "eot" else 0)
    read = tower.ln_final(hidden[torch.arange(len(hidden), device=hidden.device), at])
    return _project(tower, read).reshape(rows, prompts, -1)


def end_of_text(clip: nn.Module, ids: Tensor) -> Tensor:
    """Position of the end-of-text token in each row of `ids` [R, L], as the encoder itself finds it."""
    tower = text_tower(clip)
    kind = getattr(tower, "pool_type", None) or getattr(tower, "text_pool_type", "argmax")
    if kind == "eos":
        end = getattr(tower, "eos_id", None) or tower.text_eos_id
        found: Tensor = ids == end
        return found.int().argmax(-1)
    if kind == "last":
        return torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)
    return ids.argmax(-1)  # CLIP's end token has the highest id of all


def _project(tower: Any, read: Tensor) -> Tensor:
    projection = tower.text_projection
    if projection is None:
        return read
    out: Tensor = projection(read) if isinstance(projection, nn.Linear) else read @ projection
    return out
