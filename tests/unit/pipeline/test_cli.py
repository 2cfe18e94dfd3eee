from __future__ import annotations

import sys
import tempfile

import pytest
import typer

import pipeline.cli as cli
from dapo.errors import DapoError


def failing(error):
    def register(app: typer.Typer) -> None:
        @app.command()
        def fail() -> None:
            raise error

        @app.command()
        def fine() -> None:
            return None

    return register


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Make `dapo fail` raise; returns its exit status. Stack traces go to `tmp_path`."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    class Entry:
        name = "fail"

        def __init__(self, error):
            self._error = error

        def load(self):
            return failing(self._error)

    def run(error, arguments=("fail",)):
        monkeypatch.setattr(cli, "entry_points", lambda group: [Entry(error)])
        return cli.invoke(list(arguments))

    return run


def test_a_users_mistake_is_one_message_without_a_stack_trace(command, capsys):
    assert command(DapoError("the pack [red]random:x: is missing")) == 2
    assert capsys.readouterr().err == "error: the pack [red]random:x: is missing\n"


def test_missing_extras_are_named(command, capsys):
    assert command(ModuleNotFoundError("no", name="torch.nn")) == 2
    assert "pip install 'dapo-inspection[model]'" in capsys.readouterr().err
    assert command(ModuleNotFoundError("no", name="somebody_elses")) == 70


def test_what_nobody_foresaw_is_one_message_with_a_status_of_its_own(command, capsys, monkeypatch, tmp_path):
    assert command(ValueError("some [/b] fault\nin two lines")) == 70
    said = capsys.readouterr().err
    assert said.startswith("error: unexpected ValueError: some [/b] fault in two lines\n")
    assert "Traceback" not in said
    [trace] = tmp_path.iterdir()
    assert str(trace) in said
    assert "Traceback" in trace.read_text()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert command(PermissionError(13, "Permission denied", "/data")) == 70
    assert "Traceback" in capsys.readouterr().err


def test_interruptions_have_the_shells_status(command):
    assert command(KeyboardInterrupt()) == 130


def test_a_reader_that_goes_away_is_no_error(command, monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    assert command(BrokenPipeError()) == 0


def test_wrong_options_are_usage_errors(command, capsys):
    assert command(None, ["fine", "--no-such"]) == 2
    assert "--no-such" in capsys.readouterr().err
    assert command(None, ["fine"]) == 0


def test_without_commands_it_says_how_to_install(monkeypatch, capsys):
    monkeypatch.setattr(cli, "entry_points", lambda group: [])
    assert cli.invoke(["run"]) == 2
    assert "make setup" in capsys.readouterr().err


def test_version_and_help(capsys, monkeypatch):
    assert cli.invoke(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dapo ")
    monkeypatch.setattr(sys, "argv", ["dapo", "--help"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in ("run", "pack", "types", "calibrate", "config", "evaluate"):
        assert name in text
