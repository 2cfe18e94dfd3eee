"""Files, folders, globs and lists as sources: what is taken, in which order, under which id, and what is told instead."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from dapo.errors import SourceError
from pipeline.decode import Limits
from pipeline.ports import Frame
from pipeline.sources import open_source
from pipeline.sources.choose import Opened
from pipeline.testing import encoded, surface

PICTURE = encoded(surface())
LIMITS = Limits(max_bytes=100_000)
Skipped = list[tuple[str, str]]


@pytest.fixture
def skipped() -> Skipped:
    return []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b/2.png", "b/1.png", "b/c/3.JPG", "a.png", "notes.txt", "b/README", "._a.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PICTURE if path.suffix.lower() in (".png", ".jpg") else b"Read me first.")
    return tmp_path / "in"


def _open(
    skipped: Skipped, *given: str, list_file: str | None = None, stdin: list[bytes] | None = None
) -> Opened:
    def skip(path: str, _suffix: str, reason: str) -> None:
        skipped.append((Path(path).name, reason))

    return open_source(given, list_file, LIMITS, skip, stdin=stdin)


def _ids(opened: Opened) -> list[str]:
    return [frame.frame_id for frame in opened.source]


def _errors(opened: Opened) -> list[tuple[str, str]]:
    return [(frame.frame_id, frame.error[0]) for frame in opened.source if frame.error]


def test_a_folder_is_walked_in_a_stable_order(tree: Path, skipped: Skipped) -> None:
    opened = _open(skipped, str(tree))
    assert _ids(opened) == ["a.png", "b/1.png", "b/2.png", "b/c/3.JPG"]
    assert opened.source.total == 4
    assert sorted(name for name, _ in skipped) == ["._a.png", "README", "notes.txt"]


def test_frames_hold_bytes_type_and_place(tree: Path, skipped: Skipped) -> None:
    first = next(iter(_open(skipped, str(tree)).source))
    assert first.data == PICTURE
    assert first.content_type == "image/png"
    assert first.source == tree.as_uri()
    assert first.captured_at.timestamp() == pytest.approx((tree / "a.png").stat().st_mtime)
    assert first.headers["path"] == str(tree / "a.png")


def test_one_file_is_a_source_whatever_its_suffix(tree: Path, skipped: Skipped) -> None:
    opened = _open(skipped, str(tree / "b" / "README"))
    assert _ids(opened) == ["README"]
    assert opened.source.total == 1


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["a.png"]),
        ("b/*", ["b/1.png", "b/2.png"]),
        ("**/*.png", ["a.png", "b/1.png", "b/2.png"]),
        ("b/[2-9].png", ["b/2.png"]),
        ("**", ["a.png", "b/1.png", "b/2.png", "b/c/3.JPG"]),
        ("*/c/?.JPG", ["b/c/3.JPG"]),
        ("**/b/**/*.png", ["b/1.png", "b/2.png"]),
        ("**/*.txt", ["notes.txt"]),
    ],
)
def test_globs(tree: Path, skipped: Skipped, pattern: str, expected: list[str]) -> None:
    opened = _open(skipped, str(tree / pattern))
    found = [Path(frame.headers["path"]).relative_to(tree).as_posix() for frame in opened.source]
    assert found == expected
    assert opened.source.total == len(expected)


def test_a_glob_without_a_match_says_so(tree: Path, skipped: Skipped) -> None:
    with pytest.raises(SourceError, match="no file matches"):
        _open(skipped, str(tree / "*.bmp"))


def test_a_shells_glob_gives_several_files(
    tree: Path, skipped: Skipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    assert _ids(_open(skipped, "a.png", "b/1.png")) == ["a.png", "b/1.png"]
    with pytest.raises(SourceError, match="must all be files"):
        _open(skipped, "a.png", "b")
    with pytest.raises(SourceError, match="camera or stdin"):
        _open(skipped, "a.png", "rtsp://x/y")


def test_each_line_of_a_list_is_a_frame(tree: Path, skipped: Skipped, tmp_path: Path) -> None:
    lines = tmp_path / "list.txt"
    lines.write_bytes(
        b"\xef\xbb\xbfb/1.png\r\n\r\nnotes.txt\ngone.png\nb/1.png\n" + str(tree / "a.png").encode()
    )
    opened = _open(skipped, str(tree), list_file=str(lines))
    assert opened.source.total == 5
    assert _ids(opened) == ["b/1.png", "notes.txt", "gone.png", "b/1.png#2", "a.png"]
    assert _errors(opened) == [("gone.png", "not-found")]
    assert skipped == []


def test_names_from_stdin(tree: Path, skipped: Skipped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    for given, list_file in ((("-",), None), ((), "-")):
        opened = _open(skipped, *given, list_file=list_file, stdin=[b"a.png\n", b"b/2.png"])
        assert opened.source.total is None
        assert _ids(opened) == ["a.png", "b/2.png"]


def test_a_list_of_any_bytes_does_no_harm(tree: Path, skipped: Skipped) -> None:
    names = [b"\xff\xfe.png", b"a\0b.png", b"x" * 5000 + b".png", b"/", b"..", b"caf\xc3\xa9.png"]
    opened = _open(skipped, str(tree), list_file="-", stdin=[name + b"\n" for name in names])
    frames = list(opened.source)
    assert [frame.error is not None for frame in frames] == [True] * 6
    assert all(frame.frame_id.encode() for frame in frames)
    assert len({frame.frame_id for frame in frames}) == 6


@pytest.mark.parametrize("given", [("nowhere",), (), ("nowhere/x.png",)])
def test_what_is_not_there_is_said(skipped: Skipped, given: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        _open(skipped, *given)
    with pytest.raises(SourceError, match="can't be read"):
        _open(skipped, list_file=str(tmp_path / "none.txt"))


def test_a_list_takes_a_folder_only(tree: Path, skipped: Skipped) -> None:
    with pytest.raises(SourceError, match="may only be the folder"):
        _open(skipped, str(tree / "a.png"), list_file="-", stdin=[])


def test_unicode_and_very_long_names(tmp_path: Path, skipped: Skipped) -> None:
    names = ["Prüfteil 検査 🔩.png", "l" * 251 + ".png", " space .png", "new\nline.png", "a[1].png"]
    for name in names:
        (tmp_path / name).write_bytes(PICTURE)
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(PICTURE)
    frames = list(_open(skipped, str(tmp_path)).source)
    assert {*names, "caf\\xe9.png"} == {frame.frame_id for frame in frames}
    assert all(frame.data == PICTURE for frame in frames)
    assert _ids(_open(skipped, str(tmp_path / "a[1].png"))) == ["a[1].png"]


def test_links_are_followed_once_and_loops_are_not(tree: Path, skipped: Skipped, tmp_path: Path) -> None:
    (tree / "b" / "up").symlink_to(tree, target_is_directory=True)
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "4.png").write_bytes(PICTURE)
    for name in ("y", "z"):
        (tree / name).symlink_to(elsewhere, target_is_directory=True)
    (tree / "self.png").symlink_to(tree / "self.png")
    (tree / "loop").symlink_to(tree / "loop")
    (tree / "dangling.png").symlink_to(tree / "gone.png")
    names = ["a.png", "b/1.png", "b/2.png", "b/c/3.JPG", "dangling.png", "loop", "self.png", "y/4.png"]
    for given in (tree, tree / "**"):
        skipped.clear()
        opened = _open(skipped, str(given))
        assert _ids(opened) == names
        assert _errors(opened) == [
            ("dangling.png", "not-found"),
            ("loop", "symlink-loop"),
            ("self.png", "symlink-loop"),
        ]
        assert ("up", "a symbolic link that leads back to a folder above it") in skipped
        assert ("z", f"the same folder as {tree / 'y'}, which was taken already") in skipped
    assert _ids(_open(skipped, str(tree / "**/4.png"))) == ["y/4.png"]
    assert _ids(_open(skipped, str(tree / "*/4.png"))) == ["y/4.png", "z/4.png"]  # named, not found


def test_pipes_and_folders_with_image_names(tmp_path: Path, skipped: Skipped) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "inside.png").write_bytes(PICTURE)
    opened = _open(skipped, str(tmp_path))
    assert _ids(opened) == ["folder.png/inside.png", "pipe.png"]
    assert _errors(opened) == [("pipe.png", "not-a-file")]
    assert _errors(_open(skipped, str(tmp_path), list_file="-", stdin=[b"folder.png\n"])) == [
        ("folder.png", "not-a-file")
    ]


SUFFIXLESS = {
    "png": PICTURE,
    "jpeg": encoded(surface(), "JPEG"),
    "bmp": encoded(surface(), "BMP"),
    "tiff": encoded(surface(), "TIFF"),
    "webp": encoded(surface(), "WEBP"),
    "gif": encoded(surface(), "GIF"),
    "ppm": encoded(surface(), "PPM"),
    "cut.dat": PICTURE[:20],
}


def test_an_image_of_unknown_suffix_is_known_by_its_first_bytes(tmp_path: Path, skipped: Skipped) -> None:
    for name, data in SUFFIXLESS.items():
        (tmp_path / name).write_bytes(data)
    for number, text in enumerate((b"", b"BMW and MM", b"P5 is the fifth part", b"II", b"RIFF and raff")):
        (tmp_path / f"{number}.txt").write_bytes(text)
    os.mkfifo(tmp_path / "pipe")
    for pattern in ("", "*", "**"):
        skipped.clear()
        assert _ids(_open(skipped, str(tmp_path / pattern))) == sorted(SUFFIXLESS)
        assert [name for name, _ in skipped] == [*(f"{number}.txt" for number in range(5)), "pipe"]


def _closed(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let nobody list a folder; as root the permissions themselves would not."""
    real = os.listdir

    def listdir(path: Path) -> list[str]:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)


@pytest.mark.parametrize("pattern", ["", "**", "**/*.png", "*/*.png"])
def test_a_folder_that_can_not_be_listed_is_a_failed_frame(
    tree: Path, skipped: Skipped, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    _closed(monkeypatch, tree / "b")
    opened = _open(skipped, str(tree / pattern))
    assert _errors(opened) == [("b", "no-permission")]
    assert "b" not in [name for name, _ in skipped]


def test_a_source_that_can_not_be_listed_is_a_failed_frame(
    tree: Path, skipped: Skipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    _closed(monkeypatch, tree)
    assert _errors(_open(skipped, str(tree))) == [(".", "no-permission")]


def test_a_source_that_can_not_be_reached_says_why(
    skipped: Skipped, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="File name too long"):
        _open(skipped, str(tmp_path / ("x" * 300)))

    def refuse(path: Path, **_: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os, "lstat", refuse)
    for given in ((tmp_path,), (tmp_path / "a.png", tmp_path / "b.png")):
        with pytest.raises(SourceError, match="Permission denied") if len(given) == 1 else nullcontext():
            _open(skipped, *map(str, given))


def test_folders_nested_deeper_than_python_calls(tmp_path: Path, skipped: Skipped) -> None:
    folders = [tmp_path / "d"]
    folders += [folders[0].joinpath(*["d"] * depth) for depth in range(1, 1100)]
    try:
        for folder in folders:
            folder.mkdir()
        (folders[-1] / "deep.png").write_bytes(PICTURE)
        for pattern in ("", "**", "**/*.png"):
            [frame] = _open(skipped, str(tmp_path / pattern)).source
            assert frame.data == PICTURE
    finally:
        (folders[-1] / "deep.png").unlink(missing_ok=True)
        for folder in reversed(folders):  # shutil.rmtree, which would clean up later, calls itself
            folder.rmdir()


def test_a_list_from_a_pipe_is_read_once(tree: Path, skipped: Skipped) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a.png\nb/1.png\n")
    os.close(writing)
    try:
        opened = _open(skipped, str(tree), list_file=f"/dev/fd/{reading}")
        assert opened.source.total is None
        assert _ids(opened) == ["a.png", "b/1.png"]
    finally:
        os.close(reading)


def test_a_place_is_the_same_from_every_folder_and_a_pipe_is_read_once(
    tree: Path, skipped: Skipped, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "list").write_text("a.png")
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tree)
    for near, far in (("b", tree / "b"), ("a.png", tree / "a.png"), ("b/*.png", tree / "b" / "*.png")):
        assert _open(skipped, near).place == _open(skipped, str(far)).place == str(far)
    some = [_open(skipped, "a.png", f"b/{number}.png") for number in (1, 2)]
    assert some[0].name == some[1].name
    assert some[0].place != some[1].place
    listed = _open(skipped, list_file=str(tmp_path / "list"))
    assert listed.again
    assert listed.place != _open(skipped, "b", list_file=str(tmp_path / "list")).place
    assert not _open(skipped, "-", stdin=[]).again
    assert not _open(skipped, list_file=str(tmp_path / "fifo")).again


def test_a_list_that_vanishes_is_told(tree: Path, skipped: Skipped, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("a.png")
    opened = _open(skipped, str(tree), list_file=str(tmp_path / "list"))
    (tmp_path / "list").unlink()
    with pytest.raises(SourceError, match="can't be read"):
        _ids(opened)


def test_waiting_for_stdin_ends_with_close(
    tree: Path, skipped: Skipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    with open(reading) as stdin, open(writing, "wb", buffering=0) as typed:
        monkeypatch.setattr(sys, "stdin", stdin)
        source = _open(skipped, str(tree), list_file="-").source
        frames = iter(source)
        typed.write(b"a.png\nb/1.")
        assert next(frames).frame_id == "a.png"
        closing = threading.Timer(0.1, source.close)
        closing.start()
        assert list(frames) == []  # would wait for ever: the pipe stays open
        closing.join()


def test_stdin_to_its_end_and_none_at_all(
    tree: Path, skipped: Skipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a.png\nb/1.png")
    os.close(writing)
    with open(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert _ids(_open(skipped, str(tree), list_file="-")) == ["a.png", "b/1.png"]
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match="stdin is closed"):
        _ids(_open(skipped, str(tree), list_file="-"))


def test_results_of_an_earlier_run_are_left_alone(tree: Path, skipped: Skipped) -> None:
    (tree / "b" / "run.json").write_text('{"dapo_run": 1}')
    (tree / "run.json").write_text("something else")
    assert _ids(_open(skipped, str(tree))) == ["a.png"]
    assert ("b", "results of an earlier run") in skipped


def test_a_file_that_vanishes_between_walk_and_read(tree: Path, skipped: Skipped) -> None:
    frames: Iterator[Frame] = iter(_open(skipped, str(tree)).source)
    assert [next(frames).frame_id, next(frames).frame_id] == ["a.png", "b/1.png"]
    (tree / "b" / "2.png").unlink()
    lost = next(frames)
    assert (lost.frame_id, lost.error and lost.error[0]) == ("b/2.png", "not-found")
    assert next(frames).error is None


def test_close_ends_the_iteration(tree: Path, skipped: Skipped) -> None:
    source = _open(skipped, str(tree)).source
    frames = iter(source)
    next(frames)
    source.close()
    assert list(frames) == []
