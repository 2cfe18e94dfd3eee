"""The frozen test: its name, and that it is new to both packs."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from dapo.errors import PackError, SourceError
from pipeline.testing import small_pack
from tests.unit.trainer.gate.frames import sample
from trainer.data.dataset import ProductData
from trainer.data.sample import State
from trainer.data.split import content_hash
from trainer.gate.testset import ToldUses, make_test_set, refuse_seen

GOOD, BAD = sample("good/1.png", 1), sample("scratch/1.png", 2, word="scratch")
NEW = sample("new/1.png", 3, state=State.UNLABELLED)


def made(*samples):
    return make_test_set([ProductData("lid", samples)])


def packs(**provenance):
    return {"champion": small_pack(), "challenger": replace(small_pack(), provenance=provenance)}


def test_labelled_frames_decide_and_others_wait():
    trained = sample("train/1.png", 4, split="train")
    done = []
    found = make_test_set([ProductData("lid", (GOOD, BAD, NEW, trained))], done.append)
    assert found.samples == (GOOD, BAD)
    assert found.unlabelled == (NEW,)
    assert done == [1, 1]


def test_the_name_is_that_of_contents_and_labels():
    name = made(GOOD, BAD).sha256
    renamed = replace(GOOD, key="other/1.png")
    assert made(BAD, renamed).sha256 == name
    assert made(GOOD, BAD, NEW).sha256 == name  # what nobody looked at says nothing
    assert made(GOOD).sha256 != name
    assert made(GOOD, sample("scratch/1.png", 2, word="hole")).sha256 != name
    assert made(GOOD, sample("scratch/1.png", 5, word="scratch")).sha256 != name


def test_a_picture_counts_once_and_may_not_have_two_labels():
    copy = replace(GOOD, key="good/2.png")
    found = made(GOOD, copy, BAD)
    assert found.samples == (GOOD, BAD)
    assert found.copies == 1
    assert found.sha256 == made(GOOD, BAD).sha256
    wrong = replace(BAD, key="hole/1.png", picture=GOOD.picture)
    with pytest.raises(
        SourceError, match=r"hole/1.png is the very picture of good/1.png, and labelled 'scratch'"
    ):
        made(GOOD, wrong)


@pytest.mark.parametrize("how", ["tuned_on", "calibrated_on"])
def test_a_frame_that_a_pack_was_made_with_is_named(how):
    said = r"scratch/1.png: the challenger was (tuned|calibrated) on this very picture"
    with pytest.raises(SourceError, match=said):
        refuse_seen(made(GOOD, BAD), packs(**{how: [content_hash(BAD)]}))
    refuse_seen(made(GOOD), packs(**{how: [content_hash(BAD)]}))
    refuse_seen(made(GOOD, BAD), packs())


def test_a_part_that_a_pack_was_made_with_is_refused_and_so_is_its_day():
    tested = sample("good/1.png", 1, group="7", day=date(2026, 1, 2))
    view = sample("train/1.png", 9, group="7", split="train")
    that_day = sample("train/2.png", 10, group="8", day=date(2026, 1, 2), split="train")
    seen = packs(tuned_on=[content_hash(view), content_hash(that_day)])
    with pytest.raises(
        SourceError, match=r"good/1.png shows the same part as train/1.png, which the challenger"
    ):
        refuse_seen(made(tested), seen, [view, that_day])
    refuse_seen(made(tested), seen, [that_day])
    with pytest.raises(SourceError, match=r"from the same day, as train/2.png"):
        refuse_seen(made(tested), seen, [that_day], by="day")
    refuse_seen(made(tested), packs(), [view, that_day], by="day")


@pytest.mark.parametrize("listed", [5, "abc", [1, 2], {"a": 1}])
def test_a_list_that_is_none_is_told(listed):
    with pytest.raises(PackError, match="tuned_on is no list of content hashes"):
        refuse_seen(made(GOOD), packs(tuned_on=listed))


def test_uses_that_are_told_are_not_kept():
    told = ToldUses(3)
    assert told.count("a") == 4
    assert told.uses("a") == 3
