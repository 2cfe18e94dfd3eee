"""A stable name for each worker of a host: the lowest number that no live process holds.

A worker that was killed leaves its lock, so the next one takes the same name, and with it the transaction that was open.

Locks lie below XDG_STATE_HOME (~/.local/state): a service may have a temporary folder for itself (PrivateTmp of systemd),
and would then take a name that another one holds; and what is old is removed from such folders.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from dapo.errors import SettingsError

_MAX_SLOTS = 256


class Slot:
    """Holds the name until it is closed or the process ends, however it ends.

    Args:
        group: of the worker.
        given: a name chosen by the user (a StatefulSet's pod name); "" takes the first that is free on this host.

    Raises:
        SettingsError: the given name is held by a live process of this host, or all numbers are; or there is no place
            for locks.
    """

    def __init__(self, group: str, given: str = "") -> None:
        folder = _folder()
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", group)
        names = [given] if given else [f"{socket.gethostname()}-{number}" for number in range(_MAX_SLOTS)]
        for name in names:
            file = _locked(folder / f"{safe}.{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}.lock")
            if file is not None:
                self.name, self._file = name, file
                return
        raise SettingsError(
            f"worker.slot: {names[0]} is held by another worker of group '{group}' on this host. Give another name."
        )

    def close(self) -> None:
        """Let the name go."""
        self._file.close()

    _file: IO[str]

    def __enter__(self) -> Slot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _folder() -> Path:
    folder = (
        Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        / "dapo-inspection"
        / "slots"
    )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"{folder}: can't be made: {error.strerror}. Let XDG_STATE_HOME name a folder for the locks of workers,"
            " the same for all workers of this host."
        ) from error
    return folder


def _locked(path: Path) -> IO[str] | None:
    """The file, locked for as long as it is open; None where another process holds it."""
    while True:
        try:
            file = open(path, "a")  # noqa: SIM115 - held
        except OSError as error:
            raise SettingsError(
                f"{path}: can't be opened: {error.strerror}. Remove it, or let XDG_STATE_HOME name another folder."
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # it was removed before it was locked: nobody else would meet this lock
