"""`dapo feed` as a command: how it ends, and under which name it keeps its position."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dapo.errors import Fenced, ServiceUnavailable
from pipeline.cli import invoke
from pipeline.kafka import outlet
from pipeline.ports import Message
from pipeline.settings import KafkaSettings
from pipeline.testing import encoded, surface


class Outlet:
    """An outlet that knows nothing yet, and does as it is told when it is written to."""

    names: list[str]
    written: Callable[[], None]

    def __init__(self, settings: KafkaSettings, name: str, topic: str, stop: threading.Event) -> None:
        self.names.append(name)

    def kept(self) -> tuple[int, str]:
        return 0, ""

    def write(self, messages: list[Message], position: int, mark: str = "") -> None:
        self.written()

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names of all outlets that were opened. The working folder has one frame, a.png."""
    monkeypatch.setattr(Outlet, "names", [], raising=False)
    monkeypatch.setattr(Outlet, "written", staticmethod(lambda: None), raising=False)
    monkeypatch.setattr(outlet, "KafkaOutlet", Outlet)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(encoded(surface()))
    return Outlet.names


def _stopped() -> None:
    signal.raise_signal(signal.SIGTERM)
    raise ServiceUnavailable("no broker answers")


def _away() -> None:
    raise ServiceUnavailable("no broker answers")


def _fenced() -> None:
    raise Fenced("another process writes under it")


@pytest.mark.parametrize(("happens", "status"), [(_stopped, 0), (_away, 2), (_fenced, 5)])
@pytest.mark.parametrize("when", ["__init__", "written"])
def test_how_it_ends(
    happens: Callable[[], None],
    status: int,
    when: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Outlet, when, staticmethod(lambda *_: happens()))
    assert invoke(["feed", "a.png"]) == status
    said = capsys.readouterr()
    if status:
        assert said.err.startswith("error: ")
    else:
        assert said.out.startswith("0 frames fed")


def test_a_source_keeps_its_name_wherever_the_command_is_given_and_a_pipe_has_none(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("a.png", str(tmp_path / "a.png")):
        assert invoke(["feed", path, "--camera", "c"]) == 0
    with open(tmp_path / "empty", "w+") as empty:
        monkeypatch.setattr(sys, "stdin", empty)
        for arguments in ([], [], ["--name", "dapo-feed-shift"]):
            assert invoke(["feed", "-", "--camera", "c", *arguments]) == 0
    assert names[0] == names[1]
    assert len(set(names)) == 4
    assert names[-1] == "dapo-feed-shift"
