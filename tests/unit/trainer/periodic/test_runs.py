"""A run that was stopped is gone on with; one that began with something else is given up, and says so."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dapo.errors import OutputError
from trainer.periodic.runs import BEGAN, CAME, Run, begin

NOW = datetime(2026, 11, 1, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
A, B = "a" * 64, "b" * 64


def begun(out: Path, champion: str, options: dict[str, str], now: datetime) -> Run:
    found = begin(out, champion, options, now)
    assert found is not None
    return found


def test_a_stopped_run_goes_on_with_what_was_known_when_it_began(tmp_path: Path) -> None:
    first = begun(tmp_path, A, {"since": "30d"}, NOW)
    again = begun(tmp_path, A, {"since": "30d"}, NOW + HOUR)
    assert (again.folder, again.as_of) == (first.folder, NOW)
    assert (first.resumed, again.resumed) == (False, True)
    again.finish({"outcome": "refuse"})
    later = begun(tmp_path, A, {"since": "30d"}, NOW + 2 * HOUR)
    assert later.folder != first.folder
    assert later.as_of == NOW + 2 * HOUR
    assert json.loads((first.folder / CAME).read_text()) == {"outcome": "refuse"}


@pytest.mark.parametrize(
    ("champion", "options", "when"),
    [(B, {"since": "30d"}, HOUR), (A, {"since": "7d"}, HOUR), (A, {"since": "30d"}, timedelta(days=3))],
)
def test_a_run_that_began_otherwise_or_long_ago_is_given_up(
    tmp_path: Path, champion: str, options: dict[str, str], when: timedelta
) -> None:
    first = begun(tmp_path, A, {"since": "30d"}, NOW)
    other = begun(tmp_path, champion, options, NOW + when)
    assert other.folder != first.folder
    assert not other.resumed
    assert json.loads((first.folder / CAME).read_text())["outcome"] == "given-up"


def test_of_two_that_were_stopped_the_later_one_goes_on(tmp_path: Path) -> None:
    first = begun(tmp_path, A, {}, NOW)
    first.finish({})
    second = begun(tmp_path, A, {}, NOW + HOUR)
    (first.folder / CAME).unlink()
    assert begun(tmp_path, A, {}, NOW + 2 * HOUR).folder == second.folder
    assert json.loads((first.folder / CAME).read_text())["outcome"] == "given-up"


def test_files_are_read_back_and_missing_ones_are_none(tmp_path: Path) -> None:
    run = begun(tmp_path, A, {}, NOW)
    assert run.read("test.json") is None
    run.write("test.json", ["one"])
    assert run.read("test.json") == ["one"]


@pytest.mark.parametrize("text", ["no JSON", '{"as_of": 3}', "{}"])
def test_a_damaged_beginning_says_what_to_do(tmp_path: Path, text: str) -> None:
    run = begun(tmp_path, A, {}, NOW)
    (run.folder / BEGAN).write_text(text)
    with pytest.raises(OutputError, match="Remove"):
        begin(tmp_path, A, {}, NOW + HOUR)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        begin(tmp_path / "file" / "runs", A, {}, NOW)


def test_called_every_night_a_run_is_begun_every_four_weeks_and_a_stopped_one_gone_on_with(
    tmp_path: Path,
) -> None:
    every, day = timedelta(days=28), timedelta(days=1)
    late = timedelta(minutes=14)  # a timer may fire earlier than last time
    first = begin(tmp_path, A, {}, NOW + late, every)
    assert first is not None
    again = begin(tmp_path, A, {}, NOW + day, every)
    assert again is not None
    assert (again.folder, again.resumed) == (first.folder, True)
    again.finish({"outcome": "refuse"})
    for night in range(2, 28):
        assert begin(tmp_path, A, {}, NOW + night * day, every) is None
    next_one = begin(tmp_path, A, {}, NOW + every, every)
    assert next_one is not None
    assert not next_one.resumed


def test_a_run_that_was_given_up_is_made_up_for(tmp_path: Path) -> None:
    begun(tmp_path, A, {}, NOW)
    other = begin(tmp_path, B, {}, NOW + HOUR, timedelta(days=28))
    assert other is not None
    assert not other.resumed
