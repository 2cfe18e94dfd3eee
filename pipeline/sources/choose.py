"""What a SOURCE on the command line means."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dapo.errors import SourceError
from pipeline.decode import Limits
from pipeline.ports import Source
from pipeline.sources import video, walk
from pipeline.sources.camera import STALL_S, CameraSource
from pipeline.sources.files import FileSource
from pipeline.sources.stdin import stdin_lines

_CAMERA_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://")


@dataclass(frozen=True, slots=True)
class Opened:
    """A source and what is known of it.

    Attributes:
        name: in reports.
        place: what it is on this host, whatever folder the command is given in: paths made absolute, a camera's address.
        live: it never ends (a camera), so it can't be resumed.
        again: it can be opened a second time; a pipe can't.
        walked: folder whose files are looked for in each run: results must not lie among them.
    """

    source: Source
    name: str
    place: str
    live: bool = False
    again: bool = True
    walked: Path | None = None


def open_source(
    given: Sequence[str],
    list_file: str | None,
    limits: Limits,
    skip: walk.Skip,
    *,
    stall_s: float = STALL_S,
    stdin: Iterable[bytes] | None = None,
) -> Opened:
    """Open what the user named.

    Args:
        given: a file, folder, glob, video, camera address or device number; several files (a shell's glob); "-" reads
            paths from stdin. With `list_file`, at most one folder that the list's relative paths start from.
        list_file: a file with one path a line, or "-".
        skip: told of each file of a folder that is no frame.
        stall_s: a camera that gives nothing for so long is opened again.
        stdin: lines instead of the process's own.

    Raises:
        SourceError: there is no such thing, or it can't be reached; the message says what was looked for.
    """
    if list_file is None and list(given) == ["-"]:
        list_file, given = "-", ()
    if list_file is not None:
        return _open_list(list_file, given, limits, stdin)
    if not given:
        raise SourceError("no SOURCE: give a file, folder, glob, video or camera address, or --list FILE.")
    if len(given) > 1:
        return _open_several(given, limits)
    text = given[0]
    path = Path(text)
    if (
        text.lower().startswith(_CAMERA_SCHEMES)
        or text.startswith("/dev/video")
        or (text.isdigit() and not path.exists())
    ):
        camera = CameraSource(text, stall_s=stall_s)
        return Opened(camera, camera.uri, camera.uri, live=True)
    if walk.is_folder(path):
        total = _count(walk.walk_folder(path, _silent))
        source = FileSource(lambda: walk.walk_folder(path, skip), path, limits, total=total)
        return Opened(source, text, _place(text), walked=path)
    if os.path.lexists(path):
        total = _count(iter([path]))
        return Opened(FileSource(lambda: iter([path]), path.parent, limits, total=total), text, _place(text))
    if walk.is_glob(text):
        total = _count(walk.walk_glob(text, _silent))
        if total == 0:
            raise SourceError(
                f"{text}: no file matches this pattern. Put it in quotes, and ** for any folders."
            )
        root = walk.glob_root(text)
        source = FileSource(lambda: walk.walk_glob(text, skip), root, limits, total=total)
        return Opened(source, text, _place(text), walked=root)
    raise SourceError(f"{text}: {_why_missing(path)}")


def _why_missing(path: Path) -> str:
    try:
        os.lstat(path)
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            return f"can't be reached: {error.strerror}. Correct the path, or the permissions of its folders."
    return f"no such file or folder. Check the path; relative ones start from {Path.cwd()}."


def _open_several(given: Sequence[str], limits: Limits) -> Opened:
    if any(text == "-" or text.lower().startswith(_CAMERA_SCHEMES) for text in given):
        raise SourceError("several SOURCEs: all must be files. Inspect a camera or stdin on its own.")
    paths = [Path(text) for text in given]
    if folder := next((path for path in paths if walk.is_folder(path)), None):
        raise SourceError(
            f"{folder}: several SOURCEs must all be files. Give one folder, or a glob in quotes."
        )
    source = FileSource(lambda: iter(paths), Path(), limits, repeats=True, total=_count(iter(paths)))
    return Opened(source, f"{given[0]} and {len(given) - 1} more", _place(*given))


def _open_list(list_file: str, given: Sequence[str], limits: Limits, stdin: Iterable[bytes] | None) -> Opened:
    if len(given) > 1 or (given and not walk.is_folder(Path(given[0]))):
        raise SourceError(
            f"{given[0]}: with --list, SOURCE may only be the folder that relative paths start from."
        )
    root, closed = Path(given[0]) if given else Path(), threading.Event()

    def listed() -> Iterator[Path]:
        try:
            with open(list_file, "rb") as file:
                yield from (root / name for name in walk.read_list(file))
        except OSError as error:
            raise SourceError(
                f"--list {list_file}: can't be read: {error.strerror}. Check the path."
            ) from error

    def piped() -> Iterator[Path]:
        lines = stdin_lines(closed) if stdin is None else stdin
        return (root / name for name in walk.read_list(lines))

    if list_file == "-":
        source = FileSource(piped, root, limits, repeats=True, closed=closed)
        return Opened(source, "stdin", "stdin", again=False)
    # A pipe (a shell's <(find ...)) can be read only once: its lines are not counted first.
    pipe = _is_pipe(list_file)
    source = FileSource(listed, root, limits, repeats=True, total=None if pipe else _count(listed()))
    return Opened(source, list_file, _place(list_file, str(root)), again=not pipe)


def _place(*paths: str) -> str:
    return "\0".join(os.path.abspath(path) for path in paths)


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(Path(path).stat().st_mode)
    except OSError:
        return False


def _count(paths: Iterable[Path]) -> int | None:
    """Number of frames; None where a video's own count is not to be trusted."""
    total = 0
    for path in paths:
        if walk.is_video(path):
            number = video.count(path)
            if not number:
                return None
            total += number
        else:
            total += 1
    return total


def _silent(_path: str, _suffix: str, _reason: str) -> None:
    """The walk that counts does not tell a second time what is skipped."""
