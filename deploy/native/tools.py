"""Programs that the servers need from the system, and the command that installs each."""

from __future__ import annotations

import ctypes.util
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dapo.errors import DapoError
from deploy.native.progress import Progress

JAVA_NEEDED = 17  # Kafka 4 brokers run on Java 17 and newer
_LAST_LINES = 15  # of a failed command, shown to the user


class ToolMissing(DapoError):
    """A program or library of the system is missing; the message holds the command that installs it."""


class ToolFailed(DapoError):
    """A program ran and failed; the message holds its last lines."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program of the system.

    Args:
        name: as it is called on a command line.
        mend: the command that installs it.
    """

    name: str
    mend: str

    def find(self) -> str | None:
        """Its path, or None."""
        return shutil.which(self.name)

    def path(self) -> str:
        """Its path.

        Raises:
            ToolMissing: it is not on PATH.
        """
        found = self.find()
        if found is None:
            raise ToolMissing(f"'{self.name}' is not on PATH. Install it:  {self.mend}")
        return found


JAVA = Tool("java", "sudo apt-get install openjdk-17-jre-headless")
MAVEN = Tool("mvn", "sudo apt-get install maven")
GO = Tool(
    "go",
    "sudo apt-get install golang, or unpack a release of go.dev into /usr/local/go and put its bin on PATH",
)


def java_version() -> int | None:
    """Major version of the Java on PATH; None: there is none, or it does not say."""
    java = JAVA.find()
    if java is None:
        return None
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(\d+)', said)
    return int(match.group(1)) if match else None


def java() -> str:
    """Path of a Java that is new enough.

    Raises:
        ToolMissing: none is there, or it is too old.
    """
    path, version = JAVA.path(), java_version()
    if version is None or version < JAVA_NEEDED:
        raise ToolMissing(
            f"{path} is Java {version or 'of unknown version'}, {JAVA_NEEDED} is needed:  {JAVA.mend}"
        )
    return path


def python_version() -> str:
    """Of the running interpreter, as "3.11": Triton's Python models run in this one's environment."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


LIBPYTHON_MEND = (
    f"sudo apt-get install libpython{python_version()}, or with pyenv:"
    f"  PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force {python_version()}"
)


def libpython() -> Path:
    """Folder of libpython, or the library's bare name where the dynamic linker finds it by itself.

    Raises:
        ToolMissing: Triton's Python backend would not start.
    """
    name = f"libpython{python_version()}.so.1.0"
    folder = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    if (folder / name).exists():
        return folder
    if ctypes.util.find_library(f"python{python_version()}"):
        return Path(name)
    raise ToolMissing(f"{name} is neither in {folder} nor known to the linker. Install it:  {LIBPYTHON_MEND}")


def run_tool(
    command: Sequence[str],
    progress: Progress,
    *,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a program to its end, each line of its output reported as it comes.

    Raises:
        ToolFailed: its exit status is not 0.
    """
    lines: list[str] = []
    with subprocess.Popen(
        command,
        env=environment,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            progress.detail(lines[-1])
    if process.returncode != 0:
        last = "\n  ".join(lines[-_LAST_LINES:])
        raise ToolFailed(
            f"'{' '.join(command)}' failed with status {process.returncode}; its last lines:\n  {last}"
        )
