"""Secrets are shown by no command and logged by no server."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.native import MinioServer, TritonServer
from pipeline.testing import encoded, surface
from tests.integration.trust.plant import DAPO, OPERATOR, SECRET, TOPICS, Plant, until


def dapo(*arguments: str, environment: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with stdout and stderr together."""
    command = [DAPO, *arguments]
    return subprocess.run(
        command, env=environment, cwd=folder, text=True, timeout=60, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_the_command_line_works_with_credentials_and_shows_none(plant: Plant, tmp_path: Path) -> None:
    right = plant.environment(OPERATOR)
    made = dapo("topics", "create", "--single-broker", environment=right, folder=tmp_path)
    checked = dapo(
        "topics", "check", "--single-broker", environment=plant.environment("worker"), folder=tmp_path
    )
    assert "topics made" in made.stdout
    assert checked.returncode in (0, 1), checked.stdout  # 1: this test made some topics for itself, too small
    assert TOPICS.defects("scratch") in checked.stdout
    assert SECRET not in made.stdout + checked.stdout


def test_secrets_of_environment_and_file_are_masked(tmp_path: Path) -> None:
    file = tmp_path / "dapo.toml"
    file.write_text(f'[kafka]\npassword = "{SECRET}file"\n[store]\nsecret_key = "{SECRET}file"\n')
    given = os.environ | {"DAPO_STORE__ACCESS_KEY": f"{SECRET}environment"}
    told = dapo("config", environment=given, folder=tmp_path)
    assert told.returncode == 0, told.stdout
    assert told.stdout.count("********") == 3
    assert SECRET not in told.stdout


@pytest.mark.parametrize(
    "command",
    [["topics", "check"], ["worker"], ["archive"], ["parts"], ["feed", "picture.png"], ["ledger"]],
    ids=lambda command: command[0],
)
def test_a_wrong_password_ends_every_command_with_one_line(
    plant: Plant, store: MinioServer, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "picture.png").write_bytes(encoded(surface()))
    secrets = {"DAPO_KAFKA__PASSWORD": f"{SECRET}wrong", **store.client_environment()}
    told = dapo(*command, environment=plant.environment(OPERATOR, **secrets), folder=tmp_path)
    assert told.returncode == 2, told.stdout
    assert told.stdout.count("does not take user 'operator'") == 1
    assert SECRET not in told.stdout


def test_a_worker_says_what_it_waits_for_and_no_secret(
    plant: Plant, store: MinioServer, tmp_path: Path
) -> None:
    environment = plant.environment("worker", **store.client_environment())
    dapo("topics", "create", "--single-broker", environment=plant.environment(OPERATOR), folder=tmp_path)
    log = tmp_path / "worker.log"
    command = [DAPO, "worker", "--triton", "127.0.0.1:1"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=file, stderr=file)
    try:
        until(lambda: b"waiting: model server" in log.read_bytes() or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert SECRET not in log.read_text()


def test_no_server_has_logged_a_secret(
    plant: Plant, store: MinioServer, model_server: TritonServer, inspected: int
) -> None:
    for server in (plant.broker, store, model_server):
        assert server.log.stat().st_size
        assert SECRET not in server.log.read_text(encoding="utf-8", errors="replace")
        arguments = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert SECRET.encode() not in arguments
