"""`dapo run` as a user meets it, with the bundled encoder: outputs, messages, exit statuses, Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from dapo.handwritten import make_handwritten_pack
from dapo.pack import set_threshold
from dapo.pack_io import write_pack
from pipeline.cli import invoke
from pipeline.record import read_results
from pipeline.testing import encoded, surface


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> str:
    from dapo.encoder import load_encoder

    path = tmp_path_factory.mktemp("pack") / "hand.pack"
    made = make_handwritten_pack(load_encoder("dapo-tiny", "bundled"), ["scratch", "hole", "stain"])
    write_pack(set_threshold(made, "strict", 0.0, 0.0), path)
    return str(path)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(encoded(surface(number, defect=number == 2)))
    return folder


def test_a_run_prints_a_table_and_where_the_report_is(
    photos: Path, pack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "notes.txt").write_text("x")
    assert invoke(["run", "photos", "--pack", pack, "--types", "hole,scratch"]) == 0
    printed = capsys.readouterr()
    assert "6 frames" in printed.out
    assert "report: dapo-out/report.html" in printed.out
    assert "not taken as frames: 1 .txt" in printed.err
    rows = list(read_results(Path("dapo-out")))
    assert [row.frame_id for row in rows] == [f"{n}.png" for n in range(6)]
    summary = json.loads(Path("dapo-out/summary.json").read_text())
    assert summary["frames"] == 6
    assert Path("dapo-out/report.html").stat().st_size > 1000


def test_exit_statuses(photos: Path, pack: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["run", "photos", "--pack", pack, "--overwrite", "--product", "strict"]
    assert invoke(run) == 0
    assert invoke([*run, "--fail-on-defect"]) == 1
    (photos / "bad.png").write_bytes(b"bad")
    assert invoke(run) == 3
    assert "1 frames could not be read" in capsys.readouterr().err
    assert invoke([*run, "--fail-on-defect"]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "no SOURCE"),
        (["run", "nowhere"], "no such file or folder"),
        (["run", "photos", "--pack", "none.pack"], "none.pack"),
        (["run", "photos", "--types", " , "], "no defect word"),
        (["run", "photos", "--list", "none.txt"], "can't be read"),
        (["run", "photos", "--batch", "0"], "run.batch"),
        (["run", "photos", "--out", "photos/0.png"], "photos/0.png"),
    ],
)
def test_mistakes_are_one_message(
    photos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert invoke(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_results_are_kept_unless_told(photos: Path, pack: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["run", "photos", "--pack", pack]
    assert invoke(run) == 0
    assert invoke(run) == 2
    assert "--resume" in capsys.readouterr().err
    assert invoke([*run, "--resume"]) == 0


def test_lists_and_stdin_name_frames(photos: Path, pack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("names.txt").write_text("1.png\ngone.png\n")
    assert invoke(["run", "photos", "--list", "names.txt", "--pack", pack, "--out", "a"]) == 3
    assert [row.frame_id for row in read_results(Path("a"))] == ["1.png", "gone.png"]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"photos/2.png\nphotos/3.png\n")))
    assert invoke(["run", "-", "--pack", pack, "--out", "b"]) == 0
    assert [row.frame_id for row in read_results(Path("b"))] == ["photos/2.png", "photos/3.png"]


def test_unknown_words_and_products_are_told(
    photos: Path, pack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["run", "photos/1.png", "--pack", pack, "--types", "wobbliness", "--product", "cup"]) == 0
    error = capsys.readouterr().err
    assert "not trained on: wobbliness" in error
    assert "does not know product 'cup'" in error
    [row] = read_results(Path("dapo-out"))
    assert row.product_id == "cup"


def test_settings_come_from_the_environment(photos: Path, pack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAPO_RUN__MAX_PIXELS", "1000")
    monkeypatch.setenv("DAPO_PACK__PATH", pack)
    assert invoke(["run", "photos", "--limit", "2"]) == 3
    assert [row.reason_code for row in read_results(Path("dapo-out"))] == ["too-many-pixels"] * 2


def test_a_full_disk_is_told_with_the_line_to_go_on(
    photos: Path, pack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        status = invoke(["run", "photos", "--pack", pack, "--product", "strict", "--out", "here and there"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert status == 4
    error = capsys.readouterr().err
    assert "can't be written" in error
    assert "--out 'here and there' --resume" in error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_frame_and_says_how_to_go_on(tmp_path: Path, pack: str, number: int) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    data = [encoded(surface(seed, defect=True)) for seed in range(20)]
    for index in range(3000):
        (folder / f"{index:04d}.png").write_bytes(data[index % 20])
    command = [
        sys.executable,
        "-c",
        "import pipeline.cli as c; c.main()",
        "run",
        "photos",
        "--pack",
        pack,
        "--out",
        "my out",
        "--threads",
        "1",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    overlays, deadline = tmp_path / "my out" / "overlays", time.monotonic() + 120
    while not (overlays.is_dir() and any(overlays.iterdir())):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)  # polls another process; the time it takes decides nothing
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert "dapo run photos --pack" in error
    assert "--out 'my out' --resume" in error
    rows = list(read_results(tmp_path / "my out"))
    assert 0 < len(rows) < 3000
    assert json.loads((tmp_path / "my out" / "run.json").read_text())["state"] == "interrupted"
    assert (tmp_path / "my out" / "report.html").is_file()
