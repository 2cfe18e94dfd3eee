"""Frames of image and video files, in the order their paths come."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.decode import Limits
from pipeline.naming import printable
from pipeline.ports import Frame
from pipeline.sources import video
from pipeline.sources.read import read_frame
from pipeline.sources.walk import is_video


class FileSource:
    """Frames of files.

    Args:
        paths: called once per iteration; gives the paths in a stable order, one at a time.
        root: frame ids are relative to it; `uri` is its name to the outside.
        limits: of bytes.
        repeats: the paths may repeat (a list): the second of the same file gets the id "name#2".
        total: number of frames where it is known.
        closed: set by `close`; `paths` watches it where it may wait long for its next path.

    Example:
        source = FileSource(lambda: walk_folder(root, skip), root, Limits())
        for frame in source: ...
    """

    def __init__(
        self,
        paths: Callable[[], Iterator[Path]],
        root: Path,
        limits: Limits,
        *,
        repeats: bool = False,
        total: int | None = None,
        closed: threading.Event | None = None,
    ) -> None:
        self._paths = paths
        self._root = Path(os.path.abspath(root))
        self._limits = limits
        self._repeats = repeats
        self.total = total
        self.uri = (
            printable(self._root.as_uri())
            if _encodable(self._root)
            else "file://" + printable(str(self._root))
        )
        self._closed = closed or threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        seen: dict[int, int] = {}
        for path in self._paths():
            if self._closed.is_set():
                return
            name = self._name(path)
            if self._repeats:
                # A list's own paths are kept as 64-bit hashes: a million lines take some 100 MB less than as text.
                count = seen[hash(name)] = seen.get(hash(name), 0) + 1
                name = name if count == 1 else f"{name}#{count}"
            if not is_video(path):
                yield read_frame(path, name, self.uri, self._limits)
                continue
            for frame in video.frames(path, name, self.uri, self._limits):
                if self._closed.is_set():
                    return
                yield frame

    def close(self) -> None:
        """Stop after the frame that is being read."""
        self._closed.set()

    def _name(self, path: Path) -> str:
        """The path relative to the root where it lies below it, as given otherwise."""
        try:
            return printable(Path(os.path.abspath(path)).relative_to(self._root).as_posix())
        except ValueError:
            return printable(path.as_posix())


def _encodable(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
