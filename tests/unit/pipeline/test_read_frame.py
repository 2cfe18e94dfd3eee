"""One file to a frame: what is too large, changes meanwhile, or is refused by the system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.decode import Limits
from pipeline.sources.read import read_frame
from pipeline.testing import encoded, surface

PICTURE = encoded(surface())
LIMITS = Limits(max_bytes=100_000)


def test_too_many_bytes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(bytes(LIMITS.max_bytes + 1))
    frame = read_frame(path, "x.png", "s", LIMITS)
    assert frame.error is not None
    assert frame.error[0] == "too-many-bytes"
    assert frame.data == b""


def test_a_file_that_keeps_changing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(PICTURE)
    real, times = os.fstat, [0]

    def growing(descriptor: int) -> os.stat_result:
        times[0] += 1
        with path.open("ab") as file:
            file.write(b"more")
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", growing)
    frame = read_frame(path, "x.png", "s", LIMITS, pause=0)
    assert frame.error is not None
    assert frame.error[0] == "changed-while-read"
    assert frame.data.startswith(PICTURE)
    assert times[0] >= 6


def test_a_file_that_settles_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(PICTURE[:100])
    real, times = os.fstat, [0]

    def once(descriptor: int) -> os.stat_result:
        times[0] += 1
        if times[0] == 2:
            path.write_bytes(PICTURE)
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", once)
    frame = read_frame(path, "x.png", "s", LIMITS, pause=0)
    assert frame.error is None
    assert frame.data == PICTURE


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (PermissionError(13, "Permission denied"), "no-permission"),
        (OSError(5, "Input/output error"), "unreadable"),
    ],
)
def test_what_the_system_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: OSError, code: str
) -> None:
    def refuse(*_: object) -> int:
        raise problem

    monkeypatch.setattr(os, "open", refuse)
    frame = read_frame(tmp_path / "x.png", "x.png", "s", LIMITS)
    assert frame.error is not None
    assert frame.error[0] == code
    assert "x.png" in frame.error[1]
