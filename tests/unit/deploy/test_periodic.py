"""What cron, systemd and Kubernetes call is what the program understands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from pipeline.cli import build

FOLDER = Path(__file__).parents[3] / "deploy" / "periodic"
UNITS = sorted(FOLDER.glob("*.service"))


def unit(path: Path) -> ConfigParser:
    found = ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(path.read_text(encoding="utf-8"))
    return found


def cronjob() -> dict[str, object]:
    return dict(yaml.safe_load((FOLDER / "cronjob.yaml").read_text(encoding="utf-8")))


def cron(name: str) -> str:
    """The line of a command."""
    lines = (FOLDER / "crontab").read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if f"/bin/dapo {name} " in line]
    return line


def calls() -> dict[str, list[str]]:
    """Arguments of `dapo` by where they stand."""
    found = {path.name: shlex.split(unit(path)["Service"]["ExecStart"])[1:] for path in UNITS}
    lines = (FOLDER / "crontab").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if called := re.search(r"/bin/dapo (.+?) 2?>>", line):
            found[f"crontab:{number}"] = shlex.split(called[1])
    [container] = cronjob()["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]  # type: ignore[index]
    assert container["command"] == ["dapo"]
    found["cronjob.yaml"] = container["args"]
    return found


@pytest.mark.parametrize("where", calls())
def test_a_call_is_understood(where: str) -> None:
    name, *arguments = calls()[where]
    command = get_command(build()).commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, list(arguments))
    assert context.params["auto" if name == "retune" else "hours"]


def test_all_places_call_something() -> None:
    assert {where.partition(":")[0] for where in calls()} == {
        "crontab",
        "cronjob.yaml",
        "dapo-drift.service",
        "dapo-retune.service",
    }


def test_no_better_and_label_more_are_no_failures_of_the_unit() -> None:
    assert unit(FOLDER / "dapo-retune.service")["Service"]["SuccessExitStatus"].split() == ["1", "3"]
    rules = cronjob()["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]  # type: ignore[index]
    assert rules[0]["onExitCodes"]["values"] == [1, 2, 3], "all else, such as 75 and 137, is tried again"
    service = unit(FOLDER / "dapo-retune.service")
    assert service["Service"]["RestartForceExitStatus"] == "75"
    assert "Restart" not in service["Service"], "a fault would repeat day and night"
    assert int(service["Unit"]["StartLimitBurst"]) * 10 < 6 * 60, "a limit that is reached"
    assert cronjob()["spec"]["concurrencyPolicy"] == "Forbid"  # type: ignore[index]


def test_a_stopped_run_is_gone_on_with_the_next_night() -> None:
    line = cron("retune")
    assert line.startswith("0 2 * * *   dapo  ")
    assert "%" not in line, "cron takes it for the end of the command"
    assert unit(FOLDER / "dapo-retune.timer")["Timer"]["OnCalendar"] == "*-*-* 02:00"
    assert cronjob()["spec"]["schedule"] == "0 2 * * *"  # type: ignore[index]
    for where, arguments in calls().items():
        if arguments[0] == "retune":
            assert arguments[arguments.index("--every") + 1] == "28d", where


@pytest.mark.parametrize(
    ("status", "said", "mailed"),
    [
        (0, '{"outcome": "not-due"}', False),
        (0, '{"outcome": "promote"}', True),
        (3, "{}", True),
        (75, "", True),
    ],
)
def test_cron_mails_what_a_run_came_to_and_no_quiet_night(
    tmp_path: Path, status: int, said: str, mailed: bool
) -> None:
    program = tmp_path / "dapo"
    program.write_text(f"#!/bin/sh\necho working >&2\necho '{said}'\nexit {status}\n")
    program.chmod(0o755)
    command = cron("retune").split("  dapo  ", 1)[1]
    command = command.replace("/opt/dapo/bin/dapo", str(program)).replace("/var/log/dapo", str(tmp_path))
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
    assert bool(done.stdout) is mailed
    assert done.stderr == "", "progress goes to the log"
    assert (tmp_path / "retune.log").read_text() == "working\n"
    if mailed:
        assert f"ended with {status}" in done.stdout
        assert said in done.stdout


def test_the_image_of_the_cron_job_has_what_retuning_imports() -> None:
    [container] = cronjob()["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]  # type: ignore[index]
    assert container["image"].startswith("dapo-inspection/trainer:")
    script = FOLDER.parent / "images" / "requirements.py"
    needed = subprocess.run(
        [sys.executable, str(script), "train"],
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = {re.split(r"[<>=\[]", line)[0] for line in needed.splitlines()}
    assert {"torch", "open_clip_torch", "scikit-learn", "scipy", "kafka-python"} <= names
    assert "dapo-inspection" not in names, "which no index has"
