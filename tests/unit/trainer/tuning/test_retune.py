"""`retune` as a user runs it: frames in folders, a pack and a page out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dapo.pack import REFERENCE, STEM_TAP, Pack
from dapo.pack_io import read_pack, write_pack
from pipeline.bundled import default_pack_path
from pipeline.cli import invoke
from trainer.retune import NOTE, PACK, REPORT
from trainer.tuning.reference import Memory, with_memory

from .plates import plates


def retune(tmp_path: Path, *options: str, out: str = "out") -> int:
    every = [
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / out),
        "--cache",
        str(tmp_path / "cache"),
    ]
    return invoke(["retune", *every, "--threads", "2", *options])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stem, memories and thresholds on twenty frames a product."""
    root = tmp_path_factory.mktemp("retune")
    plates(root / "data", good=10, each=5)
    assert retune(root, "--epochs", "3", "--batch", "16", "--false-alarm-rate", "0.1") == 0
    return root


def test_a_better_pack_that_says_what_it_was_made_of(done: Path) -> None:
    pack, base = read_pack(done / "out" / PACK), read_pack(default_pack_path())
    note = json.loads((done / "out" / NOTE).read_text())
    assert note["configuration_hash"] == pack.configuration_hash
    assert note["after"]["image"]["auroc"] >= note["before"]["image"]["auroc"]
    assert note["losses"]["total"][-1] < note["losses"]["total"][0]
    assert {"plate", "ring"} < set(pack.products)
    for name in ("plate", "ring"):
        product = pack.products[name]
        assert set(product.types) == {"hole", "scratch"}
        assert product.reference is not None
        assert product.calibrated
        assert product.calibration["good"] > 0
    history = pack.provenance["history"][-1]
    assert history["parent"] == base.configuration_hash
    assert history["retune"]["scopes"] == ["stem", "reference", "thresholds"]
    assert (
        len(pack.provenance["tuned_on"]) == note["frames"]["plate"]["train"] + note["frames"]["ring"]["train"]
    )
    assert "patch.weight" in pack.tensors
    assert [word.slug for word in pack.types][: len(base.types)] == [word.slug for word in base.types]


def test_the_page_shows_it_and_needs_nothing_else(done: Path) -> None:
    page = (done / "out" / REPORT).read_text()
    for said in ("What it is worth", "Losses by epoch", "Thresholds", "Types of plate", "scored lowest"):
        assert said in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert not list((done / "out").glob("*.partial"))
    assert not (done / "out" / "checkpoint.safetensors").exists()


def test_the_same_call_gives_the_same_pack(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--epochs", "3", "--batch", "16", "--false-alarm-rate", "0.1")
    assert retune(done, *options, out="again") == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert json.loads(last)["configuration_hash"] == read_pack(done / "out" / PACK).configuration_hash
    assert (done / "again" / PACK).read_bytes() == (done / "out" / PACK).read_bytes()


def test_the_new_pack_inspects_as_any_other(done: Path) -> None:
    command = ["run", str(done / "data" / "plate" / "scratch"), "--product", "plate", "--overwrite"]
    out = done / "run"
    assert invoke([*command, "--pack", str(done / "out" / PACK), "--out", str(out)]) in (0, 1)
    assert (out / "report.html").exists()


def test_thresholds_alone_move_no_score(done: Path) -> None:
    tuned = done / "out" / PACK
    assert (
        retune(done, "--pack", str(tuned), "--scope", "thresholds", "--false-alarm-rate", "0.3", out="only")
        == 0
    )
    one, other = read_pack(tuned), read_pack(done / "only" / PACK)
    assert one.features_hash == other.features_hash
    assert other.products["plate"].threshold_notok <= one.products["plate"].threshold_notok
    note = json.loads((done / "only" / NOTE).read_text())
    assert note["losses"] is None
    assert note["before"] == note["after"]


@pytest.fixture(scope="module")
def of_taps(done: Path) -> Pack:
    """The bundled pack with memories of its taps."""
    assert retune(done, "--scope", "reference", "--memory-of", "taps", out="taps") == 0
    return read_pack(done / "taps" / PACK)


def test_memories_are_of_the_stem_unless_taps_are_asked_for(done: Path, of_taps: Pack) -> None:
    assert not of_taps.has_stem_tap
    references = [pack.products["ring"].reference for pack in (of_taps, read_pack(done / "out" / PACK))]
    assert [reference.taps for reference in references if reference] == [(0, 1, 2, 3), (4,)]


def test_a_learned_image_side_drops_memories_of_taps_and_keeps_those_of_the_stem(
    done: Path, of_taps: Pack
) -> None:
    both = with_memory(read_pack(done / "out" / PACK), "ring", memory_of(of_taps, "ring"))
    write_pack(both, done / "both.pack")
    assert (
        retune(done, "--pack", str(done / "both.pack"), "--scope", "full", "--epochs", "1", out="full") == 0
    )
    note = json.loads((done / "full" / NOTE).read_text())
    assert any(line.startswith("memories of ring were dropped") for line in note["notes"])
    made = read_pack(done / "full" / PACK)
    assert made.products["ring"].reference is None
    assert made.products["plate"].reference == both.products["plate"].reference is not None
    np.testing.assert_array_equal(made.tensors["reference.plate"], both.tensors["reference.plate"])


@pytest.mark.parametrize("other", [None, "of the stem", "of taps"])
def test_the_stems_tap_is_made_again_unless_another_products_memory_is_of_it(
    done: Path, of_taps: Pack, other: str | None
) -> None:
    tuned, weight = read_pack(done / "out" / PACK), f"{STEM_TAP}.weight"
    old = replace(tuned, tensors={**tuned.tensors, weight: np.ones_like(tuned.tensors[weight])})
    if other:
        old = with_memory(old, "cup", memory_of(of_taps if other == "of taps" else tuned, "plate"))
    write_pack(old, done / "old.pack")
    assert retune(done, "--pack", str(done / "old.pack"), "--scope", "reference", out="again") == 0
    made = read_pack(done / "again" / PACK)
    assert np.array_equal(made.tensors[weight], old.tensors[weight]) == (other == "of the stem")
    assert ("cup" in made.products) == bool(other)


def memory_of(pack: Pack, product: str) -> Memory:
    reference = pack.products[product].reference
    assert reference is not None
    return Memory(pack.tensors[f"{REFERENCE}{product}"], reference)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--scope", "stern"), "Did you mean 'stem'"),
        (("--mirror", "x"), "expected h, v or hv"),
        (("--type-false-alarm-rate", "crack"), "TYPE=RATE"),
        (("--false-alarm-rate", "2"), "expected a share"),
        (("--products", "plato"), "Did you mean 'plate'"),
        (("--type-false-alarm-rate", "scratsh=0.1"), "Did you mean 'scratch'"),
        (("--loss-size", "40"), "a multiple of 16"),
    ],
)
def test_mistakes_are_told_before_any_work(
    done: Path, options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert retune(done, *options, out="none") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert said in told
    assert not (done / "none" / PACK).exists()


def test_one_picture_on_two_sides_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plates(tmp_path / "data", good=6, each=3)
    twin = tmp_path / "data" / "plate" / "good"
    for n in range(6):
        (twin / f"twin{n}.png").write_bytes((twin / f"{n}.png").read_bytes())
    assert retune(tmp_path, "--epochs", "1") == 2
    assert "is the same picture as" in " ".join(capsys.readouterr().err.split())


def test_what_a_pack_was_made_with_does_not_judge_it(done: Path) -> None:
    tuned = read_pack(done / "out" / PACK)
    options = ("--pack", str(done / "out" / PACK), "--scope", "thresholds", "--seed", "7")
    assert retune(done, *options, "--false-alarm-rate", "0.1", out="seed7") == 0
    note = json.loads((done / "seed7" / NOTE).read_text())
    again = read_pack(done / "seed7" / PACK)
    assert any("moved" in line for line in note["notes"])
    chose = set(again.provenance["calibrated_on"]) - set(tuned.provenance["calibrated_on"])
    assert not chose & set(tuned.provenance["tuned_on"])
    assert again.provenance["tuned_on"] == tuned.provenance["tuned_on"]  # thresholds alone learn from nothing


def test_a_test_of_its_own_may_use_the_same_names(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plates(tmp_path / "fresh", good=2, each=1, seed=50_000)  # other pictures
    command = ("--scope", "reference", "--test", str(tmp_path / "fresh"))
    assert retune(done, *command, out="tested") == 0
    note = json.loads((done / "tested" / NOTE).read_text())
    assert note["frames"]["plate"]["test"] == 4
    capsys.readouterr()
    assert retune(done, "--scope", "reference", "--test", str(done / "data"), out="same") == 2
    assert "is the same picture as" in " ".join(capsys.readouterr().err.split())


def test_good_frames_alone_are_remembered_not_learned_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plates(tmp_path / "data", good=10, each=0)
    assert retune(tmp_path, "--epochs", "1") == 2
    assert "no defective frame to learn from" in " ".join(capsys.readouterr().err.split())
    assert retune(tmp_path, "--scope", "reference,thresholds", out="memory") == 0
    assert read_pack(tmp_path / "memory" / PACK).products["plate"].reference is not None


def test_too_few_good_frames_make_no_memory(tmp_path: Path) -> None:
    plates(tmp_path / "data", good=1, each=6)
    assert retune(tmp_path, "--scope", "reference,thresholds", out="none") == 0
    note = json.loads((tmp_path / "none" / NOTE).read_text())
    assert any("good frames to remember; 4 are needed" in line for line in note["notes"])
    assert read_pack(tmp_path / "none" / PACK).products["plate"].reference is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--data DATA, or --from-archive"),
        (("--data", "x", "--from-archive"), "--data DATA, or --from-archive"),
        (("--data", "x", "--since", "30d"), "--since: is of --from-archive"),
        (("--data", "x", "--auto"), "--auto: works on the archive"),
        (("--from-archive", "--auto", "--pack", "x.pack"), "--pack: not with --auto"),
        (("--from-archive", "--auto", "--test", "y"), "--test: not with --auto"),
        (("--from-archive", "--auto", "--split-by", "day"), "--split-by: not with --auto"),
        (("--from-archive", "--then", "promote"), "--then: is of --auto"),
        (("--data", "x", "--salt", "2"), "--salt: is of --auto"),
        (("--from-archive", "--auto", "--every", "monthly"), "--every monthly: expected days"),
        (("--from-archive", "--auto", "--then", "shadow", "--shadow-frames", "0"), "--shadow-frames above 0"),
    ],
)
def test_options_that_say_nothing_together_are_refused(
    options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["retune", *options]) == 2
    assert said in capsys.readouterr().err
