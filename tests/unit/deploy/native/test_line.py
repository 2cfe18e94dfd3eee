"""Mistakes in asking for the line's servers. That they start and stop is an integration test."""

from __future__ import annotations

import json
import os
import sys

import pytest
import typer

from deploy.native.cli import register
from deploy.native.line import LineError, down, state_folder, up
from deploy.native.process import spawn
from deploy.native.progress import Silent
from deploy.native.record import FILE, Record, write_record
from deploy.native.server import end


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["kafak"], r"unknown server 'kafak'. There are: kafka, triton, minio, versitygw"),
        ([], r"no server is named"),
        (["minio", "versitygw"], r"minio and versitygw are both object stores"),
    ],
)
def test_what_can_not_be_asked_for(tmp_path, names, message):
    with pytest.raises(LineError, match=message):
        up(names, tmp_path / "state", Silent())
    assert not (tmp_path / "state").exists()


def test_down_without_up_says_so(tmp_path):
    with pytest.raises(LineError, match="no servers were started with this state folder"):
        down(tmp_path / "none", Silent())


def test_the_state_lies_below_the_users_state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "dapo-inspection" / "native"


def test_down_never_stops_a_process_that_only_has_the_number(tmp_path):
    """The machine was rebooted, and the broker's number belongs to somebody's editor now."""
    editor = spawn([sys.executable, "-c", "import time; time.sleep(60)"], os.environ, tmp_path / "log")
    try:
        folder = tmp_path / "state" / "kafka"
        folder.mkdir(parents=True)
        write_record(folder, Record(editor, {"client": 15001, "internal": 15002, "controller": 15003}))
        record = json.loads((folder / FILE).read_text())
        record["process"]["boot"] = "the one before"
        (folder / FILE).write_text(json.dumps(record))
        assert down(tmp_path / "state", Silent()) == []
        assert editor.alive()
    finally:
        end(editor, 0.0)


def test_delete_removes_ours_and_leaves_what_others_put_there(tmp_path):
    state = tmp_path / "state"
    (state / "kafka" / "data").mkdir(parents=True)
    (state / "models").mkdir()
    (state / "notes.txt").write_text("mine")
    assert down(state, Silent(), delete=True) == []
    assert [path.name for path in state.iterdir()] == ["notes.txt"]


def test_the_commands_plug_in():
    app = typer.Typer()
    register(app)
    assert [command.name for command in app.registered_commands] == ["up", "down", "doctor"]
