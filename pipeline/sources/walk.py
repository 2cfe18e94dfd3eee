"""Paths of a folder, a glob or a list, in a stable order and one at a time.

A folder gives files with the suffix or the first bytes of an image, and what can't be looked into: reading that says why.
Every other file is told to `skip`, never silently ignored. A list names its files, so each line is given whatever it is.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".webp",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    ]
)
VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".avi",
        ".mkv",
        ".webm",
        ".mpg",
        ".mpeg",
        ".wmv",
        ".ts",
        ".mts",
        ".flv",
        ".3gp",
        ".mjpeg",
        ".mjpg",
    ]
)
RUN_MARKER = (
    "run.json"  # lies in every results folder, so that a run over its parent does not inspect its overlays
)
_MARKED = b'"dapo_run"'
_WILD = re.compile(r"[*?\[]")
# First bytes of JPEG, PNG, TIFF, GIF, WebP, BMP and PPM; the last two with enough behind their letters to be no text.
_IMAGE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|II[*+]\0|MM\0[*+]|GIF8[79]a|RIFF....WEBP|BM....\0\0\0\0|P[1-6]\n[\d#]",
    re.DOTALL,
)
_NO_FRAME = "neither its suffix nor its first bytes are those of an image or a video"

Skip = Callable[[str, str, str], None]
"""Called with a path, its suffix and the reason it is no frame."""


def is_video(path: Path) -> bool:
    """Whether the suffix is one of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def is_known(path: Path) -> bool:
    """Whether the suffix is one of an image or a video."""
    return path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


class _Kind(Enum):
    FILE = "file"
    FOLDER = "folder"
    CLOSED = "a folder that can't be listed"


def is_folder(path: Path) -> bool:
    """Whether it is a folder; no, where that can't be told (a name too long, no permission)."""
    try:
        return path.is_dir()
    except OSError:
        return False


def walk_folder(root: Path, skip: Skip) -> Iterator[Path]:
    """Images and videos below `root`, by name, folder by folder.

    Links to folders are followed, but no folder is walked twice. A linked file is a frame of its own: folders of links
    are how people select frames. A folder that can't be listed is given itself, so that reading it says why.
    """
    for path, kind in _entries(root, skip):
        if kind is _Kind.CLOSED or (kind is _Kind.FILE and _is_frame(path, skip)):
            yield path


def walk_glob(pattern: str, skip: Skip) -> Iterator[Path]:
    """Files that match a pattern with *, ?, [] and ** (any folders, linked ones too), by name.

    A pattern that ends in a suffix ("*.dat") gives whatever matches; one that does not ("*") gives what a folder would.
    """
    parts = Path(pattern).parts
    every = bool(Path(parts[-1]).suffix) and not _WILD.search(Path(parts[-1]).suffix)
    seen_twice = sum(part == "**" for part in parts) > 1
    found: set[Path] = set()
    for path, kind in _expand(Path(parts[0]) if Path(pattern).is_absolute() else Path(), parts, skip):
        if seen_twice:  # only then can one file match in two ways
            if path in found:
                continue
            found.add(path)
        if kind is _Kind.FOLDER:
            skip(str(path), "folder", "a folder; end the pattern with ** to take what is in it")
        elif kind is _Kind.CLOSED or every or _is_frame(path, skip):
            yield path


def glob_root(pattern: str) -> Path:
    """The folder above the first wildcard."""
    parts = Path(pattern).parts
    literal = next((index for index, part in enumerate(parts) if _WILD.search(part)), len(parts) - 1)
    return Path(*parts[:literal]) if literal else Path()


def is_glob(text: str) -> bool:
    """Whether `text` holds a wildcard."""
    return _WILD.search(text) is not None


def read_list(lines: Iterable[bytes]) -> Iterator[str]:
    """Names in a list, one a line; empty lines are none. Any bytes a file name may have are kept."""
    for number, line in enumerate(lines):
        if number == 0:
            line = line.removeprefix(b"\xef\xbb\xbf")  # Windows editors put a byte-order mark first
        if name := os.fsdecode(line.rstrip(b"\r\n")):
            yield name


def _entries(root: Path, skip: Skip) -> Iterator[tuple[Path, _Kind]]:
    """`root` and all below it, a folder before what is in it, siblings by name.

    A stack instead of recursion: folders may be nested deeper than Python calls may.
    """
    walked: dict[tuple[int, int], Path] = {}
    stack: list[Iterator[Path]] = [iter((root,))]
    while stack:
        path = next(stack[-1], None)
        if path is None:
            stack.pop()
        elif not is_folder(path):
            yield path, _Kind.FILE
        else:
            try:
                status, names = path.stat(), sorted(os.listdir(path))
            except OSError:
                yield path, _Kind.CLOSED
                continue
            before = walked.setdefault((status.st_dev, status.st_ino), path)
            if before is not path:
                skip(str(path), "folder", _twice(path, before))
            elif RUN_MARKER in names and _is_results(path / RUN_MARKER):
                skip(str(path), "folder", "results of an earlier run")
            else:
                yield path, _Kind.FOLDER
                stack.append(map(path.joinpath, names))


def _twice(path: Path, before: Path) -> str:
    if before in path.parents:
        return "a symbolic link that leads back to a folder above it"
    return f"the same folder as {before}, which was taken already"


def _is_frame(path: Path, skip: Skip) -> bool:
    """Whether a file of a folder is to be inspected; `skip` is told where it is not."""
    if path.name.startswith("._"):
        reason = "a macOS resource file"
    elif is_known(path) or _looks_like_image(path):
        return True
    else:
        reason = _NO_FRAME
    skip(str(path), path.suffix.lower() or "none", reason)
    return False


def _looks_like_image(path: Path) -> bool:
    """By its first bytes. What can't be opened may be one: then reading it says what is wrong."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with open(path, "rb") as file:
            return _IMAGE.match(file.read(16)) is not None
    except OSError:
        return True


def _is_results(marker: Path) -> bool:
    try:
        with open(marker, "rb") as file:
            return _MARKED in file.read(4096)
    except OSError:
        return False


def _expand(base: Path, parts: tuple[str, ...], skip: Skip) -> Iterator[tuple[Path, _Kind]]:
    """Paths below `base` that match all of `parts`."""
    if not parts:
        yield base, _Kind.FOLDER if is_folder(base) else _Kind.FILE
        return
    part, rest = parts[0], parts[1:]
    if part == base.anchor and part:
        yield from _expand(base, rest, skip)
    elif not _WILD.search(part):
        below = base / part
        if rest or os.path.lexists(below):
            yield from _expand(below, rest, skip)
    elif part == "**":
        for path, kind in _entries(base, skip) if is_folder(base) else ():
            if kind is _Kind.CLOSED or (kind is _Kind.FILE and not rest):
                yield path, kind
            elif kind is _Kind.FOLDER and rest:
                yield from _expand(path, rest, skip)
    else:
        try:
            names = sorted(os.listdir(base))
        except (FileNotFoundError, NotADirectoryError):
            return  # a pattern names what may be there, as in a shell
        except OSError:
            yield base, _Kind.CLOSED
            return
        for name in names:
            if fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith(".")):
                yield from _expand(base / name, rest, skip)
