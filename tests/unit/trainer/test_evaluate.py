from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from dapo.errors import SourceError
from dapo.handwritten import make_handwritten_pack
from dapo.pack_io import write_pack
from dapo.testing import small_encoder
from pipeline.cli import invoke
from trainer.evaluation.dataset import Words, find_products, read_product, type_labels


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
    return path


def test_folders_become_words(tree):
    data = read_product(tree, "bottle", Words())
    assert data.words == ("broken", "contamination")
    assert [item.defective for item in data.items] == [True] * 6 + [False] * 3
    assert find_products(tree) == ["bottle", "plain"]
    mask = data.items[0].mask_at(20)
    assert mask.shape == (20, 20)
    assert mask[7, 13]
    assert not mask[0, 0]
    assert set(np.unique(type_labels(data.items[3], data, 20))) == {0, 2}


def test_a_file_of_words_wins(tree, tmp_path):
    file = tmp_path / "words.toml"
    file.write_text('[words]\ncontamination = "dirt"\n[product.bottle.words]\nbroken_large = "shattered"\n')
    assert read_product(tree, "bottle", Words(file)).words == ("shattered", "dirt")


@pytest.mark.parametrize(
    ("text", "says"),
    [("[word]\na = 'b'", "unknown table 'word'"), ("[words", "not valid TOML"), (None, "can't be read")],
)
def test_a_wrong_file_of_words_says_what(tmp_path, text, says):
    file = tmp_path / "words.toml"
    if text:
        file.write_text(text)
    with pytest.raises(SourceError, match=says):
        Words(file)


def test_several_types_in_one_image_come_from_label_maps(tree):
    (tree / "bottle" / "types.json").write_text('{"0": "background", "1": "mouse_bite", "2": "spur"}')
    labels = np.zeros((40, 60), np.uint8)
    labels[10:20, 30:40], labels[10:20, 40:50] = 1, 2
    where = tree / "bottle" / "ground_truth_types" / "contamination"
    where.mkdir(parents=True)
    for index in range(3):
        cv2.imwrite(str(where / f"{index:03d}_types.png"), labels)
    data = read_product(tree, "bottle", Words())
    assert data.words == ("broken", "mouse bite", "spur")
    mixed = next(item for item in data.items if item.types)
    assert mixed.word is None
    assert set(np.unique(type_labels(mixed, data, 40))) == {0, 2, 3}


def test_wrong_trees_name_file_and_expectation(tree, tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        find_products(tmp_path / "none")
    with pytest.raises(SourceError, match="no product in it"):
        find_products(tree / "bottle")
    with pytest.raises(SourceError, match="Did you mean 'bottle'"):
        find_products(tree, ["botle"])
    lost = tree / "bottle" / "ground_truth" / "broken_large" / "001_mask.png"
    lost.unlink()
    with pytest.raises(SourceError, match=r"001\.png: has no mask.*001_mask\.png"):
        read_product(tree, "bottle", Words())
    lost.write_bytes(b"no picture")
    item = next(i for i in read_product(tree, "bottle", Words()).items if i.mask == lost)
    with pytest.raises(SourceError, match="mask can't be read"):
        item.mask_at(8)
    (tree / "bottle" / "types.json").write_text("[1]")
    with pytest.raises(SourceError, match=r"types\.json: expected an object"):
        read_product(tree, "bottle", Words())
    (tree / "plain" / "test" / "empty").mkdir()
    with pytest.raises(SourceError, match="no images in it"):
        read_product(tree, "plain", Words())


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
