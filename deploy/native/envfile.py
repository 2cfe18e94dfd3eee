"""The environment file: where the servers are and how one logs in. `source` it, then every `dapo` command finds them.

The only place of secrets: mode 0600 from the first byte on.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from dapo.errors import DapoError
from pipeline.atomic import write_whole

NAME = "dapo.env"
MODE = 0o600


class EnvironmentFileError(DapoError):
    """An environment file can't be read."""


def write_environment(path: Path, values: Mapping[str, str]) -> None:
    """Replace the file.

    Raises:
        OutputError: it can't be written.
    """
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in values.items()]
    with write_whole(path) as file:
        os.fchmod(file.fileno(), MODE)  # before anything is in it
        file.write("".join(lines).encode())


def read_environment(path: Path) -> dict[str, str]:
    """Name -> value of all that the file exports; nothing where there is no file.

    Raises:
        EnvironmentFileError: it is there and can't be read.
    """
    if not path.exists():
        return {}
    try:
        words = shlex.split(path.read_text(encoding="utf-8"), comments=True)
    except (OSError, ValueError) as error:
        raise EnvironmentFileError(
            f"{path}: can't be read: {error}. Remove it, then run 'dapo up' again."
        ) from error
    return dict(word.split("=", 1) for word in words if "=" in word)
