"""Photographs are cut into halves that share no group, and cells are run only where there are frames for them."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest

from dapo.errors import SourceError
from dapo.pack_io import read_pack
from dapo.packing import load_pack_encoder
from pipeline.bundled import default_pack_path
from trainer.data.open import Options, open_dataset
from trainer.paper.curves import HALF, Cell, Found, chosen_frames, lines_of, run_cell, table
from trainer.paper.photographs import drawn, halves, linked, photographs
from trainer.paper.plot import Line, plot
from trainer.tuning.scope import Scope


def picture(path: Path, seed: int, spot: bool) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 160, (64, 64, 3), dtype=np.uint8)
    if spot:
        image[20:34, 20:34] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tile` says its groups, `road` numbers its frames."""
    root = tmp_path_factory.mktemp("photographs")
    rows = []
    for number, product in enumerate(("tile", "road")):
        for kind, count in (("good", 12), ("crack", 6), ("hole", 6)):
            for n in range(count):
                key = f"{product}/test/{kind}/{n:02d}.png"
                picture(root / key, 1000 * number + 100 * len(kind) + n, kind != "good")
                if kind != "good":
                    mask = np.zeros((64, 64), np.uint8)
                    mask[20:34, 20:34] = 255
                    path = root / product / "ground_truth" / kind / f"{n:02d}_mask.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(path), mask)
                note = f"tile group {n // 2}" if product == "tile" else ""
                rows.append({"file": key, "product": product, "note": note, "source_path": f"a/{n}.png"})
    (root / "tile" / "types.json").write_text('{"crack": 1, "hole": 2}')
    with open(root / "manifest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "product", "note", "source_path"])
        writer.writeheader()
        writer.writerows(rows)
    return root


def test_halves_share_no_group_and_have_the_same_mixture(root: Path) -> None:
    frames = photographs(root)
    for name, own in frames.items():
        first, second = halves(root, own)
        assert sorted(s.key for s in (*first, *second)) == sorted(s.key for s in own)
        if name == "tile":
            assert not {s.group for s in first} & {s.group for s in second}
        else:
            numbers = [[int(Path(s.key).stem) for s in half if s.word == "good"] for half in (first, second)]
            assert max(numbers[0]) < min(numbers[1])
        for half in (first, second):
            assert {s.word for s in half} == {"good", "crack", "hole"}


def test_halves_can_be_tuned_on_and_tested_by_hand(root: Path, tmp_path: Path) -> None:
    counts = linked(root, tmp_path)
    assert counts == linked(root, tmp_path)
    assert sum(counts.values()) == 48
    assert (tmp_path / "second" / "tile" / "types.json").exists(), "what numbers in masks mean"
    both = [
        open_dataset(f"mvtec:{tmp_path / side}", Options(groups=tmp_path / "groups.csv"))
        for side in ("first", "second")
    ]
    for name, own in photographs(root).items():
        for data, half in zip(both, halves(root, own), strict=True):
            found = {s.key: s for s in data.product(name).samples}
            assert set(found) == {s.key for s in half}
            assert all(found[s.key].drawn == s.drawn for s in half)
            assert all(found[s.key].group == (s.group or s.key) for s in half)


def test_a_larger_draw_holds_the_smaller_and_takes_types_in_turn(root: Path) -> None:
    own = photographs(root)["tile"]
    small, large = drawn(own, 4, 3, seed=5), drawn(own, 8, 6, seed=5)
    assert {s.key for s in small} <= {s.key for s in large}
    assert [s.word for s in small].count("crack") == [s.word for s in small].count("hole") == 2
    assert [s.word for s in small].count("good") == 3


def test_a_cell_is_run_only_where_there_are_frames_for_it(root: Path) -> None:
    half, _ = halves(root, photographs(root)["road"])
    assert chosen_frames(Cell(30, 0), half, 0) is None
    everything = chosen_frames(Cell(HALF, HALF), half, 0)
    assert everything is not None
    assert len(everything) == len(half)


def test_a_product_without_good_frames_is_part_of_all_that_a_half_has(root: Path) -> None:
    half, _ = halves(root, photographs(root)["road"])
    bad = [sample for sample in half if sample.defective]
    assert chosen_frames(Cell(HALF, HALF), bad, 0) is not None
    assert chosen_frames(Cell(0, HALF), bad, 0) is None


def test_a_manifest_that_lacks_a_frame_is_told(root: Path, tmp_path: Path) -> None:
    picture(tmp_path / "tile" / "test" / "good" / "0.png", 1, False)
    picture(tmp_path / "tile" / "test" / "crack" / "0.png", 2, True)
    (tmp_path / "manifest.csv").write_text("file,product,note,source_path\n")
    with pytest.raises(SourceError, match="has no row for"):
        photographs(tmp_path)


def test_a_cell_is_tuned_on_one_half_and_measured_on_the_other(root: Path, tmp_path: Path) -> None:
    base = read_pack(default_pack_path())
    sides = {name: halves(root, own) for name, own in photographs(root).items()}
    found = run_cell(
        Cell(0, HALF),
        sides,
        base,
        load_pack_encoder(base),
        scope=Scope.STEM,
        tuning={},
        seed=0,
        cache=tmp_path,
    )
    assert set(found) == {"tile", "road"}
    assert found["tile"].labelled == 0
    assert found["tile"].good == 6
    assert found["tile"].figures["image"] is not None
    text = table({Cell(0, HALF): found}, ["road", "tile"])
    assert "0 labelled, half good" in text
    assert "(0+6)" in text


def test_lines_are_of_products_that_are_in_every_cell() -> None:
    one, other = Found({"image": 0.8}, 10, 0), Found({"image": 0.4}, 12, 0)
    results = {Cell(10, 0): {"a": one, "b": other}, Cell(30, 0): {"a": Found({"image": 0.9}, 30, 0)}}
    assert lines_of(results, "image", ["a"])[0] == Line("0 good frames", [(10.0, 0.8), (30.0, 0.9)])


def test_a_plot_is_a_picture_with_what_is_named() -> None:
    text = plot([Line("half <good>", [(0, 0.8), (30, 0.95)]), Line("none", [])], "frames", "image AUROC")
    ElementTree.fromstring(text)
    assert "half &lt;good&gt;" in text
    assert text.count("<circle") == 2
    assert ">none<" not in text
