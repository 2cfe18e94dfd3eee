"""The research code's checkpoint layout: read, write, load into a model and out of it again, bit for bit.

The layout is a dict of three state dicts and an epoch. Two namings of the three are known; files keep theirs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dapo.errors import CheckpointError
from dapo.model import DapoModel

PARTS = ("visual_prompt", "prompt_learner", "linear_adapter")
_NAMINGS = (PARTS, ("visual_prompt_state_dict", "prompt_learner_state_dict", "trainable_adapter_state_dict"))


@dataclass(frozen=True)
class Checkpoint:
    """A reference checkpoint.

    Attributes:
        tensors: all tensors, named `part.key` with the parts of `PARTS`, in the file's order.
        rest: everything else at the top level (`epoch`), as it was.
        parts: the file's own names of the three parts, in the order of `PARTS`.
        order: all top-level keys in the file's order.
    """

    tensors: dict[str, Tensor]
    rest: dict[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] = PARTS
    order: tuple[str, ...] = (*PARTS, "epoch")


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in the file is executed.

    Raises:
        CheckpointError: the file can't be read, or has another layout.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch.load raises unpickling, zip, runtime and OS errors without a common base
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise CheckpointError(
            f"{path}: can't be read as a checkpoint without running code in it: {reason}"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a dict of state dicts.")
    for names in _NAMINGS:
        if all(isinstance(content.get(name), Mapping) for name in names):
            break
    else:
        found = ", ".join(map(str, content)) or "nothing"
        raise CheckpointError(
            f"{path}: expected {', '.join(PARTS)} (or {', '.join(_NAMINGS[1])}), found {found}."
        )
    tensors = {}
    for part, name in zip(PARTS, names, strict=True):
        for key, value in content[name].items():
            if not isinstance(value, Tensor):
                raise CheckpointError(f"{path}: {name}.{key} is a {type(value).__name__}, not a tensor.")
            tensors[f"{part}.{key}"] = value
    rest = {key: value for key, value in content.items() if key not in names}
    return Checkpoint(tensors, rest, names, tuple(content))


def write_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint in the research code's layout, under its final name only once it is whole.

    This is torch's own file format, the one that the research code reads; nothing of this project reads it
    without `weights_only`.
    """
    content: dict[str, Any] = {}
    for name in checkpoint.order:
        if name in checkpoint.parts:
            prefix = f"{PARTS[checkpoint.parts.index(name)]}."
            content[name] = {
                key.removeprefix(prefix): value.detach().cpu().clone()
                for key, value in checkpoint.tensors.items()
                if key.startswith(prefix)
            }
        elif name in checkpoint.rest:
            content[name] = checkpoint.rest[name]
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise


def load_checkpoint(model: DapoModel, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's tensors into a model. `meta_net` has no part in the method and stays in the
    checkpoint.

    Raises:
        CheckpointError: a tensor is missing, is one too many or has another shape; nothing was copied then.
    """
    targets = reference_names(model)
    known = {name: value for name, value in checkpoint.tensors.items() if not _unused(name)}
    for name, target in targets.items():
        expected = list(target.shape)
        if name not in known:
            raise CheckpointError(f"{name}: expected shape {expected}, found no such tensor.")
        found = list(known[name].shape)
        if found != expected:
            raise CheckpointError(
                f"{name}: expected shape {expected} for {model.encoder.name}, found {found}. "
                f"The checkpoint was made for another encoder or other prompt sizes."
            )
    surplus = sorted(set(known) - set(targets))
    if surplus:
        raise CheckpointError(
            f"{surplus[0]}: expected no such tensor, found shape {list(known[surplus[0]].shape)}."
        )
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(known[name])


def export_checkpoint(model: DapoModel, like: Checkpoint | None = None, *, epoch: int = 0) -> Checkpoint:
    """A model's learned tensors as a reference checkpoint.

    Args:
        model: its V, W, T, P and adapters are copied.
        like: keeps this one's naming, order, epoch and unused tensors.
        epoch: where `like` is None.
    """
    tensors = {name: value.detach().cpu().clone() for name, value in reference_names(model).items()}
    if like is None:
        return Checkpoint(tensors, {"epoch": epoch})
    kept = {name: tensors.pop(name, value) for name, value in like.tensors.items()}
    return Checkpoint({**kept, **tensors}, dict(like.rest), like.parts, like.order)


def reference_names(model: DapoModel) -> dict[str, Tensor]:
    """A model's learned parameters by the reference's names."""
    prompts = model.prompts
    names: dict[str, Tensor] = {
        "visual_prompt.learnable_visual_tokens": prompts.visual,
        "prompt_learner.learnable_normal_tokens": prompts.normal,
        "prompt_learner.learnable_abnormal_tokens": prompts.abnormal,
    }
    for index, tokens in enumerate(prompts.text):
        names[f"prompt_learner.learnable_layer_tokens.{index}"] = tokens
    for index, layer in enumerate(model.adapters.layers):
        names[f"linear_adapter.fc.{index}.weight"] = layer.get_parameter("weight")
        names[f"linear_adapter.fc.{index}.bias"] = layer.get_parameter("bias")
    return names


def _unused(name: str) -> bool:
    return name.startswith("prompt_learner.meta_net.")
