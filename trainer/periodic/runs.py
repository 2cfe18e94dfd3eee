"""Folders of retunings that nobody watches: one for each run, with all that came of it.

    OUT/2026-11-29T020000Z/run.json        what the run began with
                           retuned.pack, report.html, retune.json, test.json, gate.html, gate.json
                           outcome.json    what came of it; while it is missing, the run is not done

A run that was stopped is gone on with by the next call, with the frames and labels that it began with. One that began with
another champion, with other options, or long ago, is given up. So whoever calls every day, and begins a run every four weeks,
has each run gone on with the next day.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dapo.errors import OutputError
from pipeline.atomic import explained, write_whole

BEGAN, CAME = "run.json", "outcome.json"
_GIVEN_UP = "given-up"
_STALE = timedelta(days=2)
_EARLY = timedelta(hours=2)  # a timer does not fire to the second, nor a call of last time
_STAMP = "%Y-%m-%dT%H%M%SZ"


@dataclass(frozen=True)
class Run:
    """A run that is not done.

    Attributes:
        as_of: UTC; what was judged or said later is not looked at.
        resumed: whether an earlier call began it.
    """

    folder: Path
    as_of: datetime
    resumed: bool

    def file(self, name: str) -> Path:
        """Path of one of its files."""
        return self.folder / name

    def read(self, name: str) -> Any:
        """A JSON file of it; None where it is not there yet.

        Raises:
            OutputError: it can't be read.
        """
        return _read(self.file(name))

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file in one step.

        Raises:
            OutputError: it can't be written.
        """
        with write_whole(self.file(name)) as file:
            file.write(json.dumps(value, indent=1, allow_nan=False).encode())

    def forget(self) -> None:
        """It came to nothing, and another may begin as if it had not been."""
        with explained(self.folder):
            shutil.rmtree(self.folder)

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Say what came of it: the run is done."""
        self.write(CAME, outcome)


def begin(
    out: Path, champion: str, options: Mapping[str, Any], now: datetime, every: timedelta | None = None
) -> Run | None:
    """Go on with the run that is not done, or begin one.

    Args:
        out: folder of all runs.
        champion: configuration hash.
        options: what a run depends on, as plain data.
        now: UTC.
        every: a run is begun only so long after the last one that came to something was; None: always.

    Returns:
        The run; None where the last one was begun too short a time ago.

    Raises:
        OutputError: a folder or file can't be read or written.
    """
    setup = {"champion": champion, "options": json.loads(json.dumps(options))}
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
        open_ones = [path.parent for path in out.glob(f"*/{BEGAN}") if not (path.parent / CAME).exists()]
    for folder in sorted(open_ones):
        began = _read(folder / BEGAN) or {}
        run = Run(folder, _time(began.get("as_of"), folder), resumed=True)
        if folder == max(open_ones) and began.get("setup") == setup and now - run.as_of < _STALE:
            return run
        run.finish(
            {
                "outcome": _GIVEN_UP,
                "said": "it was stopped, and began with another champion, other options or long ago",
            }
        )
    if every is not None and any(now - done < every - _EARLY for done in _done(out)):
        return None
    run = Run(out / now.strftime(_STAMP), now, resumed=False)
    with explained(run.folder):
        run.folder.mkdir(exist_ok=True)
    run.write(BEGAN, {"as_of": now.isoformat(), "setup": setup})
    return run


def _done(out: Path) -> list[datetime]:
    """When runs were begun that came to something."""
    with explained(out):
        folders = [path.parent for path in out.glob(f"*/{CAME}") if (path.parent / BEGAN).exists()]
    return [
        _time((_read(folder / BEGAN) or {}).get("as_of"), folder)
        for folder in folders
        if (_read(folder / CAME) or {}).get("outcome") != _GIVEN_UP
    ]


def _read(path: Path) -> Any:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: can't be read ({error}). Remove {path.parent} to begin again.") from error


def _time(text: Any, folder: Path) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError) as error:
        raise OutputError(f"{folder / BEGAN}: says no time. Remove {folder} to begin again.") from error
