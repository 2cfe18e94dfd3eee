"""Pruning: each reason its time, images before rows, twice the same as once."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from pipeline.archive import labels, manifest
from pipeline.archive.archiver import Archiver
from pipeline.archive.keys import image_key_of
from pipeline.archive.policy import Policy, Reason
from pipeline.archive.prune import Pruned, prune
from pipeline.archive.table import read
from pipeline.store.errors import StoreError, StoreUnavailable
from pipeline.testing import MemoryStore
from schemas.labels import LabelRow, label_row
from tests.unit.pipeline.archive.rows import NOON, make_item, make_row

ALL = Policy(near_margin=0, audit_rate=1)
SHORT, LONG = timedelta(days=30), timedelta(days=365)
RETENTION = {
    Reason.NOT_OK: LONG,
    Reason.NOT_DECIDABLE: LONG,
    Reason.FAILED: LONG,
    Reason.AUDIT: SHORT,
    Reason.NEAR_THRESHOLD: SHORT,
}


class Archive:
    """A store whose clock is that of the frames."""

    def __init__(self) -> None:
        self.now = NOON
        self.store = MemoryStore(clock=lambda: self.now)

    def keep(self, number: int, evaluation: str, at: datetime, **fields: object) -> str:
        self.now = at
        fields = {"captured_at": at, "finished_at": at, **fields}
        Archiver(self.store, ALL).archive([make_item(number, evaluation, **fields)])
        return image_key_of(make_row(number, evaluation, **fields), "png")

    def label(self, number: int, **fields: str) -> LabelRow:
        result = fields.pop("result_id", make_row(number).result_id)
        row = label_row(result, fields.pop("label", "good"), self.now, "cli", **fields)  # type: ignore[arg-type]
        labels.write(self.store, [labels.Entry(row, 0, len(list(labels.rows(self.store))))])
        return row

    def prune(self, at: datetime, **options: object) -> Pruned:
        return prune(self.store, RETENTION, now=at, **options)  # type: ignore[arg-type]

    def images(self) -> set[str]:
        return {one.key for one in self.store.list("frames/")}

    def rows(self) -> set[str]:
        files = [file for _, files in manifest.parts(self.store) for file in files]
        return {key for file in files for key in read(self.store, file.key)["object_key"].to_pylist()}


@pytest.fixture
def archive() -> Archive:
    return Archive()


def test_each_reason_has_its_time(archive: Archive) -> None:
    good, bad = archive.keep(0, "OK", NOON), archive.keep(1, "NotOK", NOON)
    assert archive.prune(NOON + SHORT) == Pruned()
    assert archive.images() == {good, bad}
    pruned = archive.prune(NOON + SHORT + timedelta(seconds=1))
    assert (dict(pruned.rows), pruned.images, pruned.files) == ({"audit": 1}, 1, 0)
    assert archive.images() == archive.rows() == {bad}
    archive.now = NOON + SHORT
    pruned = archive.prune(NOON + LONG + SHORT)
    assert (dict(pruned.rows), pruned.images, pruned.files) == ({"not-ok": 1}, 1, 1)
    assert list(archive.store.list()) == []


def test_a_dry_run_says_the_same_and_deletes_nothing(archive: Archive) -> None:
    for number in range(6):
        archive.keep(number, ["OK", "NotOK", "NotDecidable"][number % 3], NOON, line_id=f"l{number % 2}")
    before = [(one.key, one.etag) for one in archive.store.list()]
    for later in (SHORT, LONG):
        lines: list[str] = []
        now = NOON + later + timedelta(days=1)
        dry = archive.prune(now, dry_run=True, tell=lines.append)
        assert [(one.key, one.etag) for one in archive.store.list()] == before
    assert lines == [
        "day=2026-01-31 line=l0: 3 images; rows: 1 audit, 1 not-decidable, 1 not-ok",
        "day=2026-01-31 line=l1: 3 images; rows: 1 audit, 1 not-decidable, 1 not-ok",
    ]
    real: list[str] = []
    done = archive.prune(now, tell=real.append)
    assert real == lines
    assert (done.rows, done.images, done.strays, done.files) == (dry.rows, dry.images, dry.strays, dry.files)
    assert (done.images, done.strays, done.files) == (6, 0, 2)


def test_pruning_twice_is_pruning_once(archive: Archive) -> None:
    archive.keep(0, "OK", NOON)
    archive.keep(1, "NotOK", NOON)
    now = NOON + SHORT + timedelta(days=1)
    archive.prune(now)
    before = [(one.key, one.etag) for one in archive.store.list()]
    assert archive.prune(now) == Pruned()
    assert [(one.key, one.etag) for one in archive.store.list()] == before


def test_an_image_stays_while_any_row_points_at_it(archive: Archive) -> None:
    key = archive.keep(0, "OK", NOON)
    assert archive.keep(0, "NotOK", NOON, result_id="another configuration") == key
    pruned = archive.prune(NOON + SHORT + timedelta(days=1))
    assert (dict(pruned.rows), pruned.images) == ({"audit": 1}, 0)
    assert archive.images() == archive.rows() == {key}


@pytest.mark.parametrize("calls", range(11))
def test_a_prune_that_was_stopped_is_finished_by_the_next(calls: int) -> None:
    def filled() -> Archive:
        archive = Archive()
        for number in range(4):
            archive.keep(number, "OK" if number % 2 else "NotOK", NOON)
        archive.keep(9, "OK", NOON, line_id="l2")
        return archive

    now = NOON + SHORT + timedelta(days=1)
    whole, archive = filled(), filled()
    count = len(whole.store.calls)
    whole.prune(now)
    assert len(whole.store.calls) - count == 11  # so that the parameters above cover every call
    archive.store.calls_left = calls
    with pytest.raises(StoreUnavailable):
        archive.prune(now)
    archive.store.away, archive.store.calls_left = False, None
    assert archive.rows() >= archive.images()  # no image that nobody would ever find again
    archive.prune(now)
    assert [one.key for one in archive.store.list()] == [one.key for one in whole.store.list()]


def test_a_camera_with_a_wrong_clock_loses_nothing(archive: Archive) -> None:
    early = archive.keep(0, "OK", NOON, captured_at=datetime(1970, 1, 1, tzinfo=NOON.tzinfo))
    late = archive.keep(1, "OK", NOON, captured_at=datetime(2099, 1, 1, tzinfo=NOON.tzinfo))
    archive.prune(NOON + timedelta(days=1))
    assert archive.images() == {early, late}
    archive.prune(NOON + SHORT + timedelta(days=1))
    assert archive.images() == set()


def test_stray_images_go_when_nothing_so_old_is_kept(archive: Archive) -> None:
    archive.now = NOON
    archive.store.put("frames/l1/cam-1/2026/01/31/12/stray.png", b"1")
    archive.store.put("models/other", b"1")
    kept = archive.keep(1, "NotOK", NOON + timedelta(days=2))
    assert archive.prune(NOON + LONG - timedelta(days=1)) == Pruned()
    lines: list[str] = []
    pruned = archive.prune(NOON + LONG + timedelta(days=1), tell=lines.append)
    assert (pruned.images, pruned.strays) == (1, 1)
    assert lines == ["frames/: 1 images that no row points at"]
    assert archive.images() == {kept}
    assert archive.store.get("models/other") == b"1"


def test_what_is_kept_for_ever_is_never_looked_at(archive: Archive) -> None:
    archive.keep(0, "NotOK", NOON)
    archive.store.put("frames/stray.png", b"1")
    far = NOON + timedelta(days=100_000)
    assert prune(archive.store, {}, now=far) == Pruned()
    assert prune(archive.store, dict.fromkeys(Reason), now=far) == Pruned()
    pruned = prune(archive.store, {**RETENTION, Reason.NOT_OK: None}, now=far)
    assert pruned == Pruned()  # not even the stray: some row that is kept for ever may point at it
    assert len(archive.images()) == 2


def test_young_files_are_not_read(archive: Archive) -> None:
    archive.keep(0, "OK", NOON)
    count = len(archive.store.calls)
    archive.prune(NOON + timedelta(days=1))
    assert {verb for verb, _ in archive.store.calls[count:]} == {"list"}


def test_claim_checks_go_when_no_message_can_name_them_any_more(archive: Archive) -> None:
    kept = archive.keep(0, "NotOK", NOON)
    archive.store.put("claims/old", b"1")
    archive.now = NOON + timedelta(days=1)
    archive.store.put("claims/young", b"1")
    archive.store.put("claimsother", b"1")
    claims = {"claims_older_than": timedelta(days=20)}
    assert archive.prune(NOON + timedelta(days=20), **claims) == Pruned()
    now = NOON + timedelta(days=20, seconds=1)
    assert archive.prune(now) == Pruned()  # nobody said how long
    before = [(one.key, one.etag) for one in archive.store.list()]
    lines: list[str] = []
    dry = archive.prune(now, dry_run=True, tell=lines.append, **claims)
    assert [(one.key, one.etag) for one in archive.store.list()] == before
    assert archive.prune(now, tell=lines.append, **claims) == dry == Pruned(claims=1)
    assert lines == ["claims/: 1 frames that were too large for a message"] * 2
    assert {one.key for one in archive.store.list("claims")} == {"claims/young", "claimsother"}
    assert archive.images() == {kept}
    assert (
        prune(archive.store, {}, now=now + SHORT, **claims).claims == 1
    )  # also where images are kept for ever


class Interfering:
    """Delegates to a store; the archiver adds a row to a file of the manifest right after it was read."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def get(self, key: str) -> bytes:
        data = self._store.get(key)
        Archiver(self._store, ALL).archive([make_item(99, "NotOK")])
        return data


@pytest.mark.parametrize("evaluations", [("OK",), ("OK", "NotOK")])
def test_a_file_that_the_archiver_writes_meanwhile_is_left_to_the_next_prune(
    archive: Archive, evaluations: tuple[str, ...]
) -> None:
    for number, evaluation in enumerate(evaluations):
        archive.keep(number, evaluation, NOON)
    quiet = archive.store
    archive.store = Interfering(quiet)
    pruned = archive.prune(NOON + SHORT + timedelta(days=1))
    archive.store = quiet
    assert (pruned.busy, pruned.files) == (1, 0)
    assert make_row(99).frame_key in "".join(archive.rows())


def test_labelled_frames_stay_whatever_their_age(archive: Archive) -> None:
    labelled, other = archive.keep(0, "OK", NOON), archive.keep(1, "OK", NOON)
    bad = archive.keep(2, "NotOK", NOON)
    archive.label(0)
    archive.label(2, label="hole")
    now = NOON + LONG + timedelta(days=1)
    dry = archive.prune(now, dry_run=True)
    assert (dry.images, dry.rows.total(), dry.labelled, dry.strays) == (1, 1, 2, 0)
    assert archive.images() == {labelled, other, bad}
    archive.now = now
    assert archive.prune(now) == dry
    assert archive.images() == archive.rows() == {labelled, bad}
    # Their file is young by now, since a prune wrote it.
    assert archive.prune(now + timedelta(days=1)) == Pruned(labelled=2)
    assert archive.images() == archive.rows() == {labelled, bad}
    assert archive.prune(now, labelled_too=True).images == 2
    assert archive.images() == archive.rows() == set()
    assert [row.label for row in labels.rows(archive.store)] == [
        "good",
        "hole",
    ]  # what was said is never deleted


def test_a_label_that_was_replaced_keeps_nothing(archive: Archive) -> None:
    first, second = archive.keep(0, "OK", NOON), archive.keep(1, "OK", NOON)
    wrong = archive.label(0)
    archive.label(1, supersedes=wrong.label_id)
    archive.prune(NOON + SHORT + timedelta(days=1))
    assert archive.images() == archive.rows() == {second}
    assert first != second


def test_all_rows_of_a_labelled_frame_stay(archive: Archive) -> None:
    key = archive.keep(0, "OK", NOON)
    again = {"result_id": "another configuration"}
    assert archive.keep(0, "OK", NOON + timedelta(hours=1), captured_at=NOON, **again) == key
    archive.label(0, **again)
    pruned = archive.prune(NOON + SHORT + timedelta(days=1))
    assert (pruned.rows.total(), pruned.labelled) == (0, 1)
    [file] = [file for _, files in manifest.parts(archive.store) for file in files]
    assert len(read(archive.store, file.key)) == 2


def test_a_table_of_labels_that_cannot_be_read_stops_the_prune(archive: Archive) -> None:
    key = archive.keep(0, "OK", NOON)
    archive.store.put_if_absent(labels.file_key(0, 0), b"PAR1 no")
    with pytest.raises(StoreError, match=r"1999\.parquet"):
        archive.prune(NOON + LONG)
    assert archive.images() == {key}
