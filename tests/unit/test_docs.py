"""What the documents tell a reader to type is what the programs take."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

import pipeline.cli as cli
from pipeline.settings import SECRET_FILES, keys

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Commands that need no server; those for another encoder than the bundled one need a network.
QUICK = {"run", "calibrate", "types", "config", "pack"}
FOLDERS = ("FOLDER", "GOOD_FOLDER")  # how the documents call a reader's own photographs
_FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^ {4}(\S.*)$", re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_ENDS = ("|", ">", "<", ";", "&&", "&")


def lines_of(document: Path) -> list[str]:
    """Lines of the code blocks, fenced or indented; a backslash continues one."""
    text = document.read_text(encoding="utf-8")
    blocks = "\n".join([*_FENCED.findall(text), *_INDENTED.findall(_FENCED.sub("", text))])
    return [line.strip() for line in blocks.replace("\\\n", " ").splitlines() if line.strip()]


def spans_of(document: Path) -> list[str]:
    """Commands named in running text."""
    return _SPAN.findall(_FENCED.sub("", document.read_text(encoding="utf-8")))


def arguments_of(line: str, program: str) -> list[str] | None:
    """Arguments of `program` on a line, None where the line does not call it."""
    start = re.match(rf"(?:[A-Z_]+=\S* )*(?:\.venv/bin/)?{program}(?: |$)", line)
    if start is None:
        return None
    words = shlex.split(line[start.end() :], comments=True)
    ends = [index for index, word in enumerate(words) if word in _ENDS]
    return words[: ends[0]] if ends else words


def commands(program: str = "dapo") -> list[tuple[Path, list[str], bool]]:
    """(document, arguments, whether it is a line to type) of every command; `dapo run` in a sentence is a name only."""
    found = []
    for document in DOCUMENTS:
        for texts, typed in ((lines_of(document), True), (spans_of(document), False)):
            given = [(arguments_of(text, program), typed) for text in texts]
            found += [(document, arguments, typed) for arguments, typed in given if arguments is not None]
    return found


@pytest.fixture(autouse=True)
def declared(monkeypatch):
    """The commands that pyproject.toml declares, whatever is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entries = [
        EntryPoint(name, value, cli.GROUP) for name, value in project["entry-points"][cli.GROUP].items()
    ]
    monkeypatch.setattr(cli, "entry_points", lambda group: entries)


def parse(arguments: list[str], *, typed: bool) -> None:
    """Let the real command line read the arguments, and run nothing.

    A command that is only named in a sentence, without an argument, is complete.

    Raises:
        AssertionError: no such command, or its arguments are wrong.
    """
    command: Any = get_command(cli.build())
    said, rest = ["dapo"], list(arguments)
    while rest and rest[0] in getattr(command, "commands", {}):
        said.append(rest[0])
        command = command.commands[rest.pop(0)]
    is_group = hasattr(command, "commands")
    assert not (is_group and rest and not rest[0].startswith("-")), (
        f"{' '.join(said)} knows no command {rest[0]}"
    )
    if not rest and (is_group or not typed):
        return
    try:
        command.make_context(" ".join(said), rest)
    except typer.Exit:  # --help, --version
        return
    except cli._USAGE_ERROR as error:
        raise AssertionError(f"{shlex.join([*said, *rest])}: {error.format_message()}") from error


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_command_line_takes_what_the_documents_say(document):
    for where, arguments, typed in commands():
        if where == document:
            parse(arguments, typed=typed)


@pytest.mark.parametrize(
    "line",
    ["dapo runn FOLDER", "dapo run FOLDER --prodcut a", "dapo pack new --encoder ViT-B-16", "dapo pack make"],
)
def test_a_wrong_command_is_found(line):
    with pytest.raises(AssertionError):
        parse(arguments_of(line, "dapo"), typed=True)


def test_commands_are_found_wherever_they_stand(tmp_path):
    document = tmp_path / "page.md"
    document.write_text(
        "Say `dapo types` or\n\n```sh\nA=1 .venv/bin/dapo run X \\\n  --limit 2 | head\n```\n\n    dapo config  # all\n"
    )
    assert [arguments_of(line, "dapo") for line in lines_of(document)] == [
        ["run", "X", "--limit", "2"],
        ["config"],
    ]
    assert spans_of(document) == ["dapo types"]


def test_the_readmes_lines_run(tmp_path, monkeypatch, capfd):
    """In their order: later ones need what earlier ones made."""
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
        for sample in sorted((ROOT / "pipeline" / "samples").glob("*good.png"))[:2]:
            shutil.copy(sample, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    ran = set()
    for _, arguments, typed in commands():
        bundled = "--encoder" not in arguments or "dapo-tiny" in arguments
        served = arguments[:2] == ["types", "add"]  # on a running line
        if typed and arguments and arguments[0] in QUICK and bundled and not served:
            assert cli.invoke(arguments) == 0, f"dapo {shlex.join(arguments)}\n{capfd.readouterr().err}"
            ran.add(arguments[0])
    assert {"run", "calibrate"} <= ran
    assert (tmp_path / "my-run" / "report.html").exists()


def test_targets_and_modules_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {arguments[0] for _, arguments, _ in commands("make") if arguments}
    assert {"demo", "test", "encoder"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    modules = {arguments[0] for _, arguments, _ in commands("python -m") if arguments}
    for module in modules:
        assert importlib.util.find_spec(module) is not None, f"python -m {module}"


def test_settings_exist():
    known = {f"DAPO_{key.upper().replace('.', '__')}" for key in (*keys(), *SECRET_FILES)}
    for document in DOCUMENTS:
        named = set(re.findall(r"DAPO_[A-Z]+__[A-Z_]+", document.read_text(encoding="utf-8")))
        assert named <= known, document
