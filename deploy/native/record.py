"""Which process serves a folder, and on which ports: a file that `dapo down` finds the server by."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.native.process import Process
from pipeline.atomic import write_whole

FILE = "server.json"


@dataclass(frozen=True, slots=True)
class Record:
    """What was started in a folder. The process may have ended since, and its number may be another's now.

    Args:
        process: identity of the process that was started last.
        ports: name -> port, to come back under the same address.
    """

    process: Process
    ports: dict[str, int]


def write_record(folder: Path, record: Record) -> None:
    """Replace the folder's record.

    Raises:
        OutputError: it can't be written.
    """
    with write_whole(folder / FILE) as file:
        file.write(json.dumps(asdict(record)).encode())


def read_record(folder: Path) -> Record | None:
    """The folder's record; None: there is none, or nobody can read it."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return Record(Process(**found["process"]), {name: int(port) for name, port in found["ports"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
