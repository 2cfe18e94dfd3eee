"""What cron, systemd and Kubernetes call is what the program understands."""

from __future__ import annotations

import re
import shlex
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


def calls() -> dict[str, list[str]]:
    """Arguments of `dapo` by where they stand."""
    found = {path.name: shlex.split(unit(path)["Service"]["ExecStart"])[1:] for path in UNITS}
    lines = (FOLDER / "crontab").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if called := re.search(r"/bin/dapo (.+?) 2>>", line):
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
    assert rules[0]["onExitCodes"]["values"] == [1, 2, 3]
    assert cronjob()["spec"]["concurrencyPolicy"] == "Forbid"  # type: ignore[index]


def test_cron_runs_in_the_night_of_the_first_saturday_as_the_timer_does() -> None:
    lines = [line for line in (FOLDER / "crontab").read_text().splitlines() if "retune --from" in line]
    assert len(lines) == 1
    assert lines[0].startswith("0 2 1-7 * *  dapo  ")
    assert r'test "$(date +\%u)" = 6' in lines[0], "cron takes a bare % for the end of the command"
    assert unit(FOLDER / "dapo-retune.timer")["Timer"]["OnCalendar"] == "Sat *-*-01..07 02:00"
