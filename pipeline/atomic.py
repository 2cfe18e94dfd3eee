"""Write files whole or not at all: under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dapo.errors import OutputError

PARTIAL = ".partial"  # suffix of files that are not finished; a killed run may leave one, the next removes it


@contextmanager
def write_whole(path: Path, *, sync: bool = False) -> Iterator[BinaryIO]:
    """A file to write into, that gets its name when the block ends well and vanishes when it does not.

    Args:
        sync: also survive a power cut (costs milliseconds).

    Raises:
        OutputError: it can't be written; the message says why and what to do.
    """
    partial = path.with_name(path.name + PARTIAL)
    with explained(path):
        try:
            with open(partial, "wb") as file:
                yield file
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into an OutputError about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = "Free some space there"
        elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
            advice = "Give write permission"
        elif error.errno == errno.ENAMETOOLONG:
            advice = "Give a shorter name"
        else:
            advice = "Check the disk"
        raise OutputError(f"{path}: can't be written: {error.strerror or error}. {advice}.") from error
