"""Paths of a folder, a glob or a list, in a stable order and one at a time.

A folder gives files with a known suffix; every other file is told to `skip`, never silently ignored. A list names its
files, so each line is given whatever its suffix.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Iterator
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

Skip = Callable[[str, str, str], None]
"""Called with a path, its suffix and the reason it is no frame."""


def is_video(path: Path) -> bool:
    """Whether the suffix is one of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def is_known(path: Path) -> bool:
    """Whether the suffix is one of an image or a video."""
    return path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def walk_folder(root: Path, skip: Skip) -> Iterator[Path]:
    """Images and videos below `root`, by name, folder by folder. Links to folders are followed, loops are not."""
    yield from _walk(root, skip, ())


def walk_glob(pattern: str, skip: Skip) -> Iterator[Path]:
    """Files that match a pattern with *, ?, [] and ** (any folders), by name.

    A pattern that ends in a suffix ("*.dat") gives whatever matches; one that does not ("*") gives known suffixes.
    """
    parts = Path(pattern).parts
    every = bool(Path(parts[-1]).suffix) and not _WILD.search(Path(parts[-1]).suffix)
    seen_twice = sum(part == "**" for part in parts) > 1
    found: set[Path] = set()
    for path in _expand(Path(parts[0]) if Path(pattern).is_absolute() else Path(), parts, skip):
        if seen_twice:  # only then can one file match in two ways
            if path in found:
                continue
            found.add(path)
        if path.is_dir():
            skip(str(path), "folder", "a folder; end the pattern with ** to take what is in it")
        elif every or is_known(path):
            yield path
        else:
            skip(str(path), path.suffix.lower() or "none", "the suffix is not one of an image or a video")


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


def _walk(folder: Path, skip: Skip, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    try:
        here = folder.stat()
        if (here.st_dev, here.st_ino) in above:
            skip(str(folder), "folder", "a symbolic link that leads back to a folder above it")
            return
        names = sorted(os.listdir(folder))
    except OSError as error:
        skip(str(folder), "folder", f"can't be listed: {error.strerror}")
        return
    if RUN_MARKER in names and _is_results(folder / RUN_MARKER):
        skip(str(folder), "folder", "results of an earlier run")
        return
    for name in names:
        path = folder / name
        if path.is_dir():
            yield from _walk(path, skip, (*above, (here.st_dev, here.st_ino)))
        elif name.startswith("._"):
            skip(str(path), path.suffix.lower() or "none", "a macOS resource file")
        elif is_known(path):
            yield path
        else:
            skip(str(path), path.suffix.lower() or "none", "the suffix is not one of an image or a video")


def _is_results(marker: Path) -> bool:
    try:
        with open(marker, "rb") as file:
            return _MARKED in file.read(4096)
    except OSError:
        return False


def _expand(base: Path, parts: tuple[str, ...], skip: Skip) -> Iterator[Path]:
    """Paths below `base` that match all of `parts`."""
    if not parts:
        yield base
        return
    part, rest = parts[0], parts[1:]
    if part == base.anchor and part:
        yield from _expand(base, rest, skip)
    elif not _WILD.search(part):
        below = base / part
        if rest or os.path.lexists(below):
            yield from _expand(below, rest, skip)
    else:
        if part == "**":
            if not rest:
                yield from _walk(base, skip, ())
                return
            yield from _expand(base, rest, skip)
        for name in _listed(base):
            if part == "**":
                below = base / name
                if below.is_dir() and not below.is_symlink():
                    yield from _expand(below, parts, skip)
            elif fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith(".")):
                yield from _expand(base / name, rest, skip)


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []  # a pattern names what may be there, as in a shell
