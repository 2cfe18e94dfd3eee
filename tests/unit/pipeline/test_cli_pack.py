from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dapo.checkpoint import export_checkpoint, read_checkpoint, write_checkpoint
from dapo.handwritten import make_handwritten_pack
from dapo.model import DapoModel
from dapo.pack import Tiles
from dapo.pack_changes import set_threshold
from dapo.pack_io import read_pack, write_pack
from dapo.testing import small_encoder
from pipeline.cli import invoke


@pytest.fixture
def asked():
    """Arguments of each time an encoder is loaded."""
    return []


@pytest.fixture
def pack(tmp_path, monkeypatch, asked):
    encoder = small_encoder()
    path = tmp_path / "a.pack"
    write_pack(make_handwritten_pack(encoder, ["scratch", "hole"], products={"bottle": ["scratch"]}), path)

    def load_encoder(*arguments):
        asked.append(arguments)
        return encoder

    monkeypatch.setattr("dapo.packing.load_encoder", load_encoder)
    monkeypatch.setattr("dapo.encoder.load_encoder", load_encoder)
    return path


def test_show_and_verify(pack, capsys):
    assert invoke(["pack", "show", str(pack)]) == 0
    text = capsys.readouterr().out
    digest = read_pack(pack).configuration_hash
    assert digest in text
    assert "bottle" in text
    assert "scratch, hole" in text
    assert invoke(["pack", "show", str(pack), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hash"] == digest
    assert invoke(["pack", "verify", str(pack)]) == 0
    assert f"intact, configuration {digest}" in capsys.readouterr().out


def test_a_damaged_pack_is_refused(pack, capsys):
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    assert invoke(["pack", "verify", str(pack)]) == 2
    assert "damaged" in capsys.readouterr().err


def test_a_new_word_is_a_new_pack(pack, tmp_path, capsys):
    out = tmp_path / "b.pack"
    assert invoke(["pack", "add-type", str(pack), "bent", "--out", str(out), "--product", "bottle"]) == 0
    assert read_pack(out).product("bottle").types == ("scratch", "bent")
    assert read_pack(out).product("*").types == ("scratch", "hole")
    capsys.readouterr()
    assert invoke(["pack", "diff", str(pack), str(out)]) == 1
    assert "types.bent: added" in capsys.readouterr().out
    assert invoke(["pack", "diff", str(pack), str(pack)]) == 0
    assert "the packs are the same" in capsys.readouterr().out
    assert invoke(["pack", "add-type", str(pack), "Scratch", "--out", str(out)]) == 2
    assert "already has 'scratch'" in capsys.readouterr().err


def test_set_threshold(pack, tmp_path, capsys):
    out = tmp_path / "c.pack"
    line = ["pack", "set-threshold", str(pack), "--product", "bottle", "--out", str(out)]
    assert invoke([*line, "--ok", "0.2", "--notok", "0.4"]) == 0
    assert read_pack(out).product("bottle").threshold_notok == 0.4
    assert invoke([*line, "--ok", "0.5", "--notok", "0.4"]) == 2
    assert "0 <= ok <= notok <= 1" in capsys.readouterr().err


def test_new_makes_a_day_zero_pack(pack, tmp_path, capsys):
    out = tmp_path / "new.pack"
    assert invoke(["pack", "new", "--types", "dent, Faulty imprint", "--out", str(out)]) == 0
    assert [word.slug for word in read_pack(out).types] == ["dent", "faulty-imprint"]
    assert invoke(["pack", "new", "--types", " , ", "--out", str(out)]) == 2
    assert "no defect word" in capsys.readouterr().err


def test_types_lists_words_with_their_neighbours(pack, capsys):
    assert invoke(["types", "--pack", str(pack)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["scratch", "scratch", "yes", "hole"]


def test_types_and_packs_are_found_by_settings(pack, asked, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DAPO_PACK__PATH", str(tmp_path / "none.pack"))
    assert invoke(["types"]) == 2
    assert "none.pack" in capsys.readouterr().err
    monkeypatch.setenv("DAPO_PACK__PATH", str(pack))
    assert invoke(["types"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    monkeypatch.setenv("DAPO_MODEL__WEIGHTS", "a.safetensors")
    out = ["--out", str(tmp_path / "new.pack")]
    assert invoke(["pack", "new", "--types", "dent", *out]) == 0
    assert invoke(["pack", "add-type", str(pack), "bent", *out]) == 0
    assert [arguments[-1] for arguments in asked] == [Path("a.safetensors")] * 2
    assert invoke(["pack", "add-type", str(pack), "bent", *out, "--weights", "b.safetensors"]) == 0
    assert asked[-1][-1] == Path("b.safetensors")


def test_tables_are_not_wrapped_where_no_terminal_is(tmp_path, pack, capsys):
    words = [f"a word of some length number {index}" for index in range(12)]
    wide = tmp_path / "wide.pack"
    write_pack(make_handwritten_pack(small_encoder(), words), wide)
    assert invoke(["types", "--pack", str(wide)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 13


def test_brackets_are_text(pack, tmp_path, capsys):
    odd = tmp_path / "[x].pack"
    write_pack(
        make_handwritten_pack(small_encoder(), ["scratch"], products={"[red]cup": ["scratch"], "[/b]": []}),
        odd,
    )
    assert invoke(["pack", "show", str(odd)]) == 0
    shown = capsys.readouterr().out
    assert "[x].pack" in shown
    assert "[red]cup" in shown
    assert "[/b]" in shown
    assert invoke(["pack", "show", "[/x].pack"]) == 2
    assert "[/x].pack: can't be read" in capsys.readouterr().err
    assert invoke(["types", "--pack", str(odd)]) == 0
    assert "[red]cup" in capsys.readouterr().out


def test_set_product(pack, tmp_path, capsys):
    calibrated, out = tmp_path / "b.pack", tmp_path / "c.pack"
    write_pack(set_threshold(read_pack(pack), "bottle", 0.2, 0.4), calibrated)
    line = ["pack", "set-product", str(calibrated), "--product", "bottle", "--out", str(out)]
    assert invoke([*line, "--mm-per-px", "0.05", "--mask-threshold", "0.4", "--min-area-px", "3"]) == 0
    product = read_pack(out).product("bottle")
    assert (product.mm_per_px, product.mask_threshold, product.min_area_px) == (0.05, 0.4, 3)
    assert product.threshold_notok == 0.4
    capsys.readouterr()
    corners = ["--roi", "0,0 1,0 1,0.5", "--ignore", "0,0 .1,0 .1,.1", "--ignore", "0.5,0.5 0.6,0.5 0.6,0.6"]
    assert invoke([*line, *corners, "--tiles", "3x4@0.2", "--max-regions", "5"]) == 0
    product = read_pack(out).product("bottle")
    assert product.roi == (((0, 0), (1, 0), (1, 0.5)),)
    assert len(product.ignore) == 2
    assert product.tiles == Tiles(3, 4, 0.2)
    assert product.max_regions == 5
    assert product.threshold_notok is None
    assert "run 'dapo calibrate'" in capsys.readouterr().err
    again = ["pack", "set-product", str(out), "--product", "bottle", "--out", str(out)]
    assert invoke([*again, *(part for name in ("roi", "ignore", "tiles") for part in ("--clear", name))]) == 0
    cleared = read_pack(out).product("bottle")
    assert (cleared.roi, cleared.ignore, cleared.tiles) == ((), (), None)


def test_a_checkpoint_becomes_a_pack_and_a_pack_a_checkpoint(pack, tmp_path, capsys):
    model = DapoModel(small_encoder(), seed=3)
    first, made, again = tmp_path / "a.pth", tmp_path / "learned.pack", tmp_path / "b.pth"
    write_checkpoint(export_checkpoint(model), first)
    line = ["pack", "new", "--types", "scratch", "--checkpoint", str(first), "--out", str(made)]
    assert invoke(line) == 0
    found = read_pack(made)
    assert (found.kind, found.provenance["checkpoint"]) == ("dapo", "a.pth")
    assert invoke(["pack", "export", str(made), "--out", str(again)]) == 0
    before, after = read_checkpoint(first).tensors, read_checkpoint(again).tensors
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert invoke(["pack", "export", str(pack), "--out", str(tmp_path / "c.pth")]) == 2
    assert "hand-written prompts" in capsys.readouterr().err
    first.write_bytes(b"no checkpoint")
    assert invoke([*line[:-1], str(tmp_path / "d.pack")]) == 2
    assert "can't be read as a checkpoint" in capsys.readouterr().err


def test_a_region_may_be_replaced_in_one_call(pack, tmp_path, capsys):
    one, two = tmp_path / "1.pack", tmp_path / "2.pack"
    line = ["pack", "set-product", "--product", "cup"]
    assert invoke([*line, str(pack), "--roi", "0,0 1,0 1,0.5", "--out", str(one)]) == 0
    given = ["--clear", "roi", "--roi", "0,0 0.5,0 0.5,0.5"]
    assert invoke([*line, str(one), *given, "--out", str(two)]) == 0
    assert read_pack(two).product("cup").roi == (((0.0, 0.0), (0.5, 0.0), (0.5, 0.5)),)


@pytest.mark.parametrize("header", ["[]", '"a"', "null", "3"])
def test_a_pack_whose_header_is_no_object_is_damaged(tmp_path, capsys, header):
    path = tmp_path / "odd.pack"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())
    assert invoke(["pack", "verify", str(path)]) == 2
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "nothing to set"),
        (["--roi", "0,0 1"], "--roi: '1' is no corner"),
        (["--roi", "0,0 1,x"], "--roi: '1,x' is no corner"),
        (["--roi", "0,0 1,1"], "roi needs polygons of 3 or more corners"),
        (["--ignore", "0,0 nan,1 1,1"], "ignore needs polygons"),
        (["--tiles", "3"], "--tiles 3: expected ROWSxCOLUMNS@OVERLAP"),
        (["--tiles", "0x4"], "tiles need 1..32 rows"),
        (["--tiles", "3x4@0.9"], "overlap of 0..0.5"),
        (["--mm-per-px", "nan"], "mm_per_px nan"),
        (["--clear", "types"], "--clear types: expected one of roi"),
    ],
)
def test_set_product_says_what_is_wrong(pack, tmp_path, capsys, options, says):
    out = tmp_path / "c.pack"
    assert invoke(["pack", "set-product", str(pack), "--product", "bottle", "--out", str(out), *options]) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()


def test_a_place_that_can_not_be_written_is_told_before_the_encoder_is_loaded(pack, asked, tmp_path, capsys):
    for command in (["new", "--types", "dent"], ["add-type", str(pack), "bent"]):
        assert invoke(["pack", *command, "--out", str(tmp_path / ("n" * 300))]) == 2
        assert "can't be written: File name too long" in capsys.readouterr().err
    assert asked == []


def test_a_word_added_under_paper_scoring_unsets_the_thresholds(pack, tmp_path, capsys):
    base, out = read_pack(pack), tmp_path / "b.pack"
    paper = replace(base, scoring=replace(base.scoring, kind="paper"))
    write_pack(set_threshold(paper, "bottle", 0.2, 0.4), pack)
    assert invoke(["pack", "add-type", str(pack), "bent", "--out", str(out)]) == 0
    assert "no product has thresholds any more" in capsys.readouterr().err
    assert read_pack(out).product("bottle").threshold_notok is None
