from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from dapo.handwritten import make_handwritten_pack
from dapo.pack_io import read_pack, write_pack
from dapo.testing import small_encoder
from pipeline.cli import invoke
from tests.contract.dataset_trees import coco_polygons


def picture(path, seed=0, mask=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = np.zeros((40, 60), np.uint8) if mask else rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
    if mask:
        pixels[10:20, 30:50] = 255
    cv2.imwrite(str(path), pixels)


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "data"
    for product, folders in {
        "bottle": ("good", "broken_large", "contamination"),
        "plain": ("crack",),
    }.items():
        for folder in folders:
            for index in range(3):
                picture(root / product / "test" / folder / f"{index:03d}.png", index)
                if folder != "good" and product == "bottle":
                    picture(root / product / "ground_truth" / folder / f"{index:03d}_mask.png", mask=True)
    return root


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A pack of a tiny random encoder that the command line can load."""
    encoder = small_encoder()
    path = tmp_path / "small.pack"
    write_pack(make_handwritten_pack(encoder, ["broken", "hole"]), path)
    monkeypatch.setattr("dapo.packing.load_encoder", lambda *args, **options: encoder)
    monkeypatch.delenv("DAPO_PACK__PATH", raising=False)
    return path


@pytest.mark.parametrize("protocol", ["default", "paper"])
def test_evaluate_writes_tables_and_can_be_resumed(tree, small, tmp_path, capsys, protocol):
    out = tmp_path / "out"
    line = ["evaluate", str(tree), "--pack", str(small), "--out", str(out), "--protocol", protocol]
    assert invoke(line) == 0
    first = capsys.readouterr()
    last = json.loads(first.out.splitlines()[-1])
    assert last["protocol"] == protocol
    document = json.loads((out / f"{protocol}.json").read_text())
    bottle, plain = document["products"]["bottle"], document["products"]["plain"]
    assert 0 <= bottle["image"]["auroc"] <= 1
    assert 0 <= bottle["pixel"]["aupro"] <= 1
    assert bottle["types"]["chance"] == 0.5
    assert bottle["multi_type"]["novel_words"] == ["broken", "contamination"]
    assert plain["image"] is None
    assert plain["pixel"] is None
    assert "plain: no good images" in first.err
    assert "| **mean** |" in (out / f"{protocol}.md").read_text()
    notes = {path: path.stat().st_mtime_ns for path in out.glob(f"{protocol}-*.json")}
    assert invoke([*line, "--resume"]) == 0
    assert {path: path.stat().st_mtime_ns for path in notes} == notes
    assert json.loads((out / f"{protocol}.json").read_text()) == document
    picture(tree / "plain" / "test" / "crack" / "009.png")
    assert invoke([*line, "--resume"]) == 0
    assert json.loads((out / f"{protocol}.json").read_text())["products"]["plain"]["images"] == 4


def test_evaluate_refuses_an_unknown_protocol(tree, capsys):
    assert invoke(["evaluate", str(tree), "--protocol", "best"]) == 2
    assert "expected 'paper' or 'default'" in capsys.readouterr().err


def evaluate(tree, tmp_path, *options):
    return invoke(["evaluate", str(tree), "--out", str(tmp_path / "out"), *options])


@pytest.mark.parametrize("content", [b"no picture", b""])
def test_an_image_that_can_not_be_read_is_named(tree, small, tmp_path, capsys, content):
    broken = tree / "bottle" / "test" / "good" / "001.png"
    broken.write_bytes(content)
    assert evaluate(tree, tmp_path, "--pack", str(small)) == 2
    assert str(broken) in capsys.readouterr().err


def test_words_that_the_encoder_was_not_trained_on_are_told(tree, small, tmp_path, capsys, monkeypatch):
    encoder = replace(small_encoder(), knows=lambda word: word != "contamination")
    monkeypatch.setattr("dapo.packing.load_encoder", lambda *args, **options: encoder)
    assert evaluate(tree, tmp_path, "--pack", str(small)) == 0
    told = capsys.readouterr().err
    assert "bottle: small-test-vit was not trained on: contamination." in told
    assert "plain: small-test-vit" not in told


def test_listed_types_that_no_image_has_are_told(tree, small, tmp_path, capsys):
    (tree / "bottle" / "types.json").write_text('{"1": "mouse_bite", "2": "spur"}')
    assert evaluate(tree, tmp_path, "--pack", str(small)) == 0
    assert "bottle: listed, but in no test image, so skipped: mouse bite, spur" in capsys.readouterr().err
    labels = np.zeros((40, 60), np.uint8)
    labels[10:20, 30:40] = 1
    where = tree / "bottle" / "ground_truth_types" / "contamination"
    where.mkdir(parents=True)
    for index in range(3):
        cv2.imwrite(str(where / f"{index:03d}_types.png"), labels)
    assert evaluate(tree, tmp_path, "--pack", str(small)) == 0
    assert "bottle: listed, but in no test image, so skipped: spur\n" in capsys.readouterr().err


def test_the_table_says_seen_and_novel_apart(tree, small, tmp_path, capsys):
    base = read_pack(small)
    write_pack(replace(base, provenance={"training_words": ["contamination"]}), small)
    assert evaluate(tree, tmp_path, "--pack", str(small)) == 0
    head, _, *rows = (tmp_path / "out" / "default.md").read_text().splitlines()
    titles = [cell.strip() for cell in head.strip("|").split("|")]
    bottle = dict(zip(titles, (cell.strip() for cell in rows[0].strip("|").split("|")), strict=True))
    said = json.loads((tmp_path / "out" / "default.json").read_text())["products"]["bottle"]["multi_type"]
    for among, title in (("all", "multi-type"), ("seen", "seen"), ("novel", "novel")):
        for metric in ("auroc", "ap", "f1"):
            assert bottle[f"{title} {metric.upper()}"] == f"{said[among][metric]:.3f}"
    assert said["seen"] != said["novel"]


def test_the_pack_and_the_model_are_found_by_settings(tree, small, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DAPO_PACK__PATH", str(tmp_path / "none.pack"))
    assert evaluate(tree, tmp_path) == 2
    assert "none.pack" in capsys.readouterr().err
    assert evaluate(tree, tmp_path, "--pack", str(small)) == 0
    asked = []
    encoder = small_encoder()
    monkeypatch.setattr("dapo.packing.load_encoder", lambda *given: (asked.append(given), encoder)[1])
    file = tmp_path / "line.toml"
    file.write_text(f"[model]\nweights = 'w.safetensors'\ndevice = 'toaster'\n[pack]\npath = '{small}'\n")
    monkeypatch.delenv("DAPO_PACK__PATH")
    capsys.readouterr()
    assert evaluate(tree, tmp_path, "--config", str(file)) == 2
    assert "device toaster" in capsys.readouterr().err
    assert asked[0][-1].name == "w.safetensors"
    assert evaluate(tree, tmp_path, "--config", str(file), "--device", "cpu") == 0
    assert evaluate(tree, tmp_path, "--threads", "0") == 2
    assert "model.threads" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["file", "file/below", "n" * 300])
def test_a_place_that_can_not_be_written_is_told_before_any_work(
    tree, small, tmp_path, capsys, monkeypatch, out
):
    monkeypatch.setattr("dapo.packing.load_encoder", lambda *_: pytest.fail("loaded a model for nothing"))
    (tmp_path / "file").write_text("")
    line = ["evaluate", str(tree), "--pack", str(small), "--out", str(tmp_path / out)]
    assert invoke(line) == 2
    assert "the tables can't be written" in capsys.readouterr().err


def test_every_format_can_be_evaluated(small, tmp_path, capsys):
    root = tmp_path / "coco"
    root.mkdir()
    file, _, _ = coco_polygons(root)
    assert evaluate(f"coco:{file}", tmp_path, "--pack", str(small), "--unannotated", "good") == 0
    found = json.loads((tmp_path / "out" / "default.json").read_text())["products"]["lid"]
    assert (found["images"], found["defective"]) == (6, 3)
    assert found["pixel"]["auroc"] is not None
    assert evaluate(f"coco:{file}", tmp_path, "--pack", str(small), "--unannotated", "maybe") == 2
    assert "--unannotated maybe: expected 'good' or 'unlabelled'" in capsys.readouterr().err


def test_a_damaged_note_is_computed_again(tree, small, tmp_path):
    assert evaluate(tree, tmp_path, "--pack", str(small)) == 0
    before = (tmp_path / "out" / "default.json").read_text()
    for content in ("[1]", "{", "{}"):
        (tmp_path / "out" / "default-plain.json").write_text(content)
        assert evaluate(tree, tmp_path, "--pack", str(small), "--resume") == 0
        assert (tmp_path / "out" / "default.json").read_text() == before


def test_a_root_that_is_none_is_a_message(tmp_path, capsys):
    assert invoke(["evaluate", str(tmp_path / ("n" * 300))]) == 2
    assert "can't be read: File name too long" in capsys.readouterr().err


def test_brackets_in_a_products_name_are_text(tree, small, tmp_path, capsys):
    (tree / "plain").rename(tree / "[bold]plain")
    (tree / "bottle").rename(tree / "[red]cup")
    assert evaluate(tree, tmp_path, "--pack", str(small)) == 0
    captured = capsys.readouterr()
    assert "[bold]plain: no good images" in captured.err
    assert "[red]cup ━" in captured.err  # the progress bar
    assert "| [red]cup |" in captured.out
