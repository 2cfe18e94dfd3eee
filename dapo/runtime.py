"""Who runs the image tower: torch, or OpenVINO on a CPU, where it takes half the time.

A frame's features never depend on the frames beside it: products of matrices round differently for different batch
sizes. On a CPU each frame runs alone, which costs nothing there; on a GPU batches are filled up to one size.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dapo.errors import SettingsError

Runtime = Literal["auto", "torch", "openvino"]
_TOLERANCE = 1e-4  # of L2-normalised features, against torch on a known image

# Of a conversion: what it does not know, and parts of OpenVINO that have moved in a version to come.
_FAULTS = (RuntimeError, ImportError, AttributeError, TypeError)

_log = logging.getLogger(__name__)


class Run(Protocol):
    """A tower ready to run."""

    def __call__(self, pixels: NDArray[np.float32]) -> list[Tensor]:
        """Normalised pixels float32 [B, 3, S, S], B > 0, to the tower's outputs, each with B first."""


def open_run(
    tower: nn.Module,
    size: int,
    *,
    device: torch.device,
    runtime: Runtime = "auto",
    threads: int | None = None,
    batch: int = 8,
) -> Run:
    """The tower on the runtime asked for.

    Args:
        tower: pixels [B, 3, S, S] -> tuple of tensors; it lies on `device`.
        size: S in px.
        runtime: "auto" takes OpenVINO on a CPU where it is installed and agrees with torch.
        threads: of OpenVINO; None: as many as cores.
        batch: frames per run on a GPU. On a CPU 1 says that frames come one by one: all threads work on one.

    Raises:
        SettingsError: OpenVINO was asked for and is not installed, does not run on `device`, or does not take the model.
    """
    plain = TorchRun(tower, device, 1 if device.type == "cpu" else batch)
    if runtime == "torch" or (runtime == "auto" and (device.type != "cpu" or find_spec("openvino") is None)):
        return plain
    if device.type != "cpu":
        raise SettingsError(
            f"runtime openvino: runs on a CPU, not on {device}. Take 'torch', or device 'cpu'."
        )
    if find_spec("openvino") is None:
        raise SettingsError(
            "runtime openvino: the package is not installed. Install dapo-inspection[model], or take 'torch'."
        )
    try:
        fast = OpenVinoRun(tower, size, threads, batch)
        _agree(plain, fast, size)
    except _FAULTS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        if runtime == "openvino":
            raise SettingsError(
                f"runtime openvino: it can't run this model ({reason}). Take 'torch'."
            ) from error
        _log.warning("OpenVINO can't run this model (%s): torch does, more slowly", reason)
        return plain
    return fast


class TorchRun:
    """The tower as it is, in runs of exactly `batch` frames, filled up with zeros."""

    def __init__(self, tower: nn.Module, device: torch.device, batch: int) -> None:
        self._tower, self._device, self._batch = tower, device, batch

    @torch.inference_mode()
    def __call__(self, pixels: NDArray[np.float32]) -> list[Tensor]:
        images = torch.from_numpy(pixels)
        if missing := -len(pixels) % self._batch:
            images = torch.cat([images, images.new_zeros(missing, *images.shape[1:])])
        parts = [self._tower(part.to(self._device)) for part in torch.split(images, self._batch)]
        return [torch.cat(outputs)[: len(pixels)] for outputs in zip(*parts, strict=True)]


class OpenVinoRun:
    """The tower compiled by OpenVINO for one frame; float32. As many run at once as the CPU takes best, or one.

    Raises:
        RuntimeError: it has an operation that OpenVINO does not know.
    """

    def __init__(self, tower: nn.Module, size: int, threads: int | None, batch: int) -> None:
        openvino = silent_openvino()
        shape = (1, 3, size, size)
        model = converted(tower, torch.zeros(shape))
        model.reshape(shape)
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",  # bfloat16, its own choice on some CPUs, moves scores in the third digit
            "PERFORMANCE_HINT": "LATENCY" if batch == 1 else "THROUGHPUT",
            "ENABLE_CPU_PINNING": False,  # several processes on one machine would be pinned to the same cores
        }
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        compiled = openvino.Core().compile_model(model, "CPU", options)
        self._outputs = len(compiled.outputs)
        self._queue = openvino.AsyncInferQueue(compiled)
        self._queue.set_callback(self._keep)
        self._turn = threading.Lock()  # the queue serves one caller at a time

    def __call__(self, pixels: NDArray[np.float32]) -> list[Tensor]:
        found: list[list[NDArray[np.float32]]] = [[] for _ in pixels]
        with self._turn:
            for row, frame in zip(found, pixels, strict=True):
                self._queue.start_async({0: frame[None]}, userdata=row)
            self._queue.wait_all()
        return [
            torch.from_numpy(np.concatenate([row[index] for row in found])) for index in range(self._outputs)
        ]

    def _keep(self, request: Any, row: list[NDArray[np.float32]]) -> None:
        row += [request.get_output_tensor(index).data.copy() for index in range(self._outputs)]


def silent_openvino() -> Any:
    """The package `openvino`, which would report its import over the network, and each conversion after that."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its import fails: a stub is taken
    import openvino

    return openvino


def converted(module: nn.Module, example: Tensor) -> Any:
    """OpenVINO's model of a module.

    Raises:
        RuntimeError: the module has an operation that OpenVINO does not know.
    """
    silent_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing: sizes are constants here, as they should be
        traced: Any = torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
        decoder = TorchScriptPythonDecoder(traced, example_input=(example,))  # must outlive the conversion
        front = FrontEndManager().load_by_framework("pytorch")
        return front.convert(front.load(decoder))


def _agree(plain: Run, fast: Run, size: int) -> None:
    """Raises RuntimeError where both differ on a known image."""
    pixels = np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)
    for one, other in zip(plain(pixels), fast(pixels), strict=True):
        if not torch.allclose(one, other, rtol=0, atol=_TOLERANCE):
            raise RuntimeError(f"its numbers differ from torch's by {float((one - other).abs().max()):.1e}")
