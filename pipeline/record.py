"""The Sink port as a folder: Arrow files, masks, overlays, dead letters.

    results/part-000000.arrow   Arrow IPC files in the contract of `schemas`, 256 rows each, in the order of the source
    masks/NAME.png              8-bit grey label map of the frame's size, only of frames with defects: 0 is background,
                                i the i-th entry of the row's `defects`, counted from 1
    overlays/NAME.jpg           the same for people
    deadletter/NAME.*           frames that could not be inspected

NAME is `pipeline.naming.artifact_name` of the frame id.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray
from PIL import Image

from dapo.errors import OutputError
from dapo.inspection import Verdict
from pipeline.atomic import PARTIAL, explained, write_whole
from pipeline.deadletter import write_dead_letter
from pipeline.naming import artifact_name
from pipeline.ports import Result
from pipeline.report.overlay import draw_overlay
from pipeline.rows import DEAD_LETTERS, MASKS, OVERLAYS, to_row
from schemas.codec import SchemaError, record_batch, rows_of
from schemas.results import SCHEMA, ResultRow

RESULTS = "results"
ROWS_PER_FILE = (
    256  # a row is about 1 kB: files of a quarter MB, read in one go, rewritten cheaply by `flush`
)
_QUALITY = 85
_MAX_LABELS = 255

Draw = Callable[[NDArray[np.uint8], Verdict], NDArray[np.uint8]]


class FolderSink:
    """Records results in a folder.

    At most `rows_per_file` rows are held; pictures are written at once and dropped.

    Args:
        out: made where it is missing; it must hold no rows yet (`Resumption` moves those of an earlier run).
        draw: makes the overlay.

    Raises:
        OutputError: a folder can't be made.
    """

    def __init__(
        self,
        out: Path,
        *,
        rows_per_file: int = ROWS_PER_FILE,
        draw: Draw = draw_overlay,
    ) -> None:
        self.out = out
        self._size = rows_per_file
        self._draw = draw
        self._rows: list[ResultRow] = []
        self._part = 0
        self._published = 0  # rows of the open part that are in its file already
        for name in (RESULTS, MASKS, OVERLAYS, DEAD_LETTERS):
            folder = out / name
            with explained(folder):
                folder.mkdir(parents=True, exist_ok=True)
                for left in folder.glob(f"*{PARTIAL}"):
                    left.unlink()  # of a run that was killed

    def write(self, result: Result) -> None:
        """See `pipeline.ports.Sink`. Pictures are on disk before the row is: a row never names what is not there.

        Raises:
            OutputError: the disk is full, or can't be written.
        """
        name = artifact_name(result.frame.frame_id)
        if result.verdict is None:
            write_dead_letter(self.out / DEAD_LETTERS, result)
        elif result.verdict.defects:
            labels = label_map(result.verdict, result.image_width, result.image_height)
            _write_image(self.out / MASKS / f"{name}.png", labels, "PNG")
            if result.pixels is not None:
                overlay = self._draw(result.pixels, result.verdict)
                _write_image(self.out / OVERLAYS / f"{name}.jpg", overlay, "JPEG", quality=_QUALITY)
        self.keep(to_row(result))

    def keep(self, row: ResultRow) -> None:
        """Take a finished row as it is (of a run that is resumed); its pictures lie in the folder already."""
        self._rows.append(row)
        if len(self._rows) >= self._size:
            self.flush()
            self._rows.clear()
            self._part += 1
            self._published = 0

    def flush(self) -> None:
        """Publish all rows; the open file is written again with each flush until it is full.

        Raises:
            OutputError: the disk is full, or can't be written.
        """
        if len(self._rows) == self._published:
            return
        with (
            write_whole(part_path(self.out, self._part), sync=True) as file,
            pa.ipc.new_file(file, SCHEMA) as writer,
        ):
            writer.write_batch(record_batch(self._rows))
        self._published = len(self._rows)

    def close(self) -> None:
        """Publish what is left."""
        self.flush()


def label_map(verdict: Verdict, width: int, height: int) -> NDArray[np.uint8]:
    """uint8 [height, width]: 0 background, i the i-th defect from 1. Of overlapping regions the worse one is seen.

    >>> from dapo.inspection import Evaluation
    >>> label_map(Verdict(Evaluation.OK, "", "", 0.1, None, None, ()), 3, 2).tolist()
    [[0, 0, 0], [0, 0, 0]]
    """
    labels = np.zeros((height, width), np.uint8)
    for number, defect in reversed(list(enumerate(verdict.defects[:_MAX_LABELS], start=1))):
        x, y, w, h = defect.bbox
        labels[y : y + h, x : x + w][defect.mask] = number
    return labels


def part_path(out: Path, number: int) -> Path:
    """Path of one file of rows."""
    return out / RESULTS / f"part-{number:06d}.arrow"


def parts(folder: Path) -> list[Path]:
    """All files of rows of a results folder, in order."""
    return sorted((folder / RESULTS).glob("part-*.arrow"))


def read_part(path: Path) -> list[ResultRow]:
    """Rows of one file.

    Raises:
        OutputError: it is no file of result rows.
    """
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
            return list(rows_of((reader.get_batch(i) for i in range(reader.num_record_batches)), ResultRow))
    except (OSError, pa.ArrowInvalid, SchemaError) as error:
        raise OutputError(f"{path}: can't be read: {error}. Move it away and run with --resume.") from error


def read_keys(path: Path) -> list[str]:
    """Frame keys of the rows of one file, without the rest.

    Raises:
        OutputError: it is no file of result rows.
    """
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
            keys: list[str] = reader.read_all().column("frame_key").to_pylist()
            return keys
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise OutputError(f"{path}: can't be read: {error}. Move it away and run with --resume.") from error


def read_results(out: Path) -> Iterator[ResultRow]:
    """All rows of a run, in the order of its source, a file at a time.

    Raises:
        OutputError: a file can't be read.
    """
    for path in parts(out):
        yield from read_part(path)


def _write_image(path: Path, pixels: NDArray[np.uint8], form: str, **options: int) -> None:
    # Encoded in memory first: an encoder that fails on a full disk raises errors of its own kinds.
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, form, **options)
    with write_whole(path) as file:
        file.write(encoded.getbuffer())
