"""What a machine needs to run the servers, what of it is missing, and the command that mends each."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dapo.errors import DapoError
from deploy.native.cache import installed, servers_folder
from deploy.native.envfile import MODE, NAME
from deploy.native.line import DEFAULT, SERVERS, running
from deploy.native.ports import HOST, PortTaken, free_ports
from deploy.native.tools import (
    GO,
    JAVA,
    JAVA_NEEDED,
    LIBPYTHON_MEND,
    MAVEN,
    Tool,
    ToolMissing,
    java,
    java_version,
    libpython,
    python_version,
)

_SHARED_MEMORY = Path("/dev/shm")
_SHARED_MEMORY_BYTES = 64 * 2**20  # of a Python model with its queues; Docker's default size, too
_BUILD_BYTES = 6 * 2**30  # Go's sources and objects of MinIO are most of it
_RUN_BYTES = 1 * 2**30  # logs, and topics of a demo
_STUBS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")  # Pythons that Triton's backend was built for
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Args:
        name: what.
        ok: whether it is as it should be.
        found: what is there.
        mend: the command, or what to do; empty where nothing is to be done.
        needed: whether the servers can't be run without it.
    """

    name: str
    ok: bool
    found: str
    mend: str = ""
    needed: bool = True


def examine(state: Path) -> list[Check]:
    """All checks, each with its finding; nothing is changed.

    Args:
        state: the state folder of `dapo up`.
    """
    present = {name: installed(kind.package()) is not None for name, kind in SERVERS.items()}
    to_build = not all(present[name] for name in DEFAULT)
    return [
        _system(),
        _python(),
        Check(
            "pip",
            importlib.util.find_spec("pip") is not None,
            sys.executable,
            f"{sys.executable} -m ensurepip",
        ),
        _libpython(),
        _java(),
        _tool(MAVEN, "kafka", present["kafka"]),
        _tool(GO, "minio", present["minio"]),
        _disk("disk of the cache", servers_folder(), _BUILD_BYTES if to_build else 0),
        _disk("disk of the state", state, _RUN_BYTES),
        _disk(
            "shared memory", _SHARED_MEMORY, _SHARED_MEMORY_BYTES, "sudo mount -o remount,size=1g /dev/shm"
        ),
        _ports(),
        *_servers(present),
        *_state(state),
    ]


def _system() -> Check:
    found = f"{platform.system()} {platform.machine()}"
    mend = "the servers run on Linux: start them there, and name them by DAPO_KAFKA__BOOTSTRAP, DAPO_TRITON__URL, ..."
    return Check(
        "system", platform.system() == "Linux" and platform.machine() in ("x86_64", "aarch64"), found, mend
    )


def _python() -> Check:
    return Check(
        "python",
        python_version() in _STUBS,
        f"{python_version()}, {sys.executable}",
        f"Triton runs models on Python {_STUBS[0]} to {_STUBS[-1]}: make setup PYTHON=python{_STUBS[-1]}",
    )


def _libpython() -> Check:
    try:
        return Check("libpython", True, str(libpython()))
    except ToolMissing:
        return Check("libpython", False, "not found", LIBPYTHON_MEND)


def _java() -> Check:
    try:
        return Check("java", True, f"{java()}, version {java_version()}")
    except ToolMissing:
        return Check(
            "java",
            False,
            f"version {java_version()}, {JAVA_NEEDED} is needed" if JAVA.find() else "not on PATH",
            JAVA.mend,
        )


def _tool(tool: Tool, server: str, present: bool) -> Check:
    found = tool.find()
    if found is None and present:
        return Check(tool.name, True, f"not on PATH; not needed, {server} is installed")
    return Check(tool.name, found is not None, found or f"not on PATH; installs {server}", tool.mend)


def _disk(
    name: str, folder: Path, needed: int, mend: str = "free some space there, or choose another folder"
) -> Check:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    return Check(
        name, free >= needed, f"{free // _MIB} MiB free in {folder}, {needed // _MIB} MiB needed", mend
    )


def _ports() -> Check:
    try:
        free_ports(sum(len(SERVERS[name].PORTS) for name in DEFAULT))
    except PortTaken as error:
        return Check("ports", False, str(error), "ss -ltnp")
    return Check("ports", True, f"enough free ones on {HOST}")


def _servers(present: dict[str, bool]) -> Iterator[Check]:
    for name, kind in SERVERS.items():
        only = "" if name in DEFAULT else f" --only {name}"
        found = str(servers_folder() / kind.package().key) if present[name] else "not installed yet"
        yield Check(f"{name} installed", present[name], found, f"dapo up{only}", needed=False)


def _state(state: Path) -> Iterator[Check]:
    try:
        names = [server.NAME for server in running(state)]
    except DapoError as error:
        yield Check("running", False, str(error), "ss -ltnp")
        names = []
    else:
        yield Check("running", bool(names), ", ".join(names) or "no server", "dapo up", needed=False)
    path = state / NAME
    if not path.exists():
        yield Check("environment", False, f"no {path}", "dapo up", needed=False)
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    yield Check("environment", mode == MODE, f"{path}, mode {mode:o}", f"chmod {MODE:o} {path}")
