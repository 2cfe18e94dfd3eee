"""Tuned on one data set and tested on others, once; stopped, it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from dapo.pack_io import read_pack
from dapo.testing import small_encoder
from tests.unit.trainer.tuning.plates import plates
from trainer.paper import transfer as module
from trainer.paper.comparison import DAPO, HAND
from trainer.paper.transfer import PACK, table, transfer


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    found = []
    for seed, name in enumerate(("taught", "one", "other")):
        root = tmp_path_factory.mktemp(name)
        plates(root, good=4, each=3, seed=5000 * seed)
        found.append(f"folder:{root}")
    return found


def test_it_is_tuned_once_and_tested_on_each(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught, *tested = names
    tunings = []
    real = module.tuned
    monkeypatch.setattr(module, "tuned", lambda *given: tunings.append(given) or real(*given))
    run = {"encoder": small_encoder(), "out": tmp_path / "out", "cache": tmp_path / "cache", "epochs": 1}
    means = transfer(taught, tested, **run)  # type: ignore[arg-type]
    assert len(tunings) == 1
    assert list(means) == tested
    for row in means.values():
        assert set(row) == {HAND.name, DAPO.name}
        assert 0 <= row[DAPO.name]["image AUROC"] <= 1
        assert row[DAPO.name] != row[HAND.name]
    pack = read_pack(tmp_path / "out" / PACK)
    assert len(pack.provenance["tuned_on"]) == 2 * (4 + 3 + 3)
    assert transfer(taught, tested, **run) == means  # type: ignore[arg-type]
    (tmp_path / "out" / "runs.json").unlink()
    assert transfer(taught, tested, **run) == means, "the pack that was tuned is taken"  # type: ignore[arg-type]
    assert len(tunings) == 1
    text = table(means)
    assert text.count("| DAPO prompts |") == 2
    assert f"| {tested[0]} | {HAND.name} | {means[tested[0]][HAND.name]['image AUROC']:.3f} |" in text
