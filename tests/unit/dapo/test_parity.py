"""The model against the research code's numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dapo.parity import Golden, compare, main

GOLDEN = Path(__file__).parents[2] / "data" / "golden.safetensors"


def _golden() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(GOLDEN, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118  # no mapping


def _changed(tmp_path: Path, name: str, change: float) -> Path:
    tensors, metadata = _golden()
    tensors[name] = tensors[name] + change
    save_file(tensors, tmp_path / "changed.safetensors", metadata)
    return tmp_path / "changed.safetensors"


def test_agrees_with_the_reference_within_tolerance() -> None:
    results = compare(Golden(GOLDEN))
    assert [result for result in results if not result.passed] == []
    names = {result.name for result in results}
    assert {
        "text.depth3.t",
        "text.depth3.at_true_eot.t",
        "image.map",
        "multi.maps",
        "train.step2.total",
    } <= names
    assert len(names) == len(results) >= 89


def test_the_command_prints_a_table_and_one_json_object() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dapo.parity", str(GOLDEN)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *table, last = done.stdout.splitlines()
    assert json.loads(last)["parity"] is True
    assert any(line.startswith("train.step1.grad.visual_prompt") for line in table)


@pytest.mark.parametrize(
    "name", ["image.score", "train.step1.grad.linear_adapter.fc.0.bias", "text.depth1.mean", "train.type_ids"]
)
def test_a_wrong_number_is_found(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(_changed(tmp_path, name, 1))]) == 1
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["failed"] == [name]


def test_a_changed_weight_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(_changed(tmp_path, "clip.visual.ln_post.bias", 1e-3))]) == 1
    assert "image.cls_raw" in json.loads(capsys.readouterr().out.splitlines()[-1])["failed"]


def test_an_expected_value_that_nothing_computes_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, metadata = _golden()
    tensors["image.something_new"] = torch.zeros(2)
    save_file(tensors, tmp_path / "more.safetensors", metadata)
    assert main([str(tmp_path / "more.safetensors")]) == 1
    assert "image.something_new" in capsys.readouterr().out.splitlines()[-1]


def test_sizes_are_read_off_the_tensors_without_settings(tmp_path: Path) -> None:
    tensors, _ = _golden()
    save_file(tensors, tmp_path / "bare.safetensors")
    golden = Golden(tmp_path / "bare.safetensors", vision_head_width=32, text_head_width=12)
    assert golden.model.encoder.taps == (1, 2, 3, 4)
    assert [result for result in compare(golden) if not result.passed] == []


def test_a_file_that_is_none_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not safetensors")
    assert main([str(broken)]) == 2
    assert "broken.safetensors" in capsys.readouterr().err
    assert main([str(tmp_path / "missing.safetensors")]) == 2


@pytest.mark.parametrize(
    ("stripped", "named"),
    [
        (("text.", "image.", "multi.", "train."), "train.labels"),
        (("text.",), "text.depth3.mean"),
        (("image.",), "image."),
        (("train.step1.",), "train.step1."),
        (("image.score",), "image.score"),
        (("clip.token_embedding.ids",), "clip.token_embedding.ids"),
        (("clip.visual.conv1.weight",), "clip.visual.conv1.weight"),
        (("learned.prompt_learner.learnable_normal",), "learned.prompt_learner.learnable_normal_tokens"),
    ],
)
def test_a_file_without_what_it_must_show_is_a_usage_error(
    stripped: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, metadata = _golden()
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(stripped)}
    save_file(kept, tmp_path / "less.safetensors", metadata)
    assert main([str(tmp_path / "less.safetensors")]) == 2
    captured = capsys.readouterr()
    assert "parity" not in captured.out
    assert f"less.safetensors: expected a tensor {named}" in captured.err


@pytest.mark.parametrize("name", ["clip.visual.proj", "clip.visual.conv1.weight", "in.masks"])
def test_tensors_that_contradict_each_other_are_a_usage_error(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, metadata = _golden()
    tensors[name] = torch.zeros(3)
    save_file(tensors, tmp_path / "odd.safetensors", metadata)
    assert main([str(tmp_path / "odd.safetensors")]) == 2
    assert "odd.safetensors: its tensors or settings do not fit together" in capsys.readouterr().err
