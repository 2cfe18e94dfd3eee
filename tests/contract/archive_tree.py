"""The frames of `dataset_trees` in an archive: images and manifest as the archiver writes them, labels as they are synced."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from pipeline.archive import labels
from pipeline.archive.archiver import Archiver, Item
from pipeline.archive.policy import Policy
from pipeline.ports import ObjectStore
from pipeline.store.names import parse_s3_uri
from schemas.ids import frame_key, result_id
from schemas.labels import GOOD, label_row
from schemas.results import ResultRow
from schemas.rle import encode_mask
from tests.contract.dataset_trees import drawn, picture
from trainer.data.archive import ArchiveDataset
from trainer.data.archived import Days
from trainer.data.sample import Picture

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
DAYS = Days(date(2026, 1, 30), date(2026, 1, 31))
PRODUCTS = ["lid", "valve"]


def archive(store: ObjectStore, scratch: Path) -> ArchiveDataset:
    """Two products, three good frames and three scratches each. Rows name no hash, so that images may be changed."""
    items, said = [], []
    for product in PRODUCTS:
        for n in range(6):
            file = scratch / f"{product}-{n}.png"
            picture(file, n if n < 3 else 7 + n)
            row = result(f"{product}/{n}", product_id=product, captured_at=NOON + timedelta(seconds=n))
            items.append(Item(row, file.read_bytes(), 0, len(items)))
            label, mask = (GOOD, None) if n < 3 else ("scratch", encode_mask(drawn()))
            said.append(label_row(row.result_id, label, NOON, "cli", mask=mask))
    Archiver(store, Policy()).archive(items)
    labels.write(store, [labels.Entry(row, 0, number) for number, row in enumerate(said)])
    return ArchiveDataset(store, DAYS)


def result(frame_id: str, configuration: str = "c", **fields: object) -> ResultRow:
    """A NotOK result of a frame."""
    key = frame_key("memory://test", frame_id)
    usual = {
        "result_id": result_id(key, configuration),
        "frame_key": key,
        "frame_id": frame_id,
        "line_id": "l1",
        "camera_id": "cam-1",
        "captured_at": NOON,
        "started_at": NOON,
        "finished_at": NOON,
        "result_state": "Completed",
        "evaluation": "NotOK",
        "anomaly_score": 0.75,
        "threshold_ok": 0.25,
        "threshold_notok": 0.5,
    }
    return ResultRow(**{**usual, **fields})  # type: ignore[arg-type]


class StoredBytes:
    """The bytes behind a picture of the archive, as `pathlib.Path` names what is done with them."""

    def __init__(self, store: ObjectStore, picture: Picture) -> None:
        self._store = store
        _, self._key = parse_s3_uri(picture.name)
        self.name = self._key.rpartition("/")[2]

    def read_bytes(self) -> bytes:
        return self._store.get(self._key)

    def write_bytes(self, data: bytes) -> None:
        self._store.put(self._key, data)

    def unlink(self) -> None:
        self._store.delete(self._key)
