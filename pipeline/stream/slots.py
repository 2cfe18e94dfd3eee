"""A stable name for each worker of a host: the lowest number that no live process holds.

A worker that was killed leaves its lock, so the next one takes the same name, and with it the transaction that was open.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import tempfile
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
        SettingsError: the given name is held by a live process of this host, or all numbers are.
    """

    def __init__(self, group: str, given: str = "") -> None:
        folder = Path(tempfile.gettempdir()) / f"dapo-inspection-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", group)
        names = [given] if given else [f"{socket.gethostname()}-{number}" for number in range(_MAX_SLOTS)]
        for name in names:
            file = open(folder / f"{safe}.{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}.lock", "a")  # noqa: SIM115 - held
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
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
