"""Installed servers: one folder a version in the user's cache, whole or not there at all.

An installer fills a hidden folder beside the final one; only when it is done and checked does it get its name. A
lock file keeps a second process waiting instead of building the same twice; the system lets go of it when its holder
dies, whichever way.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dapo.errors import DapoError
from deploy.native.progress import Progress
from pipeline.atomic import explained, write_whole

MANIFEST = "installed.json"  # relative path -> size in bytes, of all that was installed


class InstallError(DapoError):
    """A server could not be installed."""


@dataclass(frozen=True, slots=True)
class Package:
    """A server's program files.

    Args:
        name: kebab-case, first part of the folder's name.
        version: second part: a new version never touches the old one's folder.
        build: fills the empty folder it is given. It may run for minutes and reports what it does.
        needs: paths in that folder without which it is no installation.
        size: of the download and the build, in words, for who waits.
    """

    name: str
    version: str
    build: Callable[[Path, Progress], None]
    needs: tuple[str, ...]
    size: str

    @property
    def key(self) -> str:
        """Name of its folder."""
        return f"{self.name}-{self.version}"


def servers_folder() -> Path:
    """Where servers are installed: below XDG_CACHE_HOME, else ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "dapo-inspection" / "servers"


def installed(package: Package) -> Path | None:
    """Folder of an intact installation, or None: every file is there with the size it was installed with."""
    folder = servers_folder() / package.key
    try:
        sizes: dict[str, int] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        intact = all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return None
    return folder if intact else None


def install(package: Package, progress: Progress) -> Path:
    """Folder of the installation, built first where there is none or where it was damaged.

    Raises:
        InstallError: the build left something out.
        ToolMissing, ToolFailed: a program that the build needs is missing, or failed.
        OutputError: the cache can't be written.
    """
    # Step 1: the usual case costs a few hundred stat calls and no lock.
    found = installed(package)
    if found is not None:
        return found
    folder = servers_folder() / package.key
    partial = folder.with_name(f".{package.key}.partial")
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(
        folder.with_name(f".{package.key}.lock"),
        lambda: progress.step("another process installs it; waiting"),
    ):
        # Step 2: who waited for the lock finds what the other one built.
        found = installed(package)
        if found is not None:
            return found
        # Step 3: build beside, check, write the manifest, rename.
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        started = time.monotonic()
        progress.step(f"installing {package.name} {package.version} ({package.size})")
        try:
            package.build(partial, progress)
            missing = [name for name in package.needs if not (partial / name).exists()]
            if missing:
                raise InstallError(
                    f"{package.key}: the installation holds no {', '.join(missing)}. A mirror may serve another version:"
                    " check the package manager's settings, then run 'dapo up' again."
                )
            sizes = {
                str(path.relative_to(partial)): path.stat().st_size
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            }
            with write_whole(partial / MANIFEST) as file:
                file.write(json.dumps(sizes, indent=0).encode())
            with explained(folder):
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        progress.step(f"installed {package.name} {package.version} in {time.monotonic() - started:.0f} s")
    return folder


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock on a file that stays; `waiting` is called once where another process has it."""
    with explained(path), open(path, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
