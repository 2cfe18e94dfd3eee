"""What is done of a long measurement, in one JSON file: the same call goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dapo.errors import OutputError
from pipeline.atomic import explained, write_whole
from pipeline.cli.terminal import errors


class Kept:
    """Pieces of a measurement by name.

    Args:
        path: of the file; its folder is made.
        setup: what all pieces share, as plain data; pieces of another setup are not taken for ours.
        total: how many there will be, for the line that is told after each.

    Raises:
        OutputError: the file is of another setup, none of ours, or can't be written.
    """

    def __init__(self, path: Path, setup: Mapping[str, Any], total: int) -> None:
        self._path, self._total = path, total
        self._setup = json.loads(json.dumps(setup))
        self._pieces: dict[str, Any] = {}
        self._told, self._done, self._begun = 0, 0, time.monotonic()
        with explained(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return
        try:
            document = json.loads(path.read_bytes())
            setup, self._pieces = document["setup"], dict(document["pieces"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{path}: can't be gone on from ({error}). Remove it.") from error
        if setup != self._setup:
            raise OutputError(f"{path}: is of other data or options. Give another --out, or remove it.")

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """A piece as plain data: what was kept, or what `work` says now."""
        new = name not in self._pieces
        if new:
            self._pieces[name] = json.loads(json.dumps(work()))
            with write_whole(self._path) as file:
                file.write(json.dumps({"setup": self._setup, "pieces": self._pieces}, indent=1).encode())
        self._told, self._done = self._told + 1, self._done + new
        spent = self.minutes
        left = f", {spent / self._done * (self._total - self._told):.0f} min left" if self._done else ""
        said = "done" if new else "known"
        errors().print(
            f"{self._told} of {self._total} {said} after {spent:.1f} min{left}: {name}",
            markup=False,
            highlight=False,
        )
        return self._pieces[name]

    @property
    def minutes(self) -> float:
        """Since the start of this call."""
        return (time.monotonic() - self._begun) / 60
