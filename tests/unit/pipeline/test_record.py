"""The folder sink: rows in the contract, masks, overlays, dead letters; whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest
from PIL import Image

from dapo.errors import OutputError
from dapo.pack import Product
from pipeline.atomic import PARTIAL, write_whole
from pipeline.inspect import Inspector, Preparer
from pipeline.naming import artifact_name
from pipeline.ports import Frame, Result
from pipeline.record import FolderSink, label_map, parts, read_part, read_results
from pipeline.rows import outcome, outcome_of_row, to_row
from pipeline.testing import FakeInfer, encoded, frame, small_pack, surface
from schemas.results import SCHEMA
from schemas.rle import decode_mask

PACK = small_pack(products={"*": Product(types=("scratch", "hole"), threshold_ok=0.2, threshold_notok=0.6)})


def results(frames: list[Frame]) -> Iterator[Result]:
    preparer, inspector = (
        Preparer(FakeInfer(PACK)),
        Inspector(FakeInfer(PACK), batch=2, pack_name="small.pack"),
    )
    for one in frames:
        yield from inspector.add(preparer.prepare(one))
    yield from inspector.flush()


def _frames(count: int) -> list[Frame]:
    return [frame(f"f/{n}.png", encoded(surface(n, defect=n % 2 == 1))) for n in range(count)]


def test_files_hold_the_contract(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path, rows_per_file=3)
    for result in results(_frames(7)):
        sink.write(result)
    sink.close()
    assert [path.name for path in parts(tmp_path)] == [f"part-00000{n}.arrow" for n in range(3)]
    with pa.memory_map(str(parts(tmp_path)[0])) as file:
        table = pa.ipc.open_file(file).read_all()
    assert table.schema.equals(SCHEMA, check_metadata=True)
    assert [row.frame_id for row in read_results(tmp_path)] == [f"f/{n}.png" for n in range(7)]
    assert [len(read_part(path)) for path in parts(tmp_path)] == [3, 3, 1]


def test_a_row_says_what_was_found_with_what(tmp_path: Path) -> None:
    [result] = results(_frames(2)[1:])
    row = to_row(result)
    assert (row.result_state, row.evaluation, row.product_id) == ("Completed", "NotOK", "*")
    assert row.configuration_hash == PACK.configuration_hash
    assert (row.model_version, row.prompt_version) == ("fake@000000000000", "small.pack")
    assert (row.threshold_ok, row.threshold_notok) == (0.2, 0.6)
    assert row.defects is not None
    assert result.verdict is not None
    mask = decode_mask(row.defects[0]["mask"])
    assert mask.shape == (64, 96)
    assert mask.sum() == result.verdict.defects[0].area_px


def test_summaries_of_results_and_of_rows_agree(tmp_path: Path) -> None:
    frames = [
        *_frames(4),
        frame("bad.png", b"x"),
        frame("black.png", encoded(np.zeros((64, 64, 3), np.uint8))),
    ]
    done = list(results(frames))
    sink = FolderSink(tmp_path)
    for result in done:
        sink.write(result)
    sink.close()
    assert str([outcome(one) for one in done]) == str([outcome_of_row(row) for row in read_results(tmp_path)])


def test_masks_and_overlays_are_there_for_frames_with_defects_only(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path)
    done = list(results([*_frames(2), frame("g/1.png", encoded(surface(1, defect=True)))]))
    for result in done:
        sink.write(result)
    sink.close()
    names = {artifact_name("f/1.png"), artifact_name("g/1.png")}
    assert {path.stem for path in (tmp_path / "masks").iterdir()} == names
    assert {path.stem for path in (tmp_path / "overlays").iterdir()} == names
    labels = np.asarray(Image.open(tmp_path / "masks" / f"{artifact_name('f/1.png')}.png"))
    verdict = done[1].verdict
    assert verdict is not None
    assert labels.shape == (64, 96)
    assert labels.dtype == np.uint8
    for number, defect in enumerate(verdict.defects, start=1):
        assert (labels == number).sum() == defect.area_px
    assert np.array_equal(labels, label_map(verdict, 96, 64))


def test_dead_letters_keep_the_bytes_and_say_what_to_do(tmp_path: Path) -> None:
    body = b"\x89PNG\r\n\x1a\n broken \0 bytes"
    sink = FolderSink(tmp_path)
    for result in results(
        [frame("sub/x.PNG", body, headers={"path": "/plant/sub/x.PNG"}), frame("odd name", b"x")]
    ):
        sink.write(result)
    sink.close()
    name = artifact_name("sub/x.PNG")
    assert (tmp_path / "deadletter" / f"{name}.PNG").read_bytes() == body
    letter = json.loads((tmp_path / "deadletter" / f"{name}.json").read_text())
    assert letter["frame_id"] == "sub/x.PNG"
    assert letter["original"] == "/plant/sub/x.PNG"
    assert letter["stage"] == "decode"
    assert letter["code"] in ("damaged", "not-an-image")
    assert letter["bytes"] == f"{name}.PNG"
    assert letter["size"] == len(body)
    assert letter["message"].endswith(".")
    assert (tmp_path / "deadletter" / f"{artifact_name('odd name')}.bin").read_bytes() == b"x"


def test_an_original_with_a_bad_sector_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = tmp_path / "v.avi"
    original.write_bytes(bytes(100))

    def bad_sector(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    real = open

    class Sick(io.BytesIO):
        read = bad_sector

    monkeypatch.setattr(
        "builtins.open", lambda path, *a, **k: Sick() if path == original else real(path, *a, **k)
    )
    lost = frame("v.avi", b"", error=("cut-short", "ends early."), headers={"path": str(original)})
    sink = FolderSink(tmp_path / "out")
    for result in results([lost]):
        sink.write(result)
    sink.close()
    [letter] = (tmp_path / "out" / "deadletter").iterdir()
    assert json.loads(letter.read_text())["bytes"] is None


def test_a_file_too_large_to_read_is_copied_to_the_dead_letters(tmp_path: Path) -> None:
    original = tmp_path / "big.png"
    original.write_bytes(os.urandom(3 * 2**20))
    lost = frame("big.png", b"", error=("too-many-bytes", "too large."), headers={"path": str(original)})
    gone = frame("gone.png", b"", error=("not-found", "gone."), headers={"path": str(tmp_path / "gone.png")})
    sink = FolderSink(tmp_path / "out")
    for result in results([lost, gone]):
        sink.write(result)
    sink.close()
    letters = tmp_path / "out" / "deadletter"
    assert (letters / f"{artifact_name('big.png')}.png").read_bytes() == original.read_bytes()
    assert json.loads((letters / f"{artifact_name('gone.png')}.json").read_text())["bytes"] is None
    assert len(list(letters.iterdir())) == 3
    rows = list(read_results(tmp_path / "out"))
    assert [(row.result_state, row.reason_code, row.image_sha256) for row in rows] == [
        ("Failed", "too-many-bytes", None),
        ("Failed", "not-found", None),
    ]


def test_flush_makes_rows_durable_without_ending_a_file(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path, rows_per_file=4)
    for number, result in enumerate(results(_frames(6))):
        sink.write(result)
        sink.flush()
        assert len(list(read_results(tmp_path))) == number + 1
    sink.close()
    assert [len(read_part(path)) for path in parts(tmp_path)] == [4, 2]


def test_left_overs_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    left = tmp_path / "masks" / f"x.png{PARTIAL}"
    left.write_bytes(b"half")
    FolderSink(tmp_path).close()
    assert not left.exists()


def test_nothing_half_written_is_left_when_a_write_fails(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def fill() -> None:
        with write_whole(path) as file:
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match=r"No space left on device\. Free some space there"):
        fill()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.bin"]


def test_an_output_that_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(OutputError, match="can't be written"):
        FolderSink(tmp_path / "out")


_LIMITED = """
import resource, signal, sys
from pathlib import Path
from dapo.errors import OutputError
from pipeline.record import FolderSink
from pipeline.testing import *
from pipeline.inspect import Inspector, Preparer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
pack = small_pack()
preparer, inspector = Preparer(FakeInfer(pack)), Inspector(FakeInfer(pack), batch=1)
sink = FolderSink(Path(sys.argv[1]), rows_per_file=1000)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    for number in range(60):
        for result in inspector.add(preparer.prepare(frame(f"{number}.png", encoded(surface(number, defect=True))))):
            sink.write(result)
        sink.flush()
except OutputError as error:
    print(f"output error: {error}")
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="the system has no file size limit")
@pytest.mark.parametrize("limit", [20_000, 600])
def test_a_disk_that_fills_up_leaves_whole_files_only(tmp_path: Path, limit: int) -> None:
    out = tmp_path / "out"
    run = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(out), str(limit)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "output error" in run.stdout, run.stderr
    assert not list(out.rglob(f"*{PARTIAL}"))
    for path in (out / "masks").iterdir():
        Image.open(path).load()
    for path in (out / "overlays").iterdir():
        Image.open(path).load()
    rows = list(read_results(out))
    assert (len(rows) > 0) == (limit == 20_000)
    for row in rows:
        assert (out / outcome_of_row(row).overlay).is_file()
