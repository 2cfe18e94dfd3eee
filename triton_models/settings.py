"""What a version of a model is told when it starts, and what its work may say of a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from dapo.errors import DapoError
from dapo.pack import Pack
from dapo.pack_io import read_pack
from triton_models.repository import PACK_FILE

Tensors = dict[str, torch.Tensor]  # of a batch, by name


class Unanswerable(DapoError):
    """One request asks for something that this version can't answer."""


@dataclass(frozen=True)
class Settings:
    """What Triton tells a model when it starts.

    Attributes:
        folder: of this version: model.py and the pack.
        device: as torch names it.
        parameters: of the model's configuration.
    """

    folder: Path
    device: str
    parameters: Mapping[str, str]

    @classmethod
    def of(cls, args: Mapping[str, str]) -> Settings:
        """From the arguments of `initialize`."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        gpu = args["model_instance_kind"] == "GPU"
        return cls(
            folder=Path(args["model_repository"]) / args["model_version"],
            device=f"cuda:{args['model_instance_device_id']}" if gpu else "cpu",
            parameters=parameters,
        )

    def pack(self) -> Pack:
        """This version's pack, verified.

        Raises:
            PackError: it is missing or damaged.
        """
        return read_pack(self.folder / PACK_FILE)
