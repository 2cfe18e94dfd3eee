"""The research code's checkpoints: in, out, and what is said when they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dapo.checkpoint import Checkpoint, export_checkpoint, load_checkpoint, read_checkpoint, write_checkpoint
from dapo.errors import CheckpointError
from dapo.model import DapoModel
from dapo.testing import small_encoder


@pytest.fixture(scope="module")
def model() -> DapoModel:
    return DapoModel(small_encoder(), seed=1)


def _content(*, older: bool = False) -> dict[str, object]:
    """A file as the research code writes it, with its unused network."""
    draw = torch.Generator().manual_seed(7)
    visual = {"learnable_visual_tokens": torch.randn(4, 4, 64, generator=draw)}
    prompts = {
        "learnable_normal_tokens": torch.randn(10, 5, 48, generator=draw),
        "learnable_abnormal_tokens": torch.randn(10, 5, 48, generator=draw),
        **{f"learnable_layer_tokens.{index}": torch.randn(4, 48, generator=draw) for index in range(3)},
        "meta_net.0.weight": torch.randn(3, 48, generator=draw),
        "meta_net.0.bias": torch.randn(3, generator=draw),
    }
    adapter = {}
    for index in range(4):
        adapter[f"fc.{index}.weight"] = torch.randn(32, 64, generator=draw)
        adapter[f"fc.{index}.bias"] = torch.randn(32, generator=draw)
    if older:
        return {
            "epoch": 5,
            "prompt_learner_state_dict": prompts,
            "trainable_adapter_state_dict": adapter,
            "visual_prompt_state_dict": visual,
        }
    return {"visual_prompt": visual, "prompt_learner": prompts, "linear_adapter": adapter, "epoch": 3}


def _same(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    return a == b


@pytest.mark.parametrize("older", [False, True])
def test_round_trip_through_a_model_is_bit_for_bit(model: DapoModel, tmp_path: Path, older: bool) -> None:
    content = _content(older=older)
    torch.save(content, tmp_path / "in.pth")
    read = read_checkpoint(tmp_path / "in.pth")
    load_checkpoint(model, read)
    assert torch.equal(model.prompts.normal, read.tensors["prompt_learner.learnable_normal_tokens"])
    write_checkpoint(export_checkpoint(model, read), tmp_path / "out.pth")
    assert _same(torch.load(tmp_path / "out.pth", weights_only=True), content)


def test_a_model_exported_anew_is_read_back(model: DapoModel, tmp_path: Path) -> None:
    write_checkpoint(export_checkpoint(model, epoch=9), tmp_path / "new.pth")
    other = DapoModel(small_encoder(), seed=2)
    read = read_checkpoint(tmp_path / "new.pth")
    load_checkpoint(other, read)
    assert read.rest == {"epoch": 9}
    for (name, a), (_, b) in zip(model.learned().items(), other.learned().items(), strict=True):
        assert torch.equal(a, b), name


def test_a_wrong_shape_names_tensor_expected_and_found(model: DapoModel) -> None:
    before = {name: value.detach().clone() for name, value in model.learned().items()}
    tensors = dict(export_checkpoint(model).tensors)
    tensors = {name: value + 1 for name, value in tensors.items()}
    tensors["linear_adapter.fc.2.weight"] = torch.zeros(768, 1024)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, Checkpoint(tensors))
    message = str(caught.value)
    assert "linear_adapter.fc.2.weight" in message
    assert "[32, 64]" in message
    assert "[768, 1024]" in message
    assert all(torch.equal(value, before[name]) for name, value in model.learned().items())


def test_a_missing_or_surplus_tensor_is_named(model: DapoModel) -> None:
    tensors = dict(export_checkpoint(model).tensors)
    visual = tensors.pop("visual_prompt.learnable_visual_tokens")
    with pytest.raises(
        CheckpointError, match=r"learnable_visual_tokens: expected shape \[4, 4, 64\], found no"
    ):
        load_checkpoint(model, Checkpoint(tensors))
    tensors["visual_prompt.learnable_visual_tokens"] = visual
    tensors["linear_adapter.fc.4.bias"] = torch.zeros(32)
    with pytest.raises(CheckpointError, match=r"fc\.4\.bias: expected no such tensor, found shape \[32\]"):
        load_checkpoint(model, Checkpoint(tensors))


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("run by a checkpoint",))


def test_a_file_with_code_in_it_is_refused_unrun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"visual_prompt": _Payload()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil\.pth"):
        read_checkpoint(tmp_path / "evil.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        ({"state_dict": {}}, "found state_dict"),
        ({"visual_prompt": {"a": 1}, "prompt_learner": {}, "linear_adapter": {}}, "a is a int"),
    ],
)
def test_another_layout_is_named(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "other.pth")


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    def unsavable() -> None: ...

    with pytest.raises(AttributeError):
        write_checkpoint(Checkpoint({}, {"epoch": unsavable}), tmp_path / "x.pth")
    assert list(tmp_path.iterdir()) == []
