"""Go on where a run stopped: frames whose content was inspected already are taken over, and all else is done anew.

The result equals an uninterrupted run over the source as it is now: the same rows in the same order, files that changed
inspected again, files that are gone left out. Rows of the earlier run wait in `results.previous` until the end, so that
a resumed run that is stopped can be resumed again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from array import array
from pathlib import Path

import numpy as np

from pipeline.atomic import explained
from pipeline.naming import artifact_name
from pipeline.ports import Frame
from pipeline.record import parts, read_keys, read_part
from pipeline.rows import DEAD_LETTERS, MASKS, OVERLAYS, outcome_of_row
from schemas.ids import frame_key
from schemas.results import ResultRow

PREVIOUS = "results.previous"
_ROWS = 2**32  # more than a file holds: a place is one number, file * _ROWS + row


class Resumption:
    """Finds results of the run that is resumed. Takes 17 bytes of memory per frame of it.

    Args:
        out: folder of the run; its rows are moved to `results.previous` there.
        configuration_hash: rows of another configuration are not taken over.

    Raises:
        OutputError: the earlier rows can't be moved or read.
    """

    def __init__(self, out: Path, configuration_hash: str) -> None:
        self._out = out
        self._hash = configuration_hash
        self._files = _set_aside(out)
        keys, places = array("Q"), array("Q")
        for number, path in enumerate(self._files):
            for index, key in enumerate(read_keys(path)):
                keys.append(_key(key))
                places.append(number * _ROWS + index)
        found = np.array(keys, np.uint64)
        # Stable, and the newest files come first: of two rows of one frame the newer is found first.
        order = np.argsort(found, kind="stable")
        self._keys = found[order]
        self._places = np.array(places, np.uint64)[order]
        self._met = np.zeros(len(order), bool)
        self._loaded: tuple[int, list[ResultRow]] = (-1, [])

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, frame: Frame, sha256: str) -> ResultRow | None:
        """The row of a frame with this content, where it and all that belongs to it is there; else None.

        A frame that could not even be read has no content to compare: it is tried again.
        """
        key = frame_key(frame.source, frame.frame_id)
        number = _key(key)
        at = int(np.searchsorted(self._keys, np.uint64(number)))
        found = None
        while at < len(self._keys) and int(self._keys[at]) == number:
            row = self._row(at)
            if row.frame_key == key:
                self._met[at] = True
                if found is None and self._usable(row, frame, sha256):
                    found = row
            at += 1
        return found

    def discard(self, frame: Frame) -> None:
        """Remove the pictures and dead letter of a frame that is inspected anew: they may not be written again."""
        _remove(self._out, artifact_name(frame.frame_id))

    def finish(self) -> None:
        """The source has ended: remove what belongs to frames that it no longer has, and the earlier rows."""
        for at in np.flatnonzero(~self._met):
            _remove(self._out, artifact_name(self._row(int(at)).frame_id))
        with explained(self._out / PREVIOUS):
            shutil.rmtree(self._out / PREVIOUS, ignore_errors=False)

    def _usable(self, row: ResultRow, frame: Frame, sha256: str) -> bool:
        same = row.image_sha256 == sha256 and row.configuration_hash == self._hash
        if not (same and sha256 and row.product_id == frame.product_id):
            return False
        outcome = outcome_of_row(row)
        needed = [
            outcome.overlay,
            outcome.dead_letter,
            f"{MASKS}/{artifact_name(row.frame_id)}.png" if row.defects else "",
        ]
        return all((self._out / path).is_file() for path in needed if path)

    def _row(self, at: int) -> ResultRow:
        file, index = divmod(int(self._places[at]), _ROWS)
        if self._loaded[0] != file:
            self._loaded = file, read_part(self._files[file])
        return self._loaded[1][index]


def _set_aside(out: Path) -> list[Path]:
    """Move all rows to `results.previous`, and list its files, the newest run's first."""
    previous = out / PREVIOUS
    with explained(previous):
        previous.mkdir(parents=True, exist_ok=True)
        found = parts(out)
        generation = 1 + max((int(path.name.split(".")[0]) for path in previous.glob("*.arrow")), default=0)
        for path in found:
            path.replace(previous / f"{generation:06d}.{path.name}")
        return sorted(previous.glob("*.arrow"), key=lambda path: (-int(path.name.split(".")[0]), path.name))


def _key(frame: str) -> int:
    return int.from_bytes(hashlib.blake2b(frame.encode(), digest_size=8).digest(), "little")


def _remove(out: Path, name: str) -> None:
    letter = out / DEAD_LETTERS / f"{name}.json"
    with explained(out / name):
        (out / MASKS / f"{name}.png").unlink(missing_ok=True)
        (out / OVERLAYS / f"{name}.jpg").unlink(missing_ok=True)
        if letter.is_file():
            kept = json.loads(letter.read_bytes()).get("bytes")
            if isinstance(kept, str) and Path(kept).name == kept:
                (letter.parent / kept).unlink(missing_ok=True)
            letter.unlink()
