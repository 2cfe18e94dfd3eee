"""Delete what is older than its reason is kept: images first, then the rows that point at them.

Idempotent: a prune that was stopped is finished by the next. An image is deleted when no row that stays points at it; one
that no row points at any more (or ever did) when it is older than the longest time. Age is counted from the end of the
inspection, so that a camera with a wrong clock loses nothing. Frames with a label are people's work: they stay.

Frames that were too large for a message (`claims/`) have no row; they go when no message can name them any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive import labels, manifest
from pipeline.archive.keys import CLAIMS, FRAMES
from pipeline.archive.manifest import Part
from pipeline.archive.policy import Reason
from pipeline.archive.table import CONTENT_TYPE, read
from pipeline.ports import ObjectStore, Stored
from pipeline.store.errors import Conflict, NotFound
from schemas.labels import in_force

Retention = Mapping[Reason, timedelta | None]


@dataclass(slots=True)
class Pruned:
    """What was deleted, or would be.

    Attributes:
        rows: per reason.
        images: objects.
        strays: images of these that no row pointed at.
        claims: frames that were too large for a message.
        files: of the manifest, gone as a whole.
        busy: files of the manifest that the archiver wrote meanwhile; the next prune takes them.
        labelled: images past their time that stay, with their rows, since a label in force is about them.
    """

    rows: Counter[str] = field(default_factory=Counter)
    images: int = 0
    strays: int = 0
    claims: int = 0
    files: int = 0
    busy: int = 0
    labelled: int = 0


@dataclass(frozen=True, slots=True)
class _File:
    stored: Stored
    table: pa.Table
    old: pa.Array  # bool per row: past its time


def prune(
    store: ObjectStore,
    older_than: Retention,
    *,
    now: datetime,
    claims_older_than: timedelta | None = None,
    labelled_too: bool = False,
    dry_run: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Pruned:
    """Delete images, rows and claims past their time.

    Args:
        older_than: how long each reason is kept; None, or a reason that is missing: for ever.
        now: UTC.
        claims_older_than: how long large frames are kept, from when they were written; None: for ever.
        labelled_too: delete frames past their time whatever people said of them.
        dry_run: delete nothing, count the same.
        tell: gets one line per partition of the manifest that changes, and one for stray images, one for claims.

    Raises:
        StoreUnavailable: stopped half-way; prune again.
        StoreError: see `pipeline.ports.ObjectStore`.
    """
    cutoffs = {reason: now - age for reason, age in older_than.items() if age is not None}
    pruned = Pruned()
    if claims_older_than is not None:
        _prune_claims(store, now - claims_older_than, pruned, dry_run, tell)
    if not cutoffs:
        return pruned
    labelled: Collection[str] = () if labelled_too else in_force(labels.rows(store, masks=False)).keys()
    youngest = max(cutoffs.values())
    for part, files in manifest.parts(store):
        # A file that a prune or a late archiver wrote is younger than its rows, a camera's clock may be ahead: where both the
        # day and all files are young, so are the rows.
        if part.day < youngest.date() or min(file.modified for file in files) < youngest:
            _prune_part(store, part, files, cutoffs, labelled, pruned, dry_run, tell)
    if len(cutoffs) == len(Reason):
        _prune_strays(store, min(cutoffs.values()), pruned, dry_run, tell)
    return pruned


def _prune_part(
    store: ObjectStore,
    part: Part,
    stored: list[Stored],
    cutoffs: Mapping[Reason, datetime],
    labelled: Collection[str],
    pruned: Pruned,
    dry_run: bool,
    tell: Callable[[str], None],
) -> None:
    files = [_examined(store, file, cutoffs) for file in stored]
    going = _keys(file.table.filter(file.old) for file in files)
    # All results of one image are in one part: where one of them is labelled, all stay.
    kept = {key for file in files for key in _labelled(file.table, labelled)} & going
    pruned.labelled += len(kept)
    files = [
        replace(file, old=pc.and_not(file.old, _is_in(file.table["object_key"], kept))) for file in files
    ]
    going -= kept | _keys(file.table.filter(pc.invert(file.old)) for file in files)
    reasons: Counter[str] = Counter()
    for file in files:
        reasons.update(file.table.filter(file.old)["kept_because"].to_pylist())
    if not reasons:
        return
    said = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    tell(f"day={part.day} line={part.line}: {len(going)} images; rows: {said}")
    pruned.rows += reasons
    pruned.images += len(going)
    if not dry_run:
        for key in sorted(going):
            store.delete(key)
    for file in files:
        _prune_file(store, file, pruned, dry_run)


def _examined(store: ObjectStore, file: Stored, cutoffs: Mapping[Reason, datetime]) -> _File:
    table = read(store, file.key)
    old = pa.array([False] * len(table))
    for reason, cutoff in cutoffs.items():
        before = pc.less(table["finished_at"], pa.scalar(cutoff, table["finished_at"].type))
        old = pc.or_(old, pc.and_(pc.equal(table["kept_because"], reason.value), before))
    return _File(file, table, old)


def _keys(tables: Iterable[pa.Table]) -> set[str]:
    return {key for table in tables for key in table["object_key"].to_pylist()}


def _labelled(table: pa.Table, results: Collection[str]) -> list[str]:
    """Keys of the images of these results."""
    found: list[str] = table.filter(_is_in(table["result_id"], results))["object_key"].to_pylist()
    return found


def _is_in(column: pa.ChunkedArray, values: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(list(values), pa.utf8()))


def _prune_file(store: ObjectStore, file: _File, pruned: Pruned, dry_run: bool) -> None:
    """Write a file without its expired rows; delete it where none stays."""
    left = file.table.filter(pc.invert(file.old))
    if len(left) == len(file.table):
        return
    if not dry_run:
        try:
            _replace(store, file.stored, left)
        except (Conflict, NotFound):
            pruned.busy += 1
            return
    pruned.files += len(left) == 0


def _replace(store: ObjectStore, stored: Stored, left: pa.Table) -> None:
    """Raises Conflict or NotFound where the file is another by now."""
    if len(left):
        store.replace(stored.key, manifest.TABLE.encode(left), stored.etag, content_type=CONTENT_TYPE)
        return
    if store.stat(stored.key).etag != stored.etag:
        raise Conflict(f"{stored.key}: the archiver was first.")
    # S3 has no conditional DELETE that all servers know. Nothing is lost in between: a replayed frame's result has a new
    # offset, so it goes to another file.
    store.delete(stored.key)


def _prune_strays(
    store: ObjectStore, cutoff: datetime, pruned: Pruned, dry_run: bool, tell: Callable[[str], None]
) -> None:
    """Images that were written before anything that is still kept, and that no row points at."""
    strays = 0
    pointed: dict[Part, set[str]] = {}
    for image in store.list(f"{FRAMES}/"):
        if image.modified < cutoff and not _pointed_at(store, image.key, pointed):
            strays += 1
            if not dry_run:
                store.delete(image.key)
    if strays:
        tell(f"{FRAMES}/: {strays} images that no row points at")
    pruned.strays += strays
    pruned.images += strays


def _pointed_at(store: ObjectStore, image: str, known: dict[Part, set[str]]) -> bool:
    """Whether a row points at an image; `known` has the images of the parts that were asked for before."""
    part = Part.of_image(image)
    if part is None:
        return False
    if part not in known:
        known[part] = _keys(read(store, file.key, ["object_key"]) for file in store.list(part.prefix))
    return image in known[part]


def _prune_claims(
    store: ObjectStore, cutoff: datetime, pruned: Pruned, dry_run: bool, tell: Callable[[str], None]
) -> None:
    """Large frames whose messages, and the dead letters made of them, are gone from their topics."""
    for claim in store.list(f"{CLAIMS}/"):
        if claim.modified < cutoff:
            pruned.claims += 1
            if not dry_run:
                store.delete(claim.key)
    if pruned.claims:
        tell(f"{CLAIMS}/: {pruned.claims} frames that were too large for a message")
