"""`clip_encoder` for Triton's Python backend: frames in, features in the joint space out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

# Read when torch is loaded: its threads wait for each other asleep. Where another process wants the same cores, threads
# that spin take thirty times as long (dapo-tiny on two busy cores: 2,000 ms a frame instead of 60).
os.environ.setdefault("GOMP_SPINCOUNT", "0")

from triton_models import runtime
from triton_models.contract import ENCODER
from triton_models.encode import Encode
from triton_models.settings import Settings


class TritonPythonModel:
    """See `triton_models.encode`."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load this version's pack and its encoder; an error keeps the version from becoming ready."""
        runtime.check_dlpack(ENCODER)
        self._encode = Encode.load(Settings.of(args))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request."""
        return runtime.answer(ENCODER, requests, self._encode)
