"""The ledger, counted again from the topics themselves: what came in, what came out, and what does not match.

    frames         messages, distinct frames, gaps in the cameras' sequences
    results        a row for each message: Completed, Failed or Aborted
    dead letters   one for each Failed row
    defects        one row for each region that a result row lists

A frame that was fed twice has two messages and, rightly, two rows: what must agree is rows and messages of one `frame_key`.
Frames that the worker has not come to yet are `waiting`, not missing.

Memory: 16 bytes a frame as the key in a hash table, some 100 bytes with Python's own share: a million frames take 100 MB.
As much for a defect, until its row on its own topic is found. Images are read and let go.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.ports import Record
from pipeline.stream.frames import ATTEMPT, read_frame
from schemas.codec import SchemaError, decode_defects, decode_results
from schemas.ids import frame_key
from schemas.results import ResultRow

Place = tuple[int, int]  # partition and offset of a frame


@dataclass(slots=True)
class Account:
    """One camera, or all together.

    Attributes:
        frames: distinct.
        messages: of these frames.
        fed_again: messages of frames that had been there before.
        waiting: messages that the worker has not come to.
        gaps: numbers missing in the sequence: lost before Kafka.
        rows: result rows of these messages.
        missing: messages without a row.
        doubled: rows without a message of their own.
        failed, dead_letters: must agree one to one; `unmatched` are those that do not.
        listed: defects in result rows.
        published: rows on the topics of defects.
        astray: defects that were listed and not published, or the other way round.
    """

    frames: int = 0
    messages: int = 0
    fed_again: int = 0
    waiting: int = 0
    gaps: int = 0
    rows: int = 0
    completed: int = 0
    failed: int = 0
    aborted: int = 0
    missing: int = 0
    doubled: int = 0
    dead_letters: int = 0
    unmatched: int = 0
    listed: int = 0
    published: int = 0
    astray: int = 0

    @property
    def balanced(self) -> bool:
        """Whether nothing is missing, doubled or unmatched. Gaps and frames fed again are the sender's affair."""
        return not (self.missing or self.doubled or self.unmatched or self.astray)

    def add(self, other: Account) -> None:
        """Add another account to this one."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(slots=True)
class _Camera:
    account: Account = field(default_factory=Account)
    balance: dict[bytes, int] = field(default_factory=dict)  # frame key -> messages without a row
    regions: dict[bytes, int] = field(default_factory=dict)  # result and index of defects not published yet
    last_sequence: int | None = None


class Recount:
    """Takes every record: first all frames, then all results, then dead letters and defects in any order.

    Args:
        due: per partition of the frames topic the offset that the workers have come to; what lies behind it is waiting.
            None, or a partition that is not in it: everything is due.

    Attributes:
        unreadable: messages that are not what their topic holds.
    """

    def __init__(self, due: Mapping[int, int] | None = None) -> None:
        self._due = dict(due or {})
        self._first: dict[int, int] = {}  # rows of frames before it are of frames that are deleted
        self._end: dict[int, int] = {}
        self._cameras: dict[str, _Camera] = {}
        self._failed: dict[Place, _Camera] = {}
        self.unreadable = 0

    def frame(self, record: Record) -> None:
        """Count one message of the frames topic."""
        frame = read_frame(record)
        camera = self._camera(frame.camera_id)
        account = camera.account
        self._first.setdefault(record.partition, record.offset)
        if record.offset >= self._due.get(record.partition, record.offset + 1):
            account.waiting += 1
            return
        self._end[record.partition] = record.offset + 1
        key = uuid.UUID(frame_key(frame.source, frame.frame_id)).bytes
        account.messages += 1
        if key in camera.balance:
            account.fed_again += 1
        else:
            account.frames += 1
        camera.balance[key] = camera.balance.get(key, 0) + 1
        if frame.sequence is not None and ATTEMPT not in frame.headers:  # a replay comes out of turn
            last, camera.last_sequence = camera.last_sequence, frame.sequence
            if last is not None and frame.sequence > last:
                account.gaps += frame.sequence - last - 1

    def result(self, record: Record) -> None:
        """Count one message of the results topic."""
        try:
            rows = [(row, uuid.UUID(row.frame_key).bytes) for row in decode_results(record.value)]
            for row, _ in rows:
                uuid.UUID(row.result_id)
        except (SchemaError, ValueError):
            self.unreadable += 1
            return
        for row, key in rows:
            self._row(row, key)

    def dead_letter(self, record: Record) -> None:
        """Count one message of the dead letters."""
        said = dict(record.headers)  # ours come last, whatever the frame's own were
        try:
            place = (int(said["__connect.errors.partition"]), int(said["__connect.errors.offset"]))
        except (KeyError, ValueError):
            self.unreadable += 1
            return
        if not self._counts(place):
            return
        camera = self._failed.pop(place, None)
        if camera is None:  # no row said so, or one letter had been there
            camera = self._camera(read_frame(record).camera_id)
            camera.account.unmatched += 1
        camera.account.dead_letters += 1

    def defect(self, record: Record) -> None:
        """Count one message of a topic of defects."""
        try:
            rows = [(row, uuid.UUID(row.frame_key).bytes) for row in decode_defects(record.value)]
            regions = [_region(row.result_id, row.defect_index) for row, _ in rows]
        except (SchemaError, ValueError):
            self.unreadable += 1
            return
        for (row, key), region in zip(rows, regions, strict=True):
            camera = self._camera(row.camera_id or "")
            if key in camera.balance:
                camera.account.published += 1
                _change(camera.regions, region, -1)

    def cameras(self) -> dict[str, Account]:
        """The account of each camera, by name; "" has the frames whose headers can't be read."""
        unmatched = list(self._failed.values())
        found = {}
        for name, camera in sorted(self._cameras.items()):
            account = Account(**asdict(camera.account))
            account.missing = sum(count for count in camera.balance.values() if count > 0)
            account.doubled = -sum(count for count in camera.balance.values() if count < 0)
            account.astray = sum(map(abs, camera.regions.values()))
            account.unmatched += sum(one is camera for one in unmatched)
            if any(asdict(account).values()):
                found[name] = account
        return found

    def _camera(self, name: str) -> _Camera:
        return self._cameras.setdefault(name, _Camera())

    def _row(self, row: ResultRow, key: bytes) -> None:
        camera = self._camera(row.camera_id or "")
        account = camera.account
        if (
            key in camera.balance
        ):  # also of a message out of sight: its defects can't be told from those of this one
            for index, _ in enumerate(row.defects or ()):
                account.listed += 1
                _change(camera.regions, _region(row.result_id, index), 1)
        if row.frames_partition is None or row.frames_offset is None:
            return  # not of this stream
        place = (row.frames_partition, row.frames_offset)
        if not self._counts(place):
            return
        account.rows += 1
        account.completed += row.result_state == "Completed"
        account.aborted += row.result_state == "Aborted"
        if row.result_state == "Failed":
            account.failed += 1
            self._failed[place] = camera
        camera.balance[key] = camera.balance.get(key, 0) - 1

    def _counts(self, place: Place) -> bool:
        """Whether the frame of this place is among those that were counted."""
        partition, offset = place
        return self._first.get(partition, offset + 1) <= offset < self._end.get(partition, 0)


def _region(result_id: str, index: int) -> bytes:
    return uuid.UUID(result_id).bytes + index.to_bytes(4, "big", signed=True)


def _change(counts: dict[bytes, int], key: bytes, by: int) -> None:
    """Count, and keep what is not even."""
    count = counts.pop(key, 0) + by
    if count:
        counts[key] = count


def totals(accounts: Mapping[str, Account], unreadable: int = 0) -> dict[str, Any]:
    """All cameras together, as `dapo ledger --json` prints it."""
    total = Account()
    for account in accounts.values():
        total.add(account)
    return {
        "cameras": len(accounts),
        **asdict(total),
        "unreadable": unreadable,
        "dead_letters_match": total.unmatched == 0,
        "defects_match": total.astray == 0,
        "balanced": all(one.balanced for one in accounts.values()) and not unreadable,
    }
