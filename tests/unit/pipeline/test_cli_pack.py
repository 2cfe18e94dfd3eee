from __future__ import annotations

import json

import pytest

from dapo.handwritten import make_handwritten_pack
from dapo.pack_io import read_pack, write_pack
from dapo.testing import small_encoder
from pipeline.cli import invoke


@pytest.fixture
def pack(tmp_path, monkeypatch):
    encoder = small_encoder()
    path = tmp_path / "a.pack"
    write_pack(make_handwritten_pack(encoder, ["scratch", "hole"], products={"bottle": ["scratch"]}), path)
    monkeypatch.setattr("dapo.packing.load_encoder", lambda *args, **options: encoder)
    monkeypatch.setattr("dapo.encoder.load_encoder", lambda *args, **options: encoder)
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
