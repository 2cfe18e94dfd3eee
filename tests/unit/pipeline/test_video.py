"""Videos as sources: stable ids, and one frame that says so where a video is cut off."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.decode import Limits
from pipeline.sources import video
from pipeline.sources.choose import open_source
from pipeline.testing import surface

FRAMES = 12


def _video(path: Path, code: str = "FFV1") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 10, (96, 64))
    for number in range(FRAMES):
        writer.write(np.ascontiguousarray(surface(number)[..., ::-1]))
    writer.release()
    return path


def _skip(*_: str) -> None: ...


def test_frames_come_in_order_with_stable_ids(tmp_path: Path) -> None:
    path = _video(tmp_path / "line.avi")
    opened = open_source([str(path)], None, Limits(), _skip)
    assert opened.source.total == FRAMES
    frames = list(opened.source)
    assert [frame.frame_id for frame in frames] == [f"line.avi#{number:06d}" for number in range(FRAMES)]
    assert [frame.sequence for frame in frames] == list(range(FRAMES))
    for number, frame in enumerate(frames):
        assert frame.pixels is not None
        assert np.array_equal(frame.pixels, surface(number))  # lossless codec, RGB order
    assert (frames[10].captured_at - frames[0].captured_at).total_seconds() == pytest.approx(1, abs=0.11)


@pytest.mark.parametrize(("name", "code"), [("v.avi", "MJPG"), ("v.mkv", "mp4v")])
def test_a_video_cut_in_the_middle_of_a_frame_gives_what_is_there_and_one_error(
    tmp_path: Path, name: str, code: str
) -> None:
    path = _video(tmp_path / name, code)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *good, last = video.frames(path, name, "s", Limits())
    assert 0 < len(good) < FRAMES - 2
    assert all(frame.error is None for frame in good)
    assert last.frame_id == f"{name}#{len(good):06d}"
    assert last.error is not None
    assert last.error[0] == "video-ends-early"
    assert f"after {len(good)} of {FRAMES} frames" in last.error[1]
    assert last.headers["path"] == str(path)


def test_a_whole_video_gives_no_error(tmp_path: Path) -> None:
    for name, code in (("v.avi", "MJPG"), ("v.mkv", "mp4v"), ("v.mp4", "mp4v")):
        path = _video(tmp_path / name, code)
        assert [frame.error for frame in video.frames(path, name, "s", Limits())] == [None] * FRAMES


def test_a_name_that_is_no_unicode_is_read(tmp_path: Path) -> None:
    for name, code in (("v\udcff.avi", "MJPG"), ("v\udcff.mp4", "mp4v")):
        path = _video(tmp_path / name.replace("\udcff", ""), code).rename(tmp_path / name)
        opened = open_source([str(path)], None, Limits(), _skip)
        assert opened.source.total == FRAMES
        frames = list(opened.source)
        shown = name.replace("\udcff", "\\xff")
        assert [frame.frame_id for frame in frames] == [f"{shown}#{number:06d}" for number in range(FRAMES)]
    path.write_bytes(b"no video")
    [frame] = open_source([str(path)], None, Limits(), _skip).source
    assert frame.error is not None
    assert frame.error[0] == "video-unreadable"
    assert frame.error[1].encode()


def test_a_video_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _video(tmp_path / "v.avi")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert video.count(path) == 0
    [frame] = video.frames(path, "v.avi", "s", Limits())
    assert frame.error is not None
    assert frame.error[0] == "no-permission"


@pytest.mark.parametrize("content", [b"", b"no video", None])
def test_what_is_no_video_gives_one_error_that_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "v.mp4"
    if content is None:  # an MP4 whose index, at its end, is cut off
        whole = _video(path, "mp4v").read_bytes()
        content = whole[: len(whole) * 9 // 10]
    path.write_bytes(content)
    [frame] = video.frames(path, "v.mp4", "s", Limits())
    assert (frame.frame_id, frame.error and frame.error[0]) == ("v.mp4", "video-unreadable")
    assert frame.headers["path"] == str(path)


def test_limits_hold_for_videos(tmp_path: Path) -> None:
    path = _video(tmp_path / "v.avi")
    [frame] = video.frames(path, "v.avi", "s", Limits(max_pixels=1000))
    assert frame.error is not None
    assert frame.error[0] == "too-many-pixels"


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "d.mp4").mkdir()
    codes = {}
    for name in ("d.mp4", "gone.mp4"):
        [frame] = video.frames(tmp_path / name, name, "s", Limits())
        codes[name] = frame.error and frame.error[0]
    assert codes == {"d.mp4": "not-a-file", "gone.mp4": "not-found"}


def test_a_folder_mixes_pictures_and_videos(tmp_path: Path) -> None:
    from pipeline.testing import encoded

    (tmp_path / "a.png").write_bytes(encoded(surface()))
    _video(tmp_path / "b.avi")
    source = open_source([str(tmp_path)], None, Limits(), _skip).source
    assert source.total == FRAMES + 1
    frames = iter(source)
    assert next(frames).frame_id == "a.png"
    assert next(frames).frame_id == "b.avi#000000"
    source.close()
    assert list(frames) == []
