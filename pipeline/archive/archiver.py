"""Keep what the policy wants: images first, then the rows that point at them.

Nothing is kept in memory between batches but counts. So while the store is away a batch fails, its offsets stay
uncommitted, and the same batch is archived again later: every object has a name that follows from the frame.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.archive import manifest
from pipeline.archive.keys import image_key_of, media_of
from pipeline.archive.manifest import Entry
from pipeline.archive.policy import OF_OK_FRAMES, Policy, Reason, reason_to_keep
from pipeline.archive.quota import QuotaBook
from pipeline.ports import ObjectStore
from pipeline.store.names import s3_uri
from schemas.results import ResultRow

Loader = Callable[[], bytes | None]


@dataclass(frozen=True, slots=True)
class Item:
    """A result and the frame it was made of.

    Attributes:
        image: the encoded image as it arrived; or what fetches it, called only where the image is kept, and which gives
            None where the frame is gone for good (its topic's retention passed) and raises where it may come later.
        partition, offset: of the result on its topic.
    """

    row: ResultRow
    image: bytes | Loader
    partition: int
    offset: int


class Problem(StrEnum):
    """What is reported instead of being archived silently."""

    SHA256_MISMATCH = "sha256-mismatch"  # the bytes are not those that were inspected: not archived
    GONE = "gone"  # the bytes are no longer there, or were empty: not archived
    LINK_MISMATCH = (
        "link-mismatch"  # archived, but the row's image_uri points elsewhere: worker and archiver differ
    )


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a batch: `kept` + `passed` + `over_quota` + problems that were not archived = its items.

    Attributes:
        kept: images per reason.
        passed: frames that the policy does not want.
        over_quota: OK frames beyond their camera's quota.
        unverified: images kept of rows that name no SHA-256.
        bytes: of the images kept.
        problems: (kind, frame_key, message).
    """

    kept: Mapping[Reason, int] = field(default_factory=dict)
    passed: int = 0
    over_quota: int = 0
    unverified: int = 0
    bytes: int = 0
    problems: tuple[tuple[Problem, str, str], ...] = ()


class Archiver:
    """Archives batches of results, each in bounded memory: one image at a time, and the rows. Not thread-safe.

    Args:
        store: a bucket for images and manifest.
        policy: what to keep.
    """

    def __init__(self, store: ObjectStore, policy: Policy) -> None:
        self._store = store
        self._policy = policy
        self._quota = QuotaBook(store, policy.ok_per_day)

    def archive(self, batch: Iterable[Item]) -> Report:
        """Archive a batch, in the order of its offsets, one item after the other. Twice the same leaves the same objects.

        1. Ask policy and quota.
        2. Check each kept image against its row's SHA-256, and put it.
        3. Add the rows to the manifest: from here on the images are found.

        Raises:
            ServiceUnavailable: the store (or what an image is loaded from) is away; some images may be there, which no
                row points at yet. Call it with the same batch again.
            StoreError: it will not work (credentials, bucket, permission).
        """
        keeping = _Keeping(self._store)
        passed = over_quota = 0
        for item in batch:
            reason = reason_to_keep(item.row, self._policy)
            if reason is None:
                passed += 1
            elif reason in OF_OK_FRAMES and not self._quota.admits(item.row):
                over_quota += 1
            else:
                keeping.keep(item, reason)
        manifest.write(self._store, keeping.entries)
        return Report(
            kept=keeping.kept,
            passed=passed,
            over_quota=over_quota,
            unverified=keeping.unverified,
            bytes=keeping.bytes,
            problems=tuple(keeping.problems),
        )

    def reassigned(self) -> None:
        """Other partitions are read from now on: what another archiver kept meanwhile is counted anew."""
        self._quota.forget()


class _Keeping:
    """The images of one batch."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.entries: list[Entry] = []
        self.kept: Counter[Reason] = Counter()
        self.problems: list[tuple[Problem, str, str]] = []
        self.unverified = 0
        self.bytes = 0

    def keep(self, item: Item, reason: Reason) -> None:
        row = item.row
        data = item.image if isinstance(item.image, bytes) else item.image()
        if not data:
            self._tell(Problem.GONE, row, "its bytes are gone: keep frames longer, or archive sooner")
            return
        found = hashlib.sha256(data).hexdigest()
        if row.image_sha256 is None:
            self.unverified += 1
        elif row.image_sha256 != found:
            said = f"its bytes have SHA-256 {found}, those inspected had {row.image_sha256}"
            self._tell(Problem.SHA256_MISMATCH, row, said)
            return
        media = media_of(data)
        key = image_key_of(row, media.suffix)
        self._store.put(key, data, content_type=media.content_type)
        uri = s3_uri(self._store.bucket, key)
        if row.image_uri not in (None, uri):
            self._tell(Problem.LINK_MISMATCH, row, f"archived as {uri}, published as {row.image_uri}")
        self.entries.append(Entry(row, reason, key, item.partition, item.offset))
        self.kept[reason] += 1
        self.bytes += len(data)

    def _tell(self, problem: Problem, row: ResultRow, message: str) -> None:
        self.problems.append((problem, row.frame_key, f"frame {row.frame_id}: {message}"))
