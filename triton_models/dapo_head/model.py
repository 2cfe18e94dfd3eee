"""`dapo_head` for Triton's Python backend: features and product numbers in, scores and maps out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from triton_models import runtime
from triton_models.contract import HEAD
from triton_models.predict import Predict
from triton_models.settings import Settings


class TritonPythonModel:
    """See `triton_models.predict`."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load this version's pack; an error keeps the version from becoming ready."""
        runtime.check_dlpack(HEAD)
        self._predict = Predict.load(Settings.of(args))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request."""
        return runtime.answer(HEAD, requests, self._predict)
