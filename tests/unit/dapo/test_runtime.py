"""The image tower on torch and on OpenVINO: the same numbers, whoever stands beside, or a word about it."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dapo import runtime
from dapo.errors import SettingsError
from dapo.handwritten import make_handwritten_pack
from dapo.model import DapoModel
from dapo.pack import Pack
from dapo.packing import make_pack
from dapo.predictor import ImageSide
from dapo.runtime import OpenVinoRun, TorchRun, open_run
from dapo.testing import small_encoder

CPU = torch.device("cpu")
PACKS = {
    "dapo": make_pack(DapoModel(small_encoder(), seed=4), ["hole"]),
    "handwritten": make_handwritten_pack(small_encoder(), ["hole"]),
}


def _images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
def test_both_runtimes_give_the_same_features(pack: Pack) -> None:
    plain = ImageSide(pack, encoder=small_encoder(), runtime="torch").features(_images(3))
    fast = ImageSide(pack, encoder=small_encoder(), runtime="openvino").features(_images(3))
    torch.testing.assert_close(plain.cls, fast.cls, rtol=0, atol=1e-5)
    torch.testing.assert_close(plain.taps, fast.taps, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_a_frame_has_the_same_bits_in_any_company(name: runtime.Runtime) -> None:
    side = ImageSide(PACKS["dapo"], encoder=small_encoder(), runtime=name, threads=1)
    images = _images(11)
    together = side.features(images)
    for row in range(len(images)):
        alone = side.features(images[row : row + 1])
        assert torch.equal(together.cls[row], alone.cls[0])
        assert all(
            torch.equal(one[row], other[0]) for one, other in zip(together.taps, alone.taps, strict=True)
        )


class _Linear(nn.Module):
    def __init__(self, turn: bool = False) -> None:
        super().__init__()
        self.turn, self.seen = turn, list[int]()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        self.seen.append(len(pixels))
        # Tracing sees zeros and keeps this branch for ever: a conversion that is wrong without saying so.
        sign = -1.0 if self.turn and bool(pixels.any()) else 1.0
        return (sign * pixels.mean((2, 3)),)


def test_a_gpu_runs_batches_of_one_size_and_a_cpu_single_frames() -> None:
    pixels = np.ones((5, 3, 8, 8), np.float32)
    for batch, seen in ((4, [4, 4]), (1, [1] * 5)):
        tower = _Linear()
        [found] = TorchRun(tower, CPU, batch)(pixels)
        assert tower.seen == seen
        assert found.shape == (5, 3)


def test_auto_takes_openvino_where_it_agrees() -> None:
    assert isinstance(open_run(_Linear(), 8, device=CPU), OpenVinoRun)


def test_a_conversion_with_other_numbers_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(open_run(_Linear(turn=True), 8, device=CPU), TorchRun)
    assert "differ from torch's" in caplog.text
    with pytest.raises(SettingsError, match=r"can't run this model \(its numbers differ .* Take 'torch'"):
        open_run(_Linear(turn=True), 8, device=CPU, runtime="openvino")


@pytest.mark.parametrize("error", [ImportError("no ts_decoder"), RuntimeError(), TypeError("moved")])
def test_an_openvino_that_has_changed_stops_no_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def broken(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(runtime, "converted", broken)
    assert isinstance(open_run(_Linear(), 8, device=CPU), TorchRun)
    assert str(error) in caplog.text
    with pytest.raises(SettingsError, match="can't run this model"):
        open_run(_Linear(), 8, device=CPU, runtime="openvino")


def test_openvino_reports_nothing_over_the_network() -> None:
    program = """
import sys, torch
from dapo.runtime import OpenVinoRun
class Mean(torch.nn.Module):
    def forward(self, pixels):
        return (pixels.mean((2, 3)),)
OpenVinoRun(Mean(), 8, None, 1)
print([name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout


def test_without_the_package_auto_is_torch_and_openvino_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        assert name == "openvino"

    monkeypatch.setattr(runtime, "find_spec", missing)
    assert isinstance(open_run(_Linear(), 8, device=CPU), TorchRun)
    with pytest.raises(SettingsError, match="not installed"):
        open_run(_Linear(), 8, device=CPU, runtime="openvino")


def test_openvino_is_refused_on_a_gpu() -> None:
    with pytest.raises(SettingsError, match=r"runs on a CPU, not on cuda"):
        open_run(_Linear(), 8, device=torch.device("cuda"), runtime="openvino")
