"""The training loop: seeded, resumable to the same bits on a CPU, on one device or several.

Started by torchrun, each process takes its share of every batch and the gradients are averaged; the first one writes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, distributed, nn

from dapo.errors import SettingsError
from pipeline.atomic import write_whole
from trainer.tuning.batches import Batches
from trainer.tuning.cache import Variant
from trainer.tuning.frozen import Frozen
from trainer.tuning.learner import Learner
from trainer.tuning.loss import Objective, Words, loss_of
from trainer.tuning.scope import Scope

_USUAL_EPOCHS, _LEAST_STEPS = 10, 110
_LEARNING_RATES = {"default": 6e-3, "paper": 1e-3}
_SLOWER = 1 / 6  # the linear has a hundred thousand weights that all see the same patches
_MAX_NORM = 5.0  # of the gradient: one odd batch must not throw the prompts away


@dataclass(frozen=True)
class Tuning:
    """How long and how.

    Attributes:
        scope: one of those that learn.
        epochs: a fixed number, never the best on anything; None: ten, or as many as make `_LEAST_STEPS` steps of few frames.
        batch: frames of a step, over all processes.
        accumulate: parts that a step's frames are worked through in, where memory is short.
        learning_rate: of Adam, reached after `warm_up` steps, then falling to 0 as a cosine; the patch layer's linear has a
            sixth of it. None: 6e-3, or 1e-3 for the objective of the paper.
        objective: see `trainer.tuning.loss`.
        precision: of the model's products on a GPU; a CPU always works in float32.
        variants: mirrorings that frames are drawn in.
        seed: of words, batches and mirrorings.
    """

    scope: Scope
    epochs: int | None = None
    batch: int = 64
    accumulate: int = 1
    learning_rate: float | None = None
    betas: tuple[float, float] = (0.5, 0.999)
    warm_up: int = 10
    schedule: Literal["cosine", "constant"] = "cosine"
    objective: Objective = "default"
    precision: Literal["float32", "bfloat16"] = "float32"
    variants: tuple[Variant, ...] = ("",)
    seed: int = 0


@dataclass
class History:
    """Losses by epoch; `validation` has the total only, and is empty where there is none."""

    image: list[float] = field(default_factory=list)
    local: list[float] = field(default_factory=list)
    types: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """Where a tuning is, for whoever shows it."""

    epoch: int
    step: int
    steps: int
    total: float


def tune(
    learner: Learner,
    frozen: Frozen,
    batches: Batches,
    words: Words,
    generic_words: Sequence[str],
    tuning: Tuning,
    *,
    validation: Batches | None = None,
    checkpoint: Path | None = None,
    told: str = "",
    tell: Callable[[Step], None] = lambda step: None,
) -> History:
    """Tune in place.

    Args:
        frozen: what the batches' cache was filled by.
        words: product -> its words.
        generic_words: one of them is drawn each step.
        checkpoint: written after each epoch, and gone on from where it is there; removed by the caller.
        told: names data and pack; a checkpoint of others is refused.
        tell: told of each step.

    Raises:
        SettingsError: the checkpoint is of another tuning.
        OutputError: it can't be written.
    """
    fast, slow = learner.choose(tuning.scope, pairs=tuning.objective == "default")
    parameters = [*fast, *slow]
    highest = tuning.learning_rate or _LEARNING_RATES[tuning.objective]
    groups = [{"params": fast, "highest": highest}, {"params": slow, "highest": highest * _SLOWER}]
    optimiser = torch.optim.Adam([group for group in groups if group["params"]], betas=tuning.betas)
    history = History()
    epochs = tuning.epochs or max(_USUAL_EPOCHS, -(-_LEAST_STEPS // batches.steps))
    steps = epochs * batches.steps
    saved = _Checkpoint(checkpoint, _identity(tuning, told)) if checkpoint else None
    first = saved.read(learner, optimiser, history) if saved else 0
    device = learner.device
    world, rank = processes()
    for epoch in range(first, epochs):
        learner.train()
        chosen = np.random.default_rng([tuning.seed, epoch, 1])  # another stream than that of the batches
        sums = np.zeros(4)
        for number, batch in enumerate(batches.epoch(epoch, rank, world)):
            step = epoch * batches.steps + number
            for group in optimiser.param_groups:
                group["lr"] = group["highest"] * _rate(step, steps, tuning)
            generic = generic_words[int(chosen.integers(len(generic_words)))]
            optimiser.zero_grad()
            parts = np.zeros(4)
            for rows in torch.arange(len(batch)).chunk(tuning.accumulate):
                part = batch.rows(rows).to(device)
                with _cast(device, tuning.precision):
                    features = frozen.features(learner.model, part.kept)
                    loss = loss_of(learner, features, part, words, generic, tuning.objective)
                share = batch.weight * len(part) / len(batch)
                torch.autograd.backward(loss.total * share)
                now = (loss.image, loss.local, loss.types, loss.total)
                parts += share * np.array([float(value.detach()) for value in now])
            _average(parameters, world)
            if tuning.objective == "default":
                nn.utils.clip_grad_norm_(parameters, _MAX_NORM)
            optimiser.step()
            sums += parts
            tell(Step(epoch, step + 1, steps, float(parts[3])))
        for values, value in zip(
            (history.image, history.local, history.types, history.total), sums, strict=True
        ):
            values.append(float(value / batches.steps))
        learner.eval()
        if validation is not None:
            history.validation.append(
                validation_loss(learner, frozen, validation, words, generic_words, tuning)
            )
        if saved and rank == 0:
            saved.write(learner, optimiser, history, epoch + 1)
    return history


@torch.no_grad()
def validation_loss(
    learner: Learner,
    frozen: Frozen,
    batches: Batches,
    words: Words,
    generic_words: Sequence[str],
    tuning: Tuning,
) -> float:
    """The loss over all examples, each once."""
    device, total, count = learner.device, 0.0, 0
    for batch in batches.all():
        part = batch.to(device)
        features = frozen.features(learner.model, part.kept)
        loss = loss_of(learner, features, part, words, generic_words[0], tuning.objective)
        total, count = total + float(loss.total) * len(batch), count + len(batch)
    return total / max(1, count)


def processes() -> tuple[int, int]:
    """(how many work together, which of them this is)."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    return 1, 0


def join_processes(device: str) -> str:
    """Join those that torchrun started, if it did; returns this one's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return f"cuda:{os.environ['LOCAL_RANK']}" if device.startswith("cuda") else device


def _average(parameters: Sequence[nn.Parameter], world: int) -> None:
    if world == 1:
        return
    for parameter in parameters:
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        distributed.all_reduce(gradient)
        parameter.grad = gradient / world


def _rate(step: int, steps: int, tuning: Tuning) -> float:
    if tuning.schedule == "constant":
        return 1.0
    return min(1.0, (step + 1) / max(1, tuning.warm_up)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _cast(device: torch.device, precision: str) -> Any:
    if device.type == "cuda" and precision == "bfloat16":
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


def _identity(tuning: Tuning, told: str) -> str:
    said = json.dumps({**asdict(tuning), "told": told}, sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


class _Checkpoint:
    """Parameters, Adam's moments and the history, in one safetensors file."""

    def __init__(self, path: Path, identity: str) -> None:
        self._path, self._identity = path, identity

    def read(self, learner: Learner, optimiser: torch.optim.Adam, history: History) -> int:
        """Take up what was saved; returns the number of epochs that are done.

        Raises:
            SettingsError: it is damaged, or of another tuning.
        """
        if not self._path.exists():
            return 0
        try:
            with safe_open(self._path, "pt") as file:
                note = json.loads((file.metadata() or {})["tuning"])
                names = file.keys()  # the open file itself can't be iterated
                saved = {name: file.get_tensor(name) for name in names}
            if note["identity"] != self._identity:
                raise SettingsError(
                    f"{self._path}: is of another tuning (data, pack or options differ). Give another --out, or remove it."
                )
            parameters = _named(learner)
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(saved[name])
                    if f"first.{name}" not in saved:
                        continue  # it had no gradient
                    optimiser.state[parameter] = {
                        "step": torch.tensor(float(note["steps"][name])),
                        "exp_avg": saved[f"first.{name}"].to(parameter.device),
                        "exp_avg_sq": saved[f"second.{name}"].to(parameter.device),
                    }
            for name in asdict(history):
                getattr(history, name).extend(note["history"][name])
            return int(note["epochs"])
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise SettingsError(f"{self._path}: can't be gone on from ({error}). Remove it.") from error

    def write(self, learner: Learner, optimiser: torch.optim.Adam, history: History, epochs: int) -> None:
        tensors: dict[str, Tensor] = {}
        steps: dict[str, float] = {}
        for name, parameter in _named(learner).items():
            tensors[name] = parameter.detach().cpu().contiguous()
            state = optimiser.state.get(parameter)
            if not state:
                continue
            steps[name] = float(state["step"])
            tensors[f"first.{name}"] = state["exp_avg"].cpu().contiguous()
            tensors[f"second.{name}"] = state["exp_avg_sq"].cpu().contiguous()
        note = {"identity": self._identity, "epochs": epochs, "steps": steps, "history": asdict(history)}
        with write_whole(self._path) as file:
            file.write(save(tensors, {"tuning": json.dumps(note)}))


def _named(learner: Learner) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in learner.named_parameters() if parameter.requires_grad}
