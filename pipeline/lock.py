"""One run at a time in one folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dapo.errors import SettingsError
from pipeline.atomic import explained


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder while the block lasts; the system lets it go when the process ends, however it does.

    Raises:
        SettingsError: another run holds it.
    """
    with explained(folder):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network shares have no locks, which is no reason to refuse a run
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise SettingsError(
                    f"--out {folder}: another run is writing there. Wait for its end, or give another folder."
                ) from error
        yield
    finally:
        os.close(descriptor)
