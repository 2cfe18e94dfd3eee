"""What lies in the archive, as training asks for it: days, rows of the manifest, images. The manifest is read day by day, and
of it only the columns that are needed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta

from dapo.errors import ServiceUnavailable, SourceError
from pipeline.archive import manifest
from pipeline.archive.keys import safe_segment, taken_at
from pipeline.archive.table import read
from pipeline.decode import Limits
from pipeline.ports import ObjectStore
from pipeline.store.errors import NotFound, StoreError
from pipeline.store.names import s3_uri

ANY_PRODUCT = "*"  # what a frame without a product is judged as
MAX_BYTES = Limits().max_bytes  # of an image
_MAX_DAYS = 3660


@dataclass(frozen=True)
class Days:
    """A span of days, both ends among them."""

    first: date
    last: date

    @classmethod
    def parse(cls, text: str, today: date) -> Days:
        """The days that a user means.

        >>> Days.parse("2d", date(2026, 1, 31))
        Days(first=datetime.date(2026, 1, 30), last=datetime.date(2026, 1, 31))

        Raises:
            SourceError: it says no days, or too many.
        """
        expected = "Expected archive:30d (the last 30 days) or archive:2026-11-01..2026-11-29."
        if last := re.fullmatch(r"([1-9][0-9]{0,3})d", text):
            found = cls(today - timedelta(days=int(last[1]) - 1), today)
        else:
            first, _, end = text.partition("..")
            try:
                found = cls(date.fromisoformat(first), date.fromisoformat(end))
            except ValueError as error:
                raise SourceError(f"archive:{text:.60}: says no days. {expected}") from error
        if not 0 <= (found.last - found.first).days < _MAX_DAYS:
            raise SourceError(f"archive:{text:.60}: is not 1 to {_MAX_DAYS} days. {expected}")
        return found

    def __iter__(self) -> Iterator[date]:
        return (self.first + timedelta(days=n) for n in range((self.last - self.first).days + 1))

    def __str__(self) -> str:
        return f"{self.first}..{self.last}"


@dataclass(frozen=True, slots=True)
class Judged:
    """What the manifest says of a frame: the columns of its newest result that training and choosing frames ask for."""

    result_id: str
    frame_key: str
    line_id: str | None
    camera_id: str | None
    part_id: str | None
    product_id: str | None
    captured_at: datetime | None
    finished_at: datetime
    result_state: str
    evaluation: str
    anomaly_score: float | None
    threshold_ok: float | None
    threshold_notok: float | None
    image_sha256: str | None
    configuration_hash: str | None
    kept_because: str
    object_key: str
    results_offset: int

    @property
    def product(self) -> str:
        return self.product_id or ANY_PRODUCT

    @property
    def taken(self) -> datetime:
        """When the picture was taken, UTC; where it does not say, the end of its inspection."""
        return taken_at(self.captured_at, self.finished_at)

    @property
    def group(self) -> str:
        """The part that the frame shows; where nobody said, its camera and hour: frames of one moment look alike."""
        camera = f"{safe_segment(self.line_id)}/{safe_segment(self.camera_id)}"
        return self.part_id or f"{camera} {self.taken:%Y-%m-%dT%H}"

    @property
    def standing(self) -> tuple[bool, datetime, int]:
        """Of several results of one frame the highest counts: one that was completed, then the newest."""
        return self.result_state == "Completed", self.finished_at, self.results_offset


@dataclass(frozen=True)
class StoredPicture:
    """An image in the archive.

    Args:
        sha256: of its bytes, as they were inspected; None where that is not known.
        max_bytes: more are not read.
    """

    store: ObjectStore
    key: str
    sha256: str | None
    max_bytes: int = MAX_BYTES

    @property
    def name(self) -> str:
        return s3_uri(self.store.bucket, self.key)

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            SourceError: they can't be had, are too many, or are not those that were inspected.
        """
        with told(self.name):
            data = self.store.get(self.key, max_bytes=self.max_bytes)
        if self.sha256 is not None and hashlib.sha256(data).hexdigest() != self.sha256:
            raise SourceError(
                f"{self.name}: its bytes are not those that were inspected. Put the image back."
            )
        return data

    def version(self) -> str:
        """Its SHA-256; where nobody knows that, its etag, which costs a request."""
        if self.sha256 is not None:
            return self.sha256
        with told(self.name):
            return self.store.stat(self.key).etag


def judged(store: ObjectStore, days: Days) -> Iterator[Judged]:
    """What the manifest says of these days: all results, also several of one frame.

    Raises:
        StoreUnavailable, StoreError: see `pipeline.ports.ObjectStore`.
    """
    columns = [field.name for field in fields(Judged)]
    for day in days:
        for _, files in manifest.parts(store, day):
            for file in files:
                try:
                    table = read(store, file.key, columns)
                except NotFound:
                    continue  # pruned since it was listed
                yield from (Judged(**values) for values in table.to_pylist())


@contextmanager
def told(name: str) -> Iterator[None]:
    """What goes wrong with the store in here is told as what it is read for."""
    try:
        yield
    except (StoreError, ServiceUnavailable) as error:
        raise SourceError(f"{name}: can't be read: {error}") from error
