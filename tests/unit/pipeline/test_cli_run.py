"""`dapo run` as a user meets it, with the bundled encoder: outputs, messages, exit statuses, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dapo.handwritten import make_handwritten_pack
from dapo.pack_changes import set_threshold
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
        (["run", "photos", "--out", "photos"], "the frames lie there"),
        (["run", "photos/*.png", "--out", "./photos"], "the frames lie there"),
        (["run", "photos", "--resume", "--overwrite"], "one of both"),
        (["run", "photos", "--out", "o" * 300], "File name too long"),
        (["run", "photos", "--out", "mine"], "masks and no run.json"),
        (["run", "photos", "--out", "mine", "--resume"], "nothing is removed"),
        (["run", "photos", "--out", "mine", "--overwrite"], "nothing is removed"),
        (["run", "p" * 300], "File name too long"),
    ],
)
def test_mistakes_are_one_message(
    photos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    mine = photos.parent / "mine" / "masks" / "gt.png"
    mine.parent.mkdir(parents=True)
    mine.touch()
    assert invoke(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert mine.exists()
    assert {path.name for path in photos.parent.iterdir()} == {"photos", "mine"}
    assert len(list(photos.iterdir())) == 6


def test_nothing_to_inspect_is_a_mistake(photos: Path, pack: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    Path("empty.txt").touch()
    (Path("texts")).mkdir()
    Path("texts/notes.txt").write_text("x")
    for number, source in enumerate((["empty"], ["texts"], ["--list", "empty.txt"])):
        assert invoke(["run", *source, "--pack", pack, "--out", f"out{number}"]) == 2
        assert f"error: {source[-1]}: no frame found" in capsys.readouterr().err
    assert json.loads(Path("out1/summary.json").read_text())["skipped"] == {".txt": 1}


def test_brackets_are_text_and_lines_are_whole(
    photos: Path, pack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "very-" * 30 + "long.png"
    (photos / long).write_bytes(encoded(surface(3, defect=True)))
    assert invoke(["run", "photos", "--pack", pack, "--product", "[/b]"]) == 0
    printed = capsys.readouterr()
    assert "product [/b], pack hand.pack" in printed.out
    assert any(line.rstrip().endswith(long) for line in printed.out.splitlines())
    assert "--product '[/b]' --out NEW.pack" in printed.err


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
    Path("typed").write_bytes(b"photos/2.png\nphotos/3.png\n")
    with open("typed") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
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
        run = ["run", "photos", "--pack", pack, "--product", "strict", "--limit", "5", "--fail-on-defect"]
        status = invoke([*run, "--out", "here and there"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert status == 4
    error = capsys.readouterr().err
    assert "can't be written" in error
    assert "--out 'here and there' --resume" in error
    assert "--limit 5 --fail-on-defect" in error


def _started(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "import pipeline.cli as c; c.main()", *arguments],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )


def _await(process: subprocess.Popen[bytes], happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)  # polls another process; the time it takes decides nothing


def test_ctrl_c_ends_a_run_that_waits_for_stdin(tmp_path: Path, pack: str) -> None:
    (tmp_path / "a.png").write_bytes(encoded(surface(1)))
    arguments = ["run", "-", "--pack", pack, "--threads", "1", "--batch", "1"]
    with _started(arguments, tmp_path) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"a.png\n")
        process.stdin.flush()
        _await(process, (tmp_path / "dapo-out" / "run.json").exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130  # stdin is open still
        error = process.stderr.read().decode()
    assert "go on with:\n  dapo run - --batch 1 --pack" in error
    assert "Fatal" not in error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_frame_and_says_how_to_go_on(tmp_path: Path, pack: str, number: int) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    data = [encoded(surface(seed, defect=True)) for seed in range(20)]
    for index in range(3000):
        (folder / f"{index:04d}.png").write_bytes(data[index % 20])
    process = _started(["run", "photos", "--pack", pack, "--out", "my out", "--threads", "1"], tmp_path)
    overlays = tmp_path / "my out" / "overlays"
    _await(process, lambda: overlays.is_dir() and any(overlays.iterdir()))
    process.send_signal(number)
    error = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert "dapo run photos --pack" in error
    assert "--out 'my out' --resume" in error
    rows = list(read_results(tmp_path / "my out"))
    assert 0 < len(rows) < 3000
    assert json.loads((tmp_path / "my out" / "run.json").read_text())["state"] == "interrupted"
    assert (tmp_path / "my out" / "report.html").is_file()
