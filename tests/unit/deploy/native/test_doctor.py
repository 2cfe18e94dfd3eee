"""What is missing, and the command that mends it."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from deploy.native.cli import register
from deploy.native.doctor import Check, examine
from deploy.native.envfile import NAME, write_environment


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder that is all of PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def install_java(programs, version):
    program = programs / "java"
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\n")
    program.chmod(0o755)


def found(state, name) -> Check:
    (check,) = [check for check in examine(state) if check.name == name]
    return check


@pytest.mark.parametrize(
    ("name", "mend"),
    [("java", "apt-get install openjdk"), ("mvn", "apt-get install maven"), ("go", "golang")],
)
def test_a_missing_program_and_the_command_that_installs_it(tmp_path, programs, name, mend):
    check = found(tmp_path, name)
    assert not check.ok
    assert check.needed
    assert "not on PATH" in check.found
    assert mend in check.mend


@pytest.mark.parametrize(("version", "ok"), [("11.0.2", False), ("17.0.15", True), ("21", True)])
def test_an_old_java_is_not_enough(tmp_path, programs, version, ok):
    install_java(programs, version)
    check = found(tmp_path, "java")
    assert check.ok is ok
    assert version.split(".")[0] in check.found


def test_the_environment_file_must_be_private(tmp_path):
    assert not found(tmp_path, "environment").needed
    write_environment(tmp_path / NAME, {"DAPO_X__Y": "1"})
    assert found(tmp_path, "environment").ok
    (tmp_path / NAME).chmod(0o644)
    check = found(tmp_path, "environment")
    assert not check.ok
    assert check.needed
    assert check.mend == f"chmod 600 {tmp_path / NAME}"


def test_servers_that_are_not_installed_are_no_fault(tmp_path):
    for name, command in (("kafka", "dapo up"), ("versitygw", "dapo up --only versitygw")):
        check = found(tmp_path, f"{name} installed")
        assert not check.ok
        assert not check.needed
        assert check.mend == command
    assert found(tmp_path, "running").found == "no server"


def test_a_full_disk_is_said_with_its_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("deploy.native.doctor._RUN_BYTES", 2**60)
    check = found(tmp_path / "not" / "there" / "yet", "disk of the state")
    assert not check.ok
    assert f"{2**40} MiB needed" in check.found


def test_the_command_prints_each_and_fails_where_something_is_missing(tmp_path, programs):
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, ["doctor", "--state", str(tmp_path)], standalone_mode=False)
    assert result.return_value == 1
    lines = result.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("MISSING  mvn"))
    assert lines[at + 1].strip() == "-> sudo apt-get install maven"
    assert any(line.startswith("ok       python") for line in lines)
    assert any(line.startswith("not yet  running") for line in lines)
