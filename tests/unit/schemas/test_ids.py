from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import frame_key, label_id, part_key, result_id

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
names = st.none() | st.text(max_size=4)


def test_ids_are_stable():
    """Readers drop duplicates by them: they may never change."""
    assert frame_key("camera/1", "frame-0") == "66fb3dcd-b09f-5ac4-8194-a11e404b10f2"
    assert part_key("line-1", "bottle", "part-17", "job-3") == "1de91d52-474d-5f39-83eb-91b9e1f757b2"
    assert label_id("r", "hole", "zoë", WHEN) == "f6f639f1-01e9-5be9-aa64-93fe3146240a"
    for key in (frame_key("a", "b"), result_id("a", "b"), part_key("a", "b", "c", "d")):
        assert uuid.UUID(key).version == 5


def test_source_and_id_are_kept_apart():
    assert frame_key("a", "bc") != frame_key("ab", "c")
    assert result_id("k", "1") != result_id("k", "2")


@given(
    st.tuples(names, names, st.text(max_size=4), names), st.tuples(names, names, st.text(max_size=4), names)
)
def test_two_parts_have_one_key_only_if_they_are_one_part(one, other):
    assert (part_key(*one) == part_key(*other)) == (one == other)


def test_a_label_said_again_is_the_same_label_in_every_time_zone():
    tokyo = WHEN.astimezone(timezone(timedelta(hours=9)))
    assert label_id("r", "hole", None, WHEN) == label_id("r", "hole", None, tokyo)


def test_another_statement_is_another_label():
    later = WHEN + timedelta(microseconds=1)
    said = [("r", "hole", "a", WHEN), ("s", "hole", "a", WHEN), ("r", "good", "a", WHEN)]
    said += [("r", "hole", None, WHEN), ("r", "hole", "", WHEN), ("r", "hole", "a", later)]
    assert len({label_id(*one) for one in said}) == len(said)


def test_a_label_needs_a_time_zone():
    with pytest.raises(ValueError, match="needs a time zone"):
        label_id("r", "hole", None, WHEN.replace(tzinfo=None))
