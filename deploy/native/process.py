"""One process by its identity: number, start time and boot, so that a number used again is never mistaken for it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_POLL_S = 0.02  # between two looks: far below every deadline here, and cheap


@dataclass(frozen=True, slots=True)
class Process:
    """A process and the group that it leads.

    Args:
        pid: its number.
        started: clock ticks from boot to its start.
        boot: id of the boot in which it was started.
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Identity of a running process.

        Raises:
            ProcessLookupError: there is none with this number.
        """
        found = _state(pid)
        if found is None:
            raise ProcessLookupError(pid)
        return cls(pid, found[1], _boot())

    def alive(self) -> bool:
        """Whether it still runs. A child that has ended is reaped here."""
        found = _state(self.pid)
        if found is None or found[1] != self.started or _boot() != self.boot:
            return False
        if found[0] in "ZX":
            with suppress(ChildProcessError):  # not our child, or reaped before
                os.waitpid(self.pid, os.WNOHANG)
            return False
        return True

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to its whole group; False: it runs no more, and nothing was sent."""
        if not self.alive():
            return False
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def paused(self) -> bool:
        """Whether all of its threads have taken a SIGSTOP, which on a busy machine is a moment later."""
        threads = [int(path.name) for path in Path(f"/proc/{self.pid}/task").glob("*")]
        states = [_state(thread) for thread in threads]
        return bool(states) and all(state is None or state[0] == "T" for state in states)

    def wait(self, seconds: float) -> bool:
        """Wait for its end; False: it still runs."""
        return wait_until(lambda: not self.alive(), seconds)


def spawn(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """Start a program in a session of its own, so that it outlives us; its output is appended to `log`.

    Raises:
        OSError: the program can't be started, or the log can't be written.
    """
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        command[0],
        list(command),
        dict(environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGPIPE,
        ],  # Python ignores SIGPIPE; servers do not expect it
    )
    return Process.of(pid)


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = _POLL_S) -> bool:
    """Look until the condition holds or the time is over; returns whether it holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(pause)
    return True


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _state(pid: int) -> tuple[str, int] | None:
    """(state letter, start in clock ticks) of a process, or None."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name may hold spaces and brackets; the fields after the last bracket do not. `man 5 proc`.
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])
