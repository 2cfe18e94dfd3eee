"""The command line `dapo`. Subcommands plug in through the entry-point group `dapo.commands`."""

from __future__ import annotations

import sys
import tempfile
import traceback
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any

import typer
from rich.console import Console

from dapo.errors import DapoError, Fenced
from pipeline.cli.terminal import errors

GROUP = "dapo.commands"
USAGE = 2  # exit status of a user's mistake
SOFTWARE = 70  # EX_SOFTWARE of sysexits.h: a fault of this program, never to be taken for "defects found" (1)
FENCED = 5  # two processes share one slot: a supervisor that starts this one again makes it worse
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
# Base of wrong options and arguments. Typer carries a click of its own and does not export the class.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]
_EXTRAS = {
    "torch": "model",
    "open_clip": "model",
    "torchvision": "model",
    "sklearn": "train",
    "openvino": "model",
    "scipy": "model",
}


def build() -> typer.Typer:
    """The application with every subcommand that is installed."""
    app = typer.Typer(
        help="Inspect photographs, videos and lines: defects, their type and their mask.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def root(
        show_version: bool = typer.Option(
            False, "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
        ),
    ) -> None:
        """Nothing to do before a command."""

    for command in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        command.load()(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"dapo {version('dapo-inspection')}")
        except PackageNotFoundError:
            print("dapo (not installed)")
        raise typer.Exit


def main() -> None:
    """Entry point: a user's mistake is one message and exit status 2, a fault of the program one and 70."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: list[str]) -> int:
    """Run a command line and return its exit status."""
    told = errors()
    try:
        if not entry_points(group=GROUP):
            raise DapoError(
                "no commands are installed: run 'make setup', or 'pip install -e .' in the project's folder."
            )
        result = build()(args=arguments, prog_name="dapo", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except _USAGE_ERROR as error:
        error.show()
        return int(error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away (`dapo types | head`): that is no error, and nothing is left to flush.
        sys.stdout = None
        return 0
    except Fenced as error:
        told.print(f"error: {error}")
        return FENCED
    except DapoError as error:
        told.print(f"error: {error}")
        return USAGE
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            return _fault(error, told)
        told.print(f"error: this command needs {error.name}: pip install 'dapo-inspection[{extra}]'")
        return USAGE
    except Exception as error:
        # The last net: whatever it is, a script gets one message and one status.
        return _fault(error, told)


def _fault(error: Exception, told: Console) -> int:
    """One message for what nobody foresaw; the stack trace goes to a file, to be sent along."""
    trace = "".join(traceback.format_exception(error))
    said = f"error: unexpected {type(error).__name__}: {' '.join(str(error).split())[:400]}"
    try:
        number, path = tempfile.mkstemp(prefix="dapo-error-", suffix=".txt")
        with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(trace)
        told.print(
            f"{said}\nThis is a fault of the program. Please report it with {path}, which says where it was."
        )
    except OSError:
        told.print(f"{said}\n{trace}")
    return SOFTWARE


if __name__ == "__main__":
    main()
