"""What both models share inside Triton's Python backend: tensors in and out, the self-check.

Tensors travel by DLPack only. The backend's stub was built against numpy 1: with numpy 2 its `as_numpy()` gives wrong
values and its numpy outputs arrive empty, both without any error. For the same reason nothing is ever a string (BYTES
have no DLPack).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from torch.utils.dlpack import from_dlpack

from dapo.errors import DapoError
from triton_models.contract import Model, Tensor
from triton_models.settings import Tensors, Unanswerable

_TORCH = {"UINT8": torch.uint8, "INT64": torch.int64, "FP16": torch.float16, "FP32": torch.float32}
_KNOWN = 6  # values of the self-check: enough to see a wrong size, offset or order


class DlpackBroken(DapoError):
    """Tensors change on their way through Triton's Python stub: nothing it answers can be trusted."""


def check_dlpack(model: Model) -> None:
    """Send known values of every type through the stub and back.

    Raises:
        DlpackBroken: other values came back; this keeps the model from being loaded.
    """
    for tensor in (*model.inputs, *model.outputs):
        known = torch.arange(_KNOWN).reshape(2, -1).to(_TORCH[tensor.dtype])
        found = from_dlpack(pb_utils.Tensor.from_dlpack(tensor.name, known).to_dlpack())
        if found.dtype != known.dtype or found.shape != known.shape or not torch.equal(found, known):
            raise DlpackBroken(
                f"{model.name}: {tensor.dtype} {known.tolist()} came back from Triton's Python stub as {found.dtype} "
                f"{found.tolist()}. The stub does not fit this Python or torch: take the stub of this Python's version."
            )


def answer(model: Model, requests: Sequence[Any], run: Callable[[Tensors], Tensors]) -> list[Any]:
    """Answer requests together; where one of them is refused, each on its own, so that the others are answered.

    Args:
        run: inputs of a batch to its outputs, by name; may raise Unanswerable.
    """
    inputs = [_inputs(model, request) for request in requests]
    try:
        outputs = run(
            {tensor.name: torch.cat([one[tensor.name] for one in inputs]) for tensor in model.inputs}
        )
    except Unanswerable as error:
        if len(requests) == 1:
            refused = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return [pb_utils.InferenceResponse(output_tensors=[], error=refused)]
        return [response for request in requests for response in answer(model, [request], run)]
    counts = [len(one[model.inputs[0].name]) for one in inputs]
    split = {tensor.name: torch.split(outputs[tensor.name], counts) for tensor in model.outputs}
    return [
        pb_utils.InferenceResponse([_output(tensor, split[tensor.name][at]) for tensor in model.outputs])
        for at in range(len(requests))
    ]


def _inputs(model: Model, request: Any) -> Tensors:
    found = {}
    for tensor in model.inputs:
        given = pb_utils.get_input_tensor_by_name(request, tensor.name)
        found[tensor.name] = from_dlpack(given.to_dlpack())
    return found


def _output(tensor: Tensor, values: torch.Tensor) -> Any:
    # The stub takes tensors in C order only.
    return pb_utils.Tensor.from_dlpack(tensor.name, values.to(_TORCH[tensor.dtype]).contiguous())
