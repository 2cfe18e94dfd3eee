"""`dapo label-next` as people use it: a page with pictures, and commands that label."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.cli import invoke
from pipeline.testing import MemoryStore
from tests.unit.trainer.periodic import plant
from trainer import label_next_cli


def test_frames_of_an_archive_come_with_the_command_that_labels_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = MemoryStore("images")
    data = plant.archive(store, tmp_path / "frames")
    monkeypatch.setattr(label_next_cli, "open_dataset", lambda name, options: data)
    out = tmp_path / "out"
    assert invoke(["label-next", "--count", "4", "--out", str(out), "--products", "ring"]) == 0
    said = capsys.readouterr().out
    chosen = json.loads(said.splitlines()[-1])
    assert 1 <= len(chosen) <= 4
    assert {one["product"] for one in chosen} == {"ring"}
    unlabelled = {s.key: row.result_id for s, row in data.judged("ring") if s.state.value == "unlabelled"}
    page = (out / "label-next.html").read_text()
    for one in chosen:
        command = f"dapo label {unlabelled[one['key']]} good"
        assert command in said
        assert command in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_folder_has_frames_without_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant.plates(tmp_path / "plates", good=4, each=1)
    fresh = tmp_path / "plates" / "plate" / "unlabelled"
    fresh.mkdir()
    for picture in (tmp_path / "plates" / "ring" / "good").glob("*.png"):
        picture.rename(fresh / f"new-{picture.name}")
    out = tmp_path / "out"
    arguments = ["--data", f"folder:{tmp_path / 'plates'}", "--products", "plate", "--out", str(out)]
    assert invoke(["label-next", *arguments]) == 0
    assert "dapo label" not in capsys.readouterr().out


def test_where_all_is_labelled_there_is_nothing_to_choose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant.plates(tmp_path / "plates", good=2, each=1)
    assert invoke(["label-next", "--data", str(tmp_path / "plates"), "--out", str(tmp_path / "out")]) == 2
    assert "every frame of the data is labelled" in capsys.readouterr().err
