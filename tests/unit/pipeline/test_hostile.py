"""Everything that can be wrong with input, in one folder: the run goes on, and nothing is lost without a word."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dapo.errors import OutputError
from pipeline.atomic import PARTIAL
from pipeline.decode import Limits
from pipeline.job import Job, run_job
from pipeline.naming import artifact_name
from pipeline.record import read_results
from pipeline.run import UNREADABLE, RunOptions
from pipeline.sources import open_source
from pipeline.summary import RunSummary
from pipeline.testing import FakeInfer, encoded, small_pack, surface

PACK = small_pack()
GOOD = surface(1, defect=True)


def _save(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def _works() -> dict[str, bytes]:
    picture = Image.fromarray(GOOD)
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = (GOOD.astype(np.uint16) * 257).copy()
    return {
        "good.png": encoded(GOOD),
        "wrong extension.png": encoded(GOOD, "JPEG"),
        "sixteen.png": cv2.imencode(".png", deep)[1].tobytes(),
        "sixteen.tiff": cv2.imencode(".tiff", deep[..., 0])[1].tobytes(),
        "cmyk.jpg": _save(picture.convert("CMYK"), "JPEG"),
        "palette.gif": _save(picture.convert("P"), "GIF"),
        "alpha.png": _save(picture.convert("RGBA")),
        "grey.bmp": _save(picture.convert("L"), "BMP"),
        "two-level.png": _save(picture.convert("1")),
        "turned.jpg": _save(picture, "JPEG", exif=turned),
        "animated.gif": _save(picture, "GIF", save_all=True, append_images=[Image.new("RGB", picture.size)]),
        "Prüfteil 検査 🔩.png": encoded(GOOD),
        "l" * 251 + ".png": encoded(GOOD),
        "deep/er/than/it/was/good.png": encoded(GOOD),
        "good.jpg": encoded(GOOD, "JPEG"),
        "without suffix": encoded(GOOD),
        "photo.dat": encoded(GOOD, "JPEG"),
    }


def _lands() -> dict[str, tuple[bytes, str]]:
    return {
        "zero.png": (b"", "empty"),
        "truncated.png": (encoded(GOOD)[:1000], "damaged"),
        "truncated.jpg": (encoded(GOOD, "JPEG")[:1500], "damaged"),
        "text.png": (b"I am no image\n" * 50, "not-an-image"),
        "program.jpg": (b"\x7fELF" + bytes(range(256)), "not-an-image"),
        "one.png": (encoded(GOOD[:1, :1]), "too-small"),
        "bomb.png": (_save(Image.new("1", (12_000, 12_000))), "too-many-pixels"),
        "heavy.png": (bytes(300_000), "too-many-bytes"),
        "cut.mp4": (b"\0\0\0\x20ftypisom" + bytes(2000), "video-unreadable"),
        os.fsdecode(b"not \xff unicode.png"): (b"x", "not-an-image"),
        os.fsdecode(b"not \xff unicode.mp4"): (b"x", "video-unreadable"),
        "cut without suffix": (encoded(GOOD)[:1000], "damaged"),
    }


def _fill(folder: Path) -> None:
    for name, data in {**_works(), **{name: data for name, (data, _) in _lands().items()}}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "notes.txt").write_text("no frame")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "loop").symlink_to("loop")
    (folder / "up").symlink_to(folder, target_is_directory=True)
    writer = cv2.VideoWriter(str(folder / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for number in range(10):
        writer.write(surface(number))
    writer.release()
    cut = (folder / "v.avi").read_bytes()
    (folder / "v.avi").write_bytes(cut[: len(cut) // 2])


def test_each_hostile_file_works_or_lands_in_the_dead_letters(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    _fill(folder)
    limits, summary = Limits(max_bytes=250_000), RunSummary()
    opened = open_source([str(folder)], None, limits, summary.add_skipped)
    run_job(
        Job(opened.name, "p", out, RunOptions(limits=limits)), opened.source, FakeInfer(PACK), PACK, summary
    )

    rows = {row.frame_id: row for row in read_results(out)}
    assert len(rows) == summary.frames
    for name in _works():
        assert rows[name].result_state == "Completed", rows[name].reason
        assert rows[name].defects, name
    turned = rows["turned.jpg"]
    assert (turned.image_width, turned.image_height) == (64, 96)
    for name, (data, code) in _lands().items():
        shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        assert (rows[shown].result_state, rows[shown].reason_code) == ("Failed", code)
        letter = json.loads((out / "deadletter" / f"{artifact_name(shown)}.json").read_text())
        assert (letter["code"], letter["size"]) == (code, len(data))
        assert (out / "deadletter" / letter["bytes"]).read_bytes() == data
    assert rows["pipe.png"].reason_code == "not-a-file"
    assert rows["loop.png"].reason_code == rows["loop"].reason_code == "symlink-loop"
    video = [row for name, row in rows.items() if name.startswith("v.avi#")]
    assert [row.result_state for row in video] == [*["Completed"] * (len(video) - 1), "Failed"]
    assert len(video) > 2
    letter = json.loads((out / "deadletter" / f"{artifact_name(video[-1].frame_id)}.json").read_text())
    assert (letter["code"], letter["original"]) == ("video-ends-early", str(folder / "v.avi"))
    assert (out / "deadletter" / letter["bytes"]).read_bytes() == (folder / "v.avi").read_bytes()
    assert summary.failed == len(_lands()) + 4
    assert summary.exit_code == UNREADABLE
    assert {Path(one.path).name for one in summary.skipped_files} == {"notes.txt", "up"}
    assert not list(out.rglob(f"*{PARTIAL}"))
    assert (out / "report.html").stat().st_size > 1000


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 400 kB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(mount)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a file system")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_full_disk_stops_the_run_and_freed_space_resumes_it(full_disk: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", full_disk / "out"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number}.png").write_bytes(encoded(surface(number, defect=True)))
    ballast = full_disk / "ballast"
    ballast.write_bytes(bytes(200_000))

    def attempt() -> RunSummary:
        summary = RunSummary()
        opened = open_source([str(folder)], None, Limits(), summary.add_skipped)
        work = Job(opened.name, "p", out, RunOptions(flush_s=0.0, batch=2), resume=True)
        return run_job(work, opened.source, FakeInfer(PACK), PACK, summary)

    with pytest.raises(OutputError, match="No space left on device"):
        attempt()
    assert not list(out.rglob(f"*{PARTIAL}"))
    done = len(list(read_results(out)))
    assert 0 < done < 60
    subprocess.run(["mount", "-o", "remount,size=8m", str(full_disk)], check=True)
    ballast.unlink()
    summary = attempt()
    assert summary.reused == done
    assert len(list(read_results(out))) == summary.frames == 60
