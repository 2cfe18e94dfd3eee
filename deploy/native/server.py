"""What all native servers have in common: a folder, fixed ports, a log, and a way to start, stop and kill them.

    with KafkaServer(folder) as kafka:
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
        kafka.kill()       # SIGKILL, as a power cut has it
        kafka.restart()    # same address, same data

A server runs in a session of its own. `start` returns when it answers, not before. Whoever starts one stops it; who
wants it to outlive the process (`dapo up`) just leaves it, and another one finds it again with `attach`.
"""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from dapo.errors import DapoError
from deploy.native.cache import Package, install
from deploy.native.ports import PortTaken, free_ports, is_free
from deploy.native.process import Process, spawn, wait_until
from deploy.native.progress import Progress, Silent
from deploy.native.record import Record, read_record, write_record
from pipeline.atomic import explained

_LAST_LINES = 20  # of the log, in an error
_KILL_S = 10.0  # the kernel ends a killed process at once; longer means a disk that does not answer
_FREED_S = 5.0  # sockets of a group that was killed are closed by then


class ServerError(DapoError):
    """A server does not start, or does not stop; the message holds the last lines of its log."""


class Server(ABC):
    """A server process on the loopback interface.

    Args:
        folder: for its data, settings and log; made if needed. One server a folder.
        ports: name -> port, for some or all of `PORTS`; the others are picked, once: they stay over restarts.
    """

    NAME: ClassVar[str]
    PORTS: ClassVar[tuple[str, ...]]
    START_S: ClassVar[float] = 60.0  # until it answers; on busy machines several times its usual start
    STOP_S: ClassVar[float] = 20.0  # from SIGTERM to SIGKILL

    def __init__(self, folder: Path, ports: Mapping[str, int] | None = None) -> None:
        given = dict(ports or {})
        unknown = given.keys() - set(self.PORTS)
        if unknown:
            raise ServerError(
                f"{self.NAME} has no port '{', '.join(sorted(unknown))}', only {', '.join(self.PORTS)}."
            )
        missing = [name for name in self.PORTS if name not in given]
        self.folder = folder.absolute()
        self.ports: dict[str, int] = given | dict(zip(missing, free_ports(len(missing)), strict=True))
        self.process: Process | None = None

    @classmethod
    @abstractmethod
    def package(cls) -> Package:
        """What has to be installed."""

    @abstractmethod
    def prepare(self, installed: Path) -> None:
        """Write settings and set up the data folder; called before every start, so it must be idempotent."""

    @abstractmethod
    def command(self, installed: Path) -> Sequence[str]:
        """Program, by its absolute path, and arguments. No secrets: other users see arguments."""

    @abstractmethod
    def healthy(self) -> bool:
        """One short look (under 5 s) whether it answers as it should. Never raises for a server that is down."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where clients connect, for people."""

    @abstractmethod
    def client_environment(self) -> dict[str, str]:
        """Variables that tell `dapo` where this server is, with its credentials."""

    def environment(self, installed: Path) -> dict[str, str]:
        """Of the process. Secrets belong here."""
        return dict(os.environ)

    def cleanup(self) -> None:
        """Remove what a killed process leaves outside of its group and folder; called when it has ended."""
        return

    @property
    def log(self) -> Path:
        """Its output, appended to over restarts."""
        return self.folder / f"{self.NAME}.log"

    @property
    def pid(self) -> int:
        """Number of its process.

        Raises:
            ServerError: it was not started.
        """
        return self._process().pid

    @property
    def running(self) -> bool:
        """Whether its process lives (it may be paused)."""
        return self.process is not None and self.process.alive()

    def start(self, progress: Progress | None = None) -> Self:
        """Install if needed, start, and return when it answers.

        Raises:
            PortTaken: another program listens on one of its ports.
            ServerError: it ended, or did not answer in `START_S`. It does not run then.
            InstallError, ToolMissing, ToolFailed: it can't be installed.
        """
        if self.running:
            return self
        installed = install(self.package(), progress or Silent())
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for name, port in self.ports.items():
            # Of a group that was just killed the last socket may close a moment later.
            if not wait_until(partial(is_free, port), _FREED_S):
                raise PortTaken(
                    f"{self.NAME}: port {port} ({name}) is in use by another program: 'ss -ltnp | grep {port}' names it."
                    " Stop it, or start the server on another port."
                )
        with explained(self.folder):
            self.prepare(installed)
            self.process = spawn(self.command(installed), self.environment(installed), self.log)
        try:
            # Before it answers: whatever happens to us now, `attach` finds it.
            write_record(self.folder, Record(self.process, self.ports))
            self._wait_healthy(self.process)
        except BaseException:
            self.kill()
            raise
        return self

    def attach(self) -> bool:
        """Take over what another program started in this folder; False: nothing of it runs any more."""
        record = read_record(self.folder)
        if record is None or not record.process.alive():
            return False
        self.process, self.ports = record.process, record.ports
        return True

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where it takes longer than `STOP_S`. A paused server is resumed for it.

        Raises:
            ServerError: not even SIGKILL ended it.
        """
        if self.process is not None:
            end(self.process, self.STOP_S)
        self.cleanup()

    def kill(self) -> None:
        """SIGKILL its whole process group; returns when it is gone. The data folder is as the crash left it.

        Raises:
            ServerError: it did not end.
        """
        if self.process is not None:
            end(self.process, 0.0)
        self.cleanup()

    def pause(self) -> None:
        """SIGSTOP: its connections stay open, nothing answers. Returns when it stands still.

        Raises:
            ServerError: it was not started, or does not run any more.
        """
        process = self._process()
        if not (process.signal(signal.SIGSTOP) and wait_until(process.paused, _KILL_S)):
            raise ServerError(
                f"{self.NAME} can't be paused: its process {process.pid} has ended. See {self.log}."
            )

    def resume(self) -> None:
        """SIGCONT."""
        self._process().signal(signal.SIGCONT)

    def restart(self) -> Self:
        """Stop it if it runs, and start it on the same ports and data."""
        self.stop()
        return self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _process(self) -> Process:
        if self.process is None:
            raise ServerError(f"{self.NAME} in {self.folder} was not started.")
        return self.process

    def _wait_healthy(self, process: Process) -> None:
        answered = False

        def settled() -> bool:
            nonlocal answered
            answered = self.healthy()
            return answered or not process.alive()

        wait_until(settled, self.START_S, pause=0.1)
        if answered:
            return
        ended = not process.alive()
        what = "ended while starting" if ended else f"did not answer within {self.START_S:.0f} s"
        raise ServerError(f"{self.NAME} {what}. {self._last_lines()}")

    def _last_lines(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        return f"The last lines of {self.log}:\n  " + "\n  ".join(lines)


def end(process: Process, patience: float) -> None:
    """SIGTERM to a process group, SIGKILL after `patience` seconds (0: at once).

    Raises:
        ServerError: not even SIGKILL ended it.
    """
    if patience > 0 and process.signal(signal.SIGTERM):
        process.signal(signal.SIGCONT)  # a paused process takes SIGTERM only when it goes on
        process.wait(patience)
    process.signal(signal.SIGKILL)
    if not process.wait(_KILL_S):
        raise ServerError(f"process {process.pid} does not end, {_KILL_S:.0f} s after SIGKILL: see 'dmesg'.")
