"""`dapo up`, `dapo down`, `dapo doctor`: the servers of a line on this machine, without containers."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.status import Status
from rich.text import Text

from deploy.native.doctor import Check, examine
from deploy.native.envfile import NAME
from deploy.native.line import DEFAULT, SERVERS, Up, down, state_folder, up

_STATE = typer.Option(
    None,
    "--state",
    help="Folder for data, logs and the environment file.",
    show_default="one in ~/.local/state",
)
_DETAIL_CHARACTERS = 80  # of a build's line, beside the spinner


def register(app: typer.Typer) -> None:
    """Add `up`, `down` and `doctor`."""
    app.command(name="up")(up_command)
    app.command(name="down")(down_command)
    app.command(name="doctor")(doctor_command)


def up_command(
    only: str = typer.Option(
        ",".join(DEFAULT), "--only", help=f"Which, separated by commas: {', '.join(SERVERS)}."
    ),
    state: Path | None = _STATE,
) -> None:
    """Install what is missing (minutes, once) and start the servers on loopback; they outlive this command."""
    folder = (state or state_folder()).absolute()
    names = list(dict.fromkeys(name.strip() for name in only.split(",") if name.strip()))
    with _shown() as progress:
        servers = up(names, folder, progress)
    if not any(each.fresh for each in servers):
        print("already up")
    print("\n".join(_table(servers)))
    print(f"\nsource {shlex.quote(str(folder / NAME))}")


def down_command(
    state: Path | None = _STATE,
    delete: bool = typer.Option(False, "--delete", help="Also remove their data, models and logs."),
) -> None:
    """Stop the servers that 'dapo up' started; their data and addresses stay for the next time."""
    folder = (state or state_folder()).absolute()
    with _shown() as progress:
        stopped = down(folder, progress, delete=delete)
    print(f"stopped {', '.join(stopped)}" if stopped else "no server ran")
    if delete:
        print(f"removed what they kept in {folder}")


def doctor_command(state: Path | None = _STATE) -> int:
    """Say what is missing to run the servers, and the command that mends it; exit status 1 where it is needed."""
    checks = examine((state or state_folder()).absolute())
    print("\n".join(line for check in checks for line in _lines(check)))
    return int(any(check.needed and not check.ok for check in checks))


def _table(servers: list[Up]) -> list[str]:
    rows = [
        ("server", "address", "log"),
        *((up.server.NAME, up.server.address, str(up.server.log)) for up in servers),
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [f"{name:<{widths[0]}}  {address:<{widths[1]}}  {log}" for name, address, log in rows]


def _lines(check: Check) -> Iterator[str]:
    word = "ok" if check.ok else "MISSING" if check.needed else "not yet"
    yield f"{word:<8} {check.name:<20} {check.found}"
    if not check.ok:
        yield f"{'':<8} {'':<20} -> {check.mend}"


class _Lines:
    """Progress on stderr: steps as lines, and in a terminal the last line of a build beside a spinner."""

    def __init__(self, console: Console, status: Status | None) -> None:
        self._console, self._status = console, status

    def step(self, line: str) -> None:
        self._console.print(line)
        if self._status:
            self._status.update("")

    def detail(self, line: str) -> None:
        if self._status:
            self._status.update(Text(line[:_DETAIL_CHARACTERS]))  # "[INFO]" is no markup


@contextmanager
def _shown() -> Iterator[_Lines]:
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    if not console.is_terminal:
        yield _Lines(console, None)
        return
    with console.status("") as status:
        yield _Lines(console, status)
