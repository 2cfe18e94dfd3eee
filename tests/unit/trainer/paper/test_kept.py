"""A long measurement that was stopped goes on, and never with pieces of another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dapo.errors import OutputError
from trainer.paper.kept import Kept


def test_a_piece_is_done_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "runs.json"
    keep = Kept(path, {"epochs": 5}, 2)
    assert keep("one", lambda: {"a": (1, 2)}) == {"a": [1, 2]}
    again = Kept(path, {"epochs": 5}, 2)
    assert again("one", lambda: pytest.fail("it is known")) == {"a": [1, 2]}
    assert again("two", lambda: 2) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("1 of 2 done")
    assert told[1].startswith("1 of 2 known")
    assert told[2].endswith("two")


def test_pieces_of_another_setup_or_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    Kept(path, {"epochs": 5}, 1)("one", lambda: 1)
    with pytest.raises(OutputError, match="other data or options"):
        Kept(path, {"epochs": 6}, 1)
    path.write_text("[]")
    with pytest.raises(OutputError, match="Remove it"):
        Kept(path, {"epochs": 5}, 1)
