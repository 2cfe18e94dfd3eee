"""Views to parts: which parts wait for views, which are complete, which wait in vain. Pure: no log, no clock of its own.

A part is complete with as many views as it should have. One that does not say how many is closed when its time is over,
with the views it has. Memory is bounded: by the number of open parts, of views of each, and of keys remembered.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.ports import Partition
from schemas.ids import part_key
from schemas.parts import VIEW_MISSING, WORST_FIRST, PartRow, part_evaluation, view_of
from schemas.results import ResultRow

MAX_VIEWS = 1000  # of one part, as the header may say; a part that never ends is closed there
Key = bytes  # a part's key: 16 bytes


def key_of(row: ResultRow) -> Key | None:
    """The key of the part that a result is a view of; None where it is of none."""
    if not row.part_id:
        return None
    return uuid.UUID(part_key(row.line_id, row.product_id, row.part_id, row.job_id)).bytes


@dataclass(frozen=True, slots=True)
class View:
    """What is kept of one result: no masks."""

    view: dict[str, Any]
    station_id: str | None
    captured_at: datetime | None
    deadline_ms: float | None
    reason_code: str | None
    reason: str | None
    types: tuple[str, ...]
    configuration_hash: str | None

    @classmethod
    def of(cls, row: ResultRow) -> View:
        """The view that a result is."""
        types = tuple(sorted({defect["type"] for defect in row.defects or ()}))
        return cls(
            view_of(row), row.station_id, row.captured_at, row.deadline_ms, row.reason_code, row.reason,
            types, row.configuration_hash,
        )  # fmt: skip


@dataclass(slots=True)
class Part:
    """A part that waits for its views.

    Attributes:
        first: its first result, for the ids that all its views share.
        begun: when that was read, by the caller's clock, s.
        at: when that was written, by the broker's clock.
        number: tells it from an earlier part of the same key.
        views: by frame key, in the order they came.
        expected: how many it should have; None where nobody said.
    """

    key: Key
    part_key: str
    part_id: str
    line_id: str | None
    product_id: str | None
    job_id: str | None
    begun: float
    at: datetime
    number: int
    expected: int | None = None
    views: dict[str, View] = field(default_factory=dict)
    partitions: set[Partition] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        """Whether no view is waited for."""
        return len(self.views) >= (self.expected or MAX_VIEWS)

    @property
    def missing(self) -> int:
        """Views that it should have and has not."""
        return max(0, (self.expected or 0) - len(self.views))


class Joiner:
    """The open parts, oldest first.

    Args:
        timeout_s: how long a part waits for its views, from the first on.
        max_open: parts that wait at once; above it the oldest is closed as it is.
    """

    def __init__(self, timeout_s: float, max_open: int = 20_000) -> None:
        self.timeout_s = timeout_s
        self._max_open = max_open
        self._open: dict[Key, Part] = {}
        # Per partition, by offset: the first record of each part that has one there. Closed ones leave when they lead.
        self._firsts: dict[Partition, deque[tuple[int, Key, int]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def oldest(self) -> Part | None:
        """The part that has waited longest."""
        return next(iter(self._open.values()), None)

    def clear(self) -> None:
        """Forget all: reading starts over."""
        self._open.clear()
        self._firsts.clear()

    def add(
        self,
        key: Key,
        row: ResultRow,
        expected: int | None,
        at: Partition,
        offset: int,
        written: datetime,
        now: float,
    ) -> Part | None:
        """Take a result; the part it belongs to, or None where the part has this frame already.

        Args:
            expected: views of the part, as far as this result says; of several answers the largest counts.
            at, offset: where the result lies.
            written: when, by the broker's clock.
        """
        part = self._open.get(key)
        if part is None:
            name = part_key(row.line_id, row.product_id, row.part_id or "", row.job_id)
            self._count += 1
            ids = (row.part_id or "", row.line_id, row.product_id, row.job_id)
            part = self._open[key] = Part(key, name, *ids, now, written, self._count)
        if row.frame_key in part.views:
            return None
        part.views[row.frame_key] = View.of(row)
        if expected is not None:
            part.expected = max(part.expected or 0, min(expected, MAX_VIEWS))
        if at not in part.partitions:
            part.partitions.add(at)
            self._firsts.setdefault(at, deque()).append((offset, key, part.number))
        return part

    def overdue(self, now: float, *, all_read: bool) -> Iterator[Part]:
        """Parts that wait no longer, oldest first; the caller closes each as it comes.

        Args:
            all_read: every result that is written has been read. Only then is a view known to be missing: a result that
                lies unread in another partition is not late.
        """
        while part := self.oldest:
            if not (len(self._open) > self._max_open or (all_read and now - part.begun >= self.timeout_s)):
                return
            yield part

    def close(self, part: Part) -> None:
        """Let a part go: it has its verdict."""
        del self._open[part.key]

    def floor(self, at: Partition) -> int | None:
        """Offset of the first record in this partition that an open part needs; None where none needs any."""
        firsts = self._firsts.get(at)
        while firsts:
            offset, key, number = firsts[0]
            part = self._open.get(key)
            if part is not None and part.number == number:
                return offset
            firsts.popleft()
        return None


class Closed:
    """Keys of parts that have their verdict, so that a late view does not make a second one.

    Two sorts. Keys read back from the topic come with the time of their verdict: a view written before it has been part
    of it and is read again after a restart; one written after it is late. Of a part closed here every further view is.

    Args:
        most: keys, at most; some 100 bytes each.
    """

    def __init__(self, most: int = 1_000_000) -> None:
        self._most = most
        self._told: dict[Key, float] = {}
        self._here: dict[Key, float] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._here or key in self._told

    def __len__(self) -> int:
        return len(self._here) + len(self._told)

    def clear(self) -> None:
        """Forget all: reading starts over."""
        self._told.clear()
        self._here.clear()

    def tell(self, key: Key, at: datetime) -> None:
        """A verdict was found on the topic."""
        self._told[key] = at.timestamp()

    def close(self, key: Key, at: datetime) -> None:
        """A part is closed here, and now."""
        self._here[key] = at.timestamp()

    def is_late(self, key: Key, written: datetime) -> bool:
        """Whether a view of a closed part came after the verdict."""
        return key in self._here or written.timestamp() > self._told[key]

    @property
    def crowded(self) -> bool:
        """Whether there are more than there should be."""
        return len(self) > self._most

    def forget(self, before: datetime, needed: datetime) -> None:
        """Let keys go whose verdict is older than `before`; where it is crowded, all older than `needed`."""
        limit, last = before.timestamp(), needed.timestamp()
        for keys in (self._told, self._here):
            while keys and keys[first := next(iter(keys))] < (last if self.crowded else limit):
                del keys[first]


def verdict(part: Part, finished_at: datetime, waited_s: float) -> PartRow:
    """A part's row: the worst of its views; NotDecidable where one is missing, unless another is NotOK already.

    Args:
        waited_s: since its first view was read.
    """
    views = sorted(
        part.views.values(), key=lambda one: (one.captured_at is None, one.captured_at, one.view["frame_key"])
    )
    evaluation = part_evaluation((one.view["evaluation"] for one in views), part.expected)
    code, reason = _why(part, views, evaluation, waited_s)
    times = [one.captured_at for one in views if one.captured_at is not None]
    deadlines = [one.deadline_ms for one in views if one.deadline_ms is not None]
    deadline, last = min(deadlines, default=None), max(times, default=None)
    late = (
        None if deadline is None or last is None else (finished_at - last).total_seconds() * 1000 > deadline
    )
    return PartRow(
        part_key=part.part_key,
        part_id=part.part_id,
        line_id=part.line_id,
        station_id=_same(one.station_id for one in views),
        product_id=part.product_id,
        job_id=part.job_id,
        evaluation=evaluation,
        reason_code=code,
        reason=reason,
        views_expected=part.expected,
        views_seen=len(views),
        views=tuple(one.view for one in views),
        defect_types=tuple(sorted({kind for one in views for kind in one.types})),
        first_captured_at=min(times, default=None),
        last_captured_at=last,
        finished_at=finished_at,
        is_late=late,
        deadline_ms=deadline,
        configuration_hash=_same(one.configuration_hash for one in views),
    )


def _why(part: Part, views: list[View], evaluation: str, waited_s: float) -> tuple[str | None, str | None]:
    if part.missing and evaluation == "NotDecidable":
        return VIEW_MISSING, f"{len(views)} of {part.expected} views came within {waited_s:.1f} s."
    worst = min(views, key=lambda one: WORST_FIRST.index(one.view["evaluation"]))
    return worst.reason_code, worst.reason


def _same(values: Iterator[str | None] | Any) -> str | None:
    """The value that all share, else None."""
    different = set(values)
    return different.pop() if len(different) == 1 else None
