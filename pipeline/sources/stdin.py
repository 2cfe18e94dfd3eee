"""Lines of stdin, so that a run that waits for the next one can still be stopped."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Iterator

from dapo.errors import SourceError

_WAKE_S = 0.2  # how long a wait for input may delay the end of a stopped run
_CHUNK = 2**16  # bytes; what a pipe holds


def stdin_lines(closed: threading.Event) -> Iterator[bytes]:
    """Lines as they arrive, each with its line end, until the input ends or `closed` is set.

    Not `sys.stdin.buffer`: a thread that waits in it holds its lock, without which Python can't exit.

    Raises:
        SourceError: the process has no stdin.
    """
    try:
        descriptor = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError) as error:
        raise SourceError("stdin is closed: pipe paths into it, one a line, or give --list FILE.") from error
    rest = b""
    while not closed.is_set():
        if not select.select([descriptor], [], [], _WAKE_S)[0]:
            continue
        chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            if rest:
                yield rest
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"
