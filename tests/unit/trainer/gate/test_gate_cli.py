"""`dapo gate` from the command line, with a real model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import typer

from dapo.pack_changes import set_threshold
from dapo.pack_io import read_pack, write_pack
from trainer.data.open import open_dataset
from trainer.data.split import content_hash
from trainer.gate import cli


def gate(*arguments):
    """Exit status, as the program has it."""
    app = typer.Typer()
    app.callback()(lambda: None)
    cli.register(app)
    return app(args=["gate", *map(str, arguments)], standalone_mode=False)


def test_the_same_pack_is_no_better_and_no_worse(data, packs, tmp_path, capsys):
    old, _ = packs
    line = [old, "--champion", old, "--data", data, "--out", tmp_path / "out"]
    assert gate(*line) == 1
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["outcome"] == "refuse"
    assert said["test"]["good_parts"] == said["test"]["defective_parts"] == 11
    assert said["auroc"]["difference"] == 0
    assert json.loads((tmp_path / "out" / "gate.json").read_text()) == said
    assert (tmp_path / "out" / "gate.html").read_text().count("<figure>") == 3
    assert gate(*line, "--question", "not-inferior") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["outcome"] == "promote"


def test_too_few_parts_are_not_decidable(data, packs, tmp_path, capsys):
    old, new = packs
    groups = tmp_path / "groups.csv"
    rows = [
        f"{path.relative_to(data).as_posix()},{path.parent.name}-{int(path.stem) // 2}"
        for path in sorted(data.rglob("*.png"))
    ]
    groups.write_text("file,group\n" + "\n".join(rows))
    line = [new, "--champion", old, "--data", data, "--out", tmp_path / "out", "--groups", groups]
    assert gate(*line) == 3
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["test"]["good_parts"] == 6
    assert said["label_more"] == 8
    assert gate(*line, "--uses", 12) == 1


def test_limits_come_from_a_file(data, packs, tmp_path, capsys):
    old, _ = packs
    write_pack(set_threshold(read_pack(old), "lid", 0.0, 0.0), old)  # everything is NotOK
    rules = tmp_path / "rules.toml"
    rules.write_text("false_alarms = 0.05\n[recall]\n'*' = 0.5\n")
    line = [old, "--champion", old, "--data", data, "--out", tmp_path / "out", "--question", "not-inferior"]
    assert gate(*line, "--rules", rules) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rule"] == "false alarms"


def test_a_frame_that_a_pack_was_tuned_on_stops_it_before_any_work(data, packs, tmp_path, monkeypatch):
    old, new = packs
    [product] = [open_dataset(str(data)).product("lid")]
    seen = {"tuned_on": [content_hash(product.samples[4])]}
    write_pack(replace(read_pack(new), provenance=seen), new)
    monkeypatch.setattr("dapo.packing.load_encoder", lambda *_: pytest.fail("loaded a model for nothing"))
    with pytest.raises(Exception, match=r"good/04.png: the challenger was tuned on this very picture"):
        gate(new, "--champion", old, "--data", data, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "gate.json").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--question", "best"), ("--split-by", "week"), ("--unannotated", "maybe")]
)
def test_unknown_words_are_told(data, packs, tmp_path, option, value):
    old, _ = packs
    with pytest.raises(Exception, match=f"{option} {value}: expected"):
        gate(old, "--champion", old, "--data", data, "--out", tmp_path / "out", option, value)


def test_a_place_that_can_not_be_written_is_told_before_any_work(data, packs, tmp_path, monkeypatch):
    old, _ = packs
    monkeypatch.setattr("dapo.packing.load_encoder", lambda *_: pytest.fail("loaded a model for nothing"))
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="can't be written"):
        gate(old, "--champion", old, "--data", data, "--out", tmp_path / "file")
