"""How many OK frames of a camera were kept today: counted from the manifest itself, so that a restart forgets nothing."""

from __future__ import annotations

from collections import OrderedDict, defaultdict

from pipeline.archive.keys import safe_segment
from pipeline.archive.manifest import Part
from pipeline.archive.policy import OF_OK_FRAMES
from pipeline.archive.table import read
from pipeline.ports import ObjectStore
from schemas.results import ResultRow

# Days times lines remembered at once; each holds at most quota times cameras keys. A line's frames are of one day, or two
# around midnight; a replay of old frames reads what it needs again.
_PARTS = 64


class QuotaBook:
    """Admits OK frames, first come first served, until a camera's quota of the day (UTC, of the pictures) is used.

    A frame that was admitted once is always admitted: a batch that is archived again keeps the same frames.

    Args:
        store: whose manifest is counted.
        per_day: frames per camera.
    """

    def __init__(self, store: ObjectStore, per_day: int) -> None:
        self._store = store
        self._per_day = per_day
        self._kept: OrderedDict[Part, dict[str, set[str]]] = OrderedDict()

    def admits(self, row: ResultRow) -> bool:
        """Is there room for this OK frame? Counts it where there is.

        A frame with an `image_uri` is promised to its readers: it is counted, and admitted whatever the quota.

        Raises:
            StoreUnavailable: the manifest can't be read now.
        """
        cameras = self._cameras(Part.of(row))
        kept = cameras[safe_segment(row.camera_id)]
        if row.frame_key not in kept and row.image_uri is None and len(kept) >= self._per_day:
            return False
        kept.add(row.frame_key)
        return True

    def forget(self) -> None:
        """Count again from the manifest: call it when this archiver is given other partitions."""
        self._kept.clear()

    def _cameras(self, part: Part) -> dict[str, set[str]]:
        if part not in self._kept:
            self._kept[part] = self._counted(part)
            if len(self._kept) > _PARTS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(part)
        return self._kept[part]

    def _counted(self, part: Part) -> dict[str, set[str]]:
        cameras: dict[str, set[str]] = defaultdict(set)
        for file in self._store.list(part.prefix):
            table = read(self._store, file.key, ["camera_id", "frame_key", "kept_because"])
            for camera, key, reason in zip(*(column.to_pylist() for column in table.columns), strict=True):
                if reason in OF_OK_FRAMES:
                    cameras[safe_segment(camera)].add(key)
        return cameras
