"""`dapo models` and `dapo types add` on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dapo.pack_io import read_pack, write_pack
from pipeline.cli import invoke
from pipeline.registry.registry import Registry
from pipeline.testing import MemoryStore
from tests.unit.pipeline.registry.packs import champion, tuned, with_word

A, B, C = champion(), with_word(), tuned()
HASH_A, HASH_B, HASH_C = (one.configuration_hash for one in (A, B, C))


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry:
    store = MemoryStore("models")
    monkeypatch.setattr("pipeline.cli.models.open_store", lambda settings, bucket: store)
    monkeypatch.chdir(tmp_path)
    for name, pack in (("a.pack", A), ("b.pack", B), ("c.pack", C)):
        write_pack(pack, tmp_path / name)
    return Registry(store)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    found = capsys.readouterr()
    return found.out + found.err


def test_from_an_empty_registry_to_a_champion_and_back(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["models", "list"]) == 0
    assert "begins it" in said(capsys)
    assert invoke(["models", "promote", "a.pack"]) == 0
    assert f"promote nothing -> {HASH_A[:12]}" in said(capsys)
    assert invoke(["models", "promote", "b.pack"]) == 0
    assert "no worse by construction" in said(capsys)
    assert invoke(["models", "promote", "champion"]) == 0
    assert "is the champion already" in said(capsys)
    assert invoke(["models", "rollback", "--why", "false alarms"]) == 0
    assert f"rollback {HASH_B[:12]} -> {HASH_A[:12]}" in said(capsys)
    assert registry.pointers().names == {"champion": HASH_A, "previous": HASH_B}
    assert invoke(["models", "list"]) == 0
    lines = {line.split()[0]: line for line in said(capsys).splitlines()[1:]}
    assert "champion" in lines[HASH_A[:12]]
    assert "previous" in lines[HASH_B[:12]]
    assert "add_type dent" in lines[HASH_B[:12]]


def test_without_evidence_it_says_what_to_do(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["models", "promote", "a.pack"]) == 0
    assert invoke(["models", "promote", "c.pack"]) == 2
    assert "--force REASON" in said(capsys)
    assert invoke(["models", "promote", HASH_C[:8], "--force", "new lamp"]) == 0
    assert "forced; new lamp" in said(capsys)


def test_what_the_gate_wrote_is_evidence(
    registry: Registry, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert invoke(["models", "promote", "a.pack"]) == 0
    said_by_gate = {
        "champion": HASH_A,
        "challenger": HASH_C,
        "outcome": "refuse",
        "label_next": ["x"] * 30_000,
    }
    asked = ["models", "promote", "c.pack", "--gate", "gate.json"]
    (tmp_path / "gate.json").write_text(json.dumps(said_by_gate))
    assert invoke(asked) == 2
    assert "the gate says refuse" in said(capsys)
    (tmp_path / "gate.json").write_text(json.dumps(said_by_gate | {"outcome": "promote"}))
    assert invoke(asked) == 0
    assert "gate: promote" in said(capsys)
    for content, message in [
        ("{}", "names no champion"),
        ("x", "is no JSON"),
        (" " * 2_000_000, "more than"),
    ]:
        (tmp_path / "gate.json").write_text(content)
        assert invoke(asked) == 2
        assert message in said(capsys)


def test_a_pack_comes_out_as_it_went_in(registry: Registry, tmp_path: Path) -> None:
    invoke(["models", "push", "b.pack"])
    assert invoke(["models", "pull", HASH_B[:8], "--out", "out.pack"]) == 0
    assert (tmp_path / "out.pack").read_bytes() == (tmp_path / "b.pack").read_bytes()


def test_a_challenger_is_pushed_shown_and_compared(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    invoke(["models", "promote", "a.pack"])
    assert invoke(["models", "push", "b.pack", "--challenger"]) == 0
    assert f"{HASH_B} is the challenger" in said(capsys)
    assert invoke(["models", "diff"]) == 1
    assert "types.dent: added" in said(capsys)
    assert invoke(["models", "diff", "a.pack", "champion"]) == 0
    assert invoke(["models", "show", "challenger"]) == 0
    text = said(capsys)
    assert f"configuration {HASH_B}" in text
    assert "history: add_type dent" in text
    assert f"challenger nothing -> {HASH_B[:12]}" in text
    assert invoke(["models", "show", HASH_A[:10], "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["hash"] == HASH_A
    assert [move["what"] for move in document["moves"]] == ["promote"]


def test_a_damaged_pack_does_not_hide_the_others(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    invoke(["models", "promote", "a.pack"])
    invoke(["models", "push", "b.pack"])
    store = registry._store
    assert isinstance(store, MemoryStore)
    store.rot(f"prompts/packs/{HASH_B}.pack")
    capsys.readouterr()
    assert invoke(["models", "list"]) == 0
    assert "damaged: push it again" in said(capsys)


def test_a_word_for_a_product_makes_a_new_champion(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    invoke(["models", "promote", "a.pack"])
    capsys.readouterr()
    assert invoke(["types", "add", "tube", "scratch"]) == 0  # which the pack has for other products
    assert "only words were added" in said(capsys)
    found = registry.champion()
    assert found.product("tube").types == ("hole", "scratch")
    assert found.product("tube").threshold_ok == A.product("tube").threshold_ok
    assert registry.pointers().previous == HASH_A


@pytest.mark.parametrize(
    ("product", "word", "message"),
    [
        ("tubes", "scratch", "Did you mean 'tube'"),
        ("tube", "hole", "has 'hole' already"),
        ("tube", "!", "no letter"),
    ],
)
def test_mistakes_are_messages(
    registry: Registry, capsys: pytest.CaptureFixture[str], product: str, word: str, message: str
) -> None:
    invoke(["models", "promote", "a.pack"])
    assert invoke(["types", "add", product, word]) == 2
    assert message in said(capsys)
    assert registry.pointers().champion == HASH_A


def test_paper_scoring_takes_no_word_on_a_running_line(
    registry: Registry, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    paper = replace(A, scoring=replace(A.scoring, kind="paper"))
    write_pack(paper, tmp_path / "paper.pack")
    invoke(["models", "promote", "paper.pack"])
    assert invoke(["types", "add", "tube", "scratch"]) == 2
    assert "dapo calibrate" in said(capsys)


def test_types_alone_still_lists(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_pack(A, tmp_path / "a.pack")
    assert invoke(["types", "--pack", str(tmp_path / "a.pack")]) == 0
    assert "scratch" in said(capsys)
    assert read_pack(tmp_path / "a.pack").configuration_hash == HASH_A


def test_a_shadow_run_has_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["models", "shadow"]) == 2
    assert "--frames N or --minutes M" in said(capsys)


def test_without_a_store_it_says_which_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["models", "list"]) == 2
    assert "store.endpoint" in said(capsys)


def test_reconcile_follows_the_registry_or_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["triton", "reconcile", "x.pack", "--follow", "--url", "a:1"]) == 2
    assert "Give no pack" in said(capsys)
