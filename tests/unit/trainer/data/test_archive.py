"""The archive as labelled data: which frames, what people say of them, and what the model said."""

from __future__ import annotations

import hashlib
from datetime import date, timedelta

import pytest

from dapo.errors import SourceError
from pipeline.archive import labels
from pipeline.archive.archiver import Archiver, Item
from pipeline.archive.policy import Policy
from pipeline.settings import load
from pipeline.testing import MemoryStore, encoded, surface
from schemas.labels import GOOD, LabelRow, label_row
from schemas.rle import encode_mask
from tests.contract.archive_tree import DAYS, NOON, result
from tests.contract.dataset_trees import drawn
from trainer.data.archive import ArchiveDataset, open_archive
from trainer.data.archived import Days
from trainer.data.open import Options, open_dataset
from trainer.data.sample import Sample, State
from trainer.data.split import group_of
from trainer.data.words import Words

PICTURE = encoded(surface())
SHA = hashlib.sha256(PICTURE).hexdigest()


class Archive:
    """A bucket, and whoever archives and labels."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.count = self.said = 0

    def keep(self, frame_id: str, configuration: str = "c", *, at: int = 0, **fields: object) -> str:
        """Archive a result; returns its id."""
        time = NOON + timedelta(minutes=at)
        usual = {"product_id": "lid", "captured_at": NOON, "finished_at": time, "image_sha256": SHA}
        row = result(frame_id, configuration, **{**usual, **fields})
        Archiver(self.store, Policy()).archive([Item(row, PICTURE, 0, self.count)])
        self.count += 1
        return row.result_id

    def label(self, result_id: str, label: str, minute: int = 0, **fields: object) -> LabelRow:
        when = NOON + timedelta(minutes=minute)
        row = label_row(result_id, label, when, "cli", **fields)  # type: ignore[arg-type]
        labels.write(self.store, [labels.Entry(row, 0, self.said)])
        self.said += 1
        return row

    def data(self, days: Days = DAYS, **options: object) -> ArchiveDataset:
        return ArchiveDataset(self.store, days, **options)  # type: ignore[arg-type]

    def sample(self, **options: object) -> Sample:
        [sample] = self.data(**options).product("lid").samples
        return sample


@pytest.fixture
def archive() -> Archive:
    return Archive()


def test_what_nobody_looked_at_is_unlabelled(archive):
    archive.keep("a")
    assert archive.sample().state is State.UNLABELLED
    assert archive.data().product("lid").test.samples == ()


def test_the_last_word_counts_and_each_defect_is_a_region(archive):
    one = archive.keep("a")
    archive.label(one, "hole")
    archive.label(one, GOOD, 1)
    assert (archive.sample().state, archive.sample().regions) == (State.GOOD, ())
    mask = encode_mask(drawn())
    archive.label(one, "faulty-imprint", 2, mask=mask)
    archive.label(one, "unknown", 3)
    sample = archive.sample()
    assert [region.word for region in sample.regions] == ["faulty imprint", None]
    assert [region.mask is not None for region in sample.regions] == [True, False]
    assert sample.regions[0].mask.shape() == drawn().shape
    assert (sample.words, sample.word, sample.drawn) == (("faulty imprint",), None, False)


def test_a_label_about_an_older_result_of_the_frame_counts(archive):
    first = archive.keep("a", "old", at=0)
    second = archive.keep("a", "new", at=1, anomaly_score=0.5)
    archive.label(first, "hole")
    [(sample, row)] = archive.data().judged("lid")
    assert (sample.words, row.result_id, row.anomaly_score) == (("hole",), second, 0.5)
    archive.label(second, GOOD, 1)
    assert archive.sample().state is State.GOOD


def test_a_result_that_was_completed_counts_before_a_newer_one_that_failed(archive):
    first = archive.keep("a", at=0)
    archive.keep("a", "other", at=1, result_state="Failed", evaluation="Undefined", anomaly_score=None)
    [(_, row)] = archive.data().judged("lid")
    assert row.result_id == first


def test_what_failed_is_there_only_where_somebody_labelled_it(archive):
    archive.keep("a")
    failed = archive.keep("b", result_state="Failed", evaluation="Undefined", anomaly_score=None)
    assert len(archive.data().product("lid").samples) == 1
    archive.label(failed, "hole")
    assert len(archive.data().product("lid").samples) == 2


def test_the_pack_s_words_and_the_user_s_are_used(archive, tmp_path):
    one = archive.keep("a")
    archive.label(one, "faulty-imprint")
    assert archive.sample(known={"faulty-imprint": "Faulty Imprint"}).words == ("Faulty Imprint",)
    file = tmp_path / "words.toml"
    file.write_text('[words]\nfaulty-imprint = "print"\n[product.lid.words]\ndust = "good"')
    words = Words((), file)
    assert archive.sample(known={"faulty-imprint": "x"}, words=words).words == ("print",)
    archive.label(one, GOOD, 1)
    archive.label(one, "dust", 2)
    assert archive.sample(words=words).state is State.GOOD


def test_products_days_and_groups(archive):
    archive.keep("a", part_id="p1")
    archive.keep("b", captured_at=NOON - timedelta(hours=13), camera_id="cam-2")
    archive.keep("c", captured_at=NOON - timedelta(hours=13, minutes=5), camera_id="cam-2")
    archive.keep("d", product_id=None, captured_at=None, finished_at=NOON)
    archive.keep("e", captured_at=NOON + timedelta(days=1))  # of another day than asked for
    data = archive.data()
    assert data.products() == ["*", "lid"]
    samples = data.product("lid").samples
    assert [sample.group for sample in samples] == ["l1/cam-2 2026-01-30T22", "l1/cam-2 2026-01-30T23", "p1"]
    assert [sample.day for sample in samples] == [date(2026, 1, 30), date(2026, 1, 30), date(2026, 1, 31)]
    [other] = data.product("*").samples
    assert (other.day, other.group) == (date(2026, 1, 31), "l1/cam-1 2026-01-31T12")
    assert len({group_of(sample) for sample in samples}) == 3
    assert archive.data(Days(date(2026, 1, 31), date(2026, 2, 1))).products() == ["*", "lid"]


def test_what_the_model_said_stands_beside_each_frame(archive):
    archive.keep("a", anomaly_score=0.875)
    [(sample, row)] = archive.data().judged("lid")
    assert sample.key == row.frame_key
    assert (row.anomaly_score, row.threshold_ok, row.threshold_notok) == (0.875, 0.25, 0.5)
    assert (row.evaluation, row.kept_because) == ("NotOK", "not-ok")


def test_only_needed_columns_of_the_wanted_days_are_read(archive):
    archive.keep("a")
    archive.keep("b", captured_at=NOON - timedelta(days=9))
    before = len(archive.store.calls)
    archive.data().products()
    read = [key for verb, key in archive.store.calls[before:] if verb == "get"]
    assert [key.split("/")[1] for key in read] == ["day=2026-01-31"]
    data = archive.data()
    data.products()
    before = len(archive.store.calls)
    data.product("lid")
    assert len(archive.store.calls) == before


def test_bytes_that_are_not_those_inspected_are_refused(archive):
    archive.keep("a")
    sample = archive.sample()
    before = len(archive.store.calls)
    assert sample.picture.version() == SHA
    assert len(archive.store.calls) == before
    [image] = archive.store.list("frames/")
    archive.store.put(image.key, encoded(surface(1)))
    with pytest.raises(SourceError, match=rf"s3://memory/{image.key}: its bytes are not those"):
        sample.image()


def test_a_large_image_is_not_read(archive):
    archive.keep("a")
    with pytest.raises(SourceError, match="more than the limit of 10"):
        archive.sample(max_bytes=10).image()


def test_a_store_that_is_away_is_told_as_what_it_is_read_for(archive):
    archive.keep("a", image_sha256=None)
    sample = archive.sample()
    archive.store.away = True
    with pytest.raises(SourceError, match=r"archive:2026-01-30\.\.2026-01-31: can't be read: .*away"):
        archive.data().products()
    for ask in (sample.image, sample.version):
        with pytest.raises(SourceError, match=r"s3://memory/frames/.*away"):
            ask()


def test_a_mask_that_cannot_be_one_is_named_by_its_label(archive):
    one = archive.keep("a")
    row = archive.label(one, "hole", mask={"size": [4, 4], "counts": "11"})
    with pytest.raises(SourceError, match=f"label {row.label_id} of result {one}"):
        archive.data().product("lid")
    archive.label(one, "hole", 1, supersedes=row.label_id)
    assert archive.sample().words == ("hole",)


def test_days_without_a_frame_are_told(archive):
    with pytest.raises(SourceError, match=r"no frame of these days is in s3://memory/"):
        archive.data().products()


def test_a_product_that_can_be_no_file_name_is_told(archive):
    archive.keep("a", product_id="../lid")
    data = archive.data()
    assert data.products() == ["../lid"]
    with pytest.raises(SourceError, match="can't be part of a file name"):
        data.product("../lid")


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("1d", ["2026-01-31"]),
        ("3d", ["2026-01-29", "2026-01-30", "2026-01-31"]),
        ("2025-12-31..2026-01-01", ["2025-12-31", "2026-01-01"]),
        ("2026-01-01..2026-01-01", ["2026-01-01"]),
    ],
)
def test_days_are_said_in_two_ways(text, days):
    assert [str(day) for day in Days.parse(text, NOON.date())] == days


@pytest.mark.parametrize(
    "text",
    ["", "d", "0d", "-1d", "9999d", "2026-01-01", "2026-01-02..2026-01-01", "a..b", "0001-01-01..2026-01-01"],
)
def test_what_says_no_days_is_told_what_does(text):
    with pytest.raises(SourceError, match=r"Expected archive:30d .* or archive:2026-11-01\.\.2026-11-29"):
        Days.parse(text, NOON.date())


def test_the_archive_is_opened_by_its_name():
    store = {"store.endpoint": "127.0.0.1:1", "store.access_key": "a", "store.secret_key": "b"}
    settings = load(store, environment={}).settings
    assert isinstance(open_dataset("archive:30d", Options(settings=settings)), ArchiveDataset)
    with pytest.raises(SourceError, match="says no days"):
        open_dataset("archive:/data", Options(settings=settings))
    with pytest.raises(SourceError, match=r"archive:.* can't be read: .*127\.0\.0\.1:1"):
        open_archive("1d", Words(), settings).products()
