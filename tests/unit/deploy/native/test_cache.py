"""Installed servers: whole or not there at all, built once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from deploy.native.cache import InstallError, Package, install, installed, servers_folder
from deploy.native.tools import ToolFailed, run_tool


class Said:
    """Progress that is kept."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.details: list[str] = []

    def step(self, line: str) -> None:
        self.steps.append(line)

    def detail(self, line: str) -> None:
        self.details.append(line)


class Builder:
    """A fake installer that counts its calls and can be made to wait or to fail."""

    def __init__(self, fail: Exception | None = None, content: bytes = b"program") -> None:
        self.calls = 0
        self.fail, self.content = fail, content
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def __call__(self, folder: Path, progress: object) -> None:
        self.calls += 1
        (folder / "bin").mkdir()
        (folder / "bin" / "server").write_bytes(self.content)
        self.entered.set()
        assert self.go_on.wait(10)
        if self.fail:
            raise self.fail


def package(builder: Builder, version: str = "1.0", needs: tuple[str, ...] = ("bin/server",)) -> Package:
    return Package("fake", version, builder, needs, "a few bytes")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_it_lies_below_the_users_cache(tmp_path, monkeypatch):
    assert servers_folder() == tmp_path / "dapo-inspection" / "servers"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert servers_folder() == Path("/home/someone/.cache/dapo-inspection/servers")


def test_it_is_built_once_and_found_from_then_on():
    builder, said = Builder(), Said()
    assert installed(package(builder)) is None
    folder = install(package(builder), said)
    assert folder == servers_folder() / "fake-1.0"
    assert (folder / "bin" / "server").read_bytes() == b"program"
    assert "installing fake 1.0" in said.steps[0]
    assert "installed fake 1.0" in said.steps[-1]
    assert install(package(builder), Said()) == folder
    assert installed(package(builder)) == folder
    assert builder.calls == 1


def test_each_version_has_its_own_folder():
    one, two = Builder(content=b"1"), Builder(content=b"2")
    first, second = install(package(one, "1.0"), Said()), install(package(two, "2.0"), Said())
    assert first != second
    assert (first / "bin" / "server").read_bytes() == b"1"
    assert (second / "bin" / "server").read_bytes() == b"2"


def test_a_build_that_fails_leaves_nothing_and_the_next_one_starts_anew():
    with pytest.raises(RuntimeError, match="network"):
        install(package(Builder(fail=RuntimeError("network"))), Said())
    assert installed(package(Builder())) is None
    assert [path.name for path in servers_folder().iterdir()] == [".fake-1.0.lock"]
    assert install(package(Builder()), Said()).is_dir()


def test_what_a_killed_build_left_is_not_taken_for_an_installation():
    partial = servers_folder() / ".fake-1.0.partial"
    (partial / "bin").mkdir(parents=True)
    (partial / "bin" / "server").write_bytes(b"half")
    builder = Builder()
    assert (install(package(builder), Said()) / "bin" / "server").read_bytes() == b"program"
    assert builder.calls == 1
    assert not partial.exists()


@pytest.mark.parametrize("damage", ["cut", "removed", "no manifest"])
def test_a_damaged_installation_is_built_again(damage):
    builder = Builder()
    folder = install(package(builder), Said())
    program = folder / "bin" / "server"
    if damage == "cut":
        program.write_bytes(b"pro")
    elif damage == "removed":
        program.unlink()
    else:
        (folder / "installed.json").unlink()
    assert installed(package(builder)) is None
    install(package(builder), Said())
    assert program.read_bytes() == b"program"
    assert builder.calls == 2


def test_a_build_without_the_program_is_refused():
    with pytest.raises(InstallError, match=r"fake-1\.0: the installation holds no lib/needed\.jar"):
        install(package(Builder(), needs=("bin/server", "lib/needed.jar")), Said())
    assert installed(package(Builder())) is None


def test_a_second_one_waits_and_takes_what_the_first_built():
    builder, said = Builder(), Said()
    builder.go_on.clear()
    folders: list[Path] = []
    first = threading.Thread(target=lambda: folders.append(install(package(builder), Said())))
    first.start()
    assert builder.entered.wait(10)
    waits = threading.Event()

    class Waiting(Said):
        def step(self, line: str) -> None:
            super().step(line)
            waits.set()

    said = Waiting()
    second = threading.Thread(target=lambda: folders.append(install(package(builder), said)))
    second.start()
    assert waits.wait(10)
    builder.go_on.set()
    first.join(10)
    second.join(10)
    assert folders == [servers_folder() / "fake-1.0"] * 2
    assert builder.calls == 1
    assert said.steps == ["another process installs it; waiting"]


def test_a_tools_output_is_told_line_by_line_and_its_end_in_the_error():
    said = Said()
    run_tool(["/bin/sh", "-c", "echo one; echo two >&2"], said)
    assert sorted(said.details) == ["one", "two"]
    with pytest.raises(ToolFailed, match=r"(?s)/bin/sh.*failed with status 3.*no route to host"):
        run_tool(["/bin/sh", "-c", "echo no route to host; exit 3"], said)
