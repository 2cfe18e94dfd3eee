from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.labels import GOOD, LabelRow, in_force, label_row

WHEN = datetime(2026, 1, 2, tzinfo=UTC)
MASK = {"size": [1, 2], "counts": "11"}


def test_a_label_made_twice_is_one_label():
    first = label_row("r", "faulty-imprint", WHEN, "cli", author="a")
    again = label_row("r", "faulty-imprint", WHEN, "import", author="a", comment="from the list")
    assert first.label_id == again.label_id


@pytest.mark.parametrize("label", ["good", "unknown", "hole", "faulty-imprint-2"])
def test_slugs_are_labels(label):
    assert label_row("r", label, WHEN, "console").label == label


@pytest.mark.parametrize(
    "label", ["", "Hole", "faulty imprint", "-hole", "hole-", "a--b", "../x", "hole\n", "löch"]
)
def test_what_is_no_slug_is_refused(label):
    with pytest.raises(ValueError, match="expected the slug"):
        label_row("r", label, WHEN, "cli")


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match="label source 'mail': expected one of cli, import, console"):
        label_row("r", "hole", WHEN, "mail")


def test_a_good_frame_has_no_mask():
    with pytest.raises(ValueError, match="has no mask"):
        label_row("r", "good", WHEN, "cli", mask=MASK)
    assert label_row("r", "hole", WHEN, "cli", mask=MASK).mask == MASK


# --- What holds ------------------------------------------------------------------------------------------------------


def said(label: str, minute: int = 0, result: str = "r", **fields: object) -> LabelRow:
    return label_row(result, label, WHEN + timedelta(minutes=minute), "cli", **fields)  # type: ignore[arg-type]


def holds(*rows: LabelRow) -> list[str]:
    return [row.label for row in in_force(rows).get("r", ())]


def test_good_takes_back_all_before_it_and_a_defect_takes_back_good():
    assert holds(said("hole"), said(GOOD, 1)) == [GOOD]
    assert holds(said(GOOD), said("hole", 1), said("scratch", 2)) == ["hole", "scratch"]
    assert holds(said("scratch"), said(GOOD, 1), said("hole", 2)) == ["hole"]
    assert holds(said(GOOD, author="a"), said(GOOD, 1, author="b")) == [GOOD]


def test_a_label_that_was_replaced_is_out_and_who_replaced_it_stays_readable():
    wrong = said("hole", author="ann")
    better = said("scratch", 1, author="bob", supersedes=wrong.label_id)
    [row] = in_force([wrong, better])["r"]
    assert (row.label, row.author, row.labelled_at) == ("scratch", "bob", WHEN + timedelta(minutes=1))
    best = said(GOOD, 2, supersedes=better.label_id)
    assert holds(wrong, better, best) == [GOOD]
    assert in_force([wrong, said(GOOD, result="other", supersedes=wrong.label_id)]).keys() == {"other"}


def test_defects_stand_together_and_those_without_masks_once_a_type():
    first, again = said("hole", author="ann"), said("hole", 1, author="bob")
    drawn, other = said("hole", 2, mask=MASK), said("hole", 3, mask={"size": [1, 2], "counts": "02"})
    assert in_force([first, again, drawn, other])["r"] == (again, drawn, other)


def test_at_one_moment_the_id_decides():
    rows = [said(GOOD, author=name) for name in "abcd"] + [said("hole", author=name) for name in "abcd"]
    last = max(rows, key=lambda row: row.label_id)
    assert in_force(rows)["r"][-1] == last


def test_results_may_be_taken_together():
    rows = [said("hole", 0, "first"), said(GOOD, 1, "replayed")]
    assert {name: len(those) for name, those in in_force(rows).items()} == {"first": 1, "replayed": 1}
    assert in_force(rows, lambda row: "frame") == {"frame": (rows[1],)}


@st.composite
def histories(draw: st.DrawFn) -> list[LabelRow]:
    """Labels of two results, some of which replace another, and some of which were changed under one id."""
    rows: list[LabelRow] = []
    for _ in range(draw(st.integers(0, 8))):
        label = draw(st.sampled_from([GOOD, "hole", "scratch", "unknown"]))
        mask = draw(st.none() | st.just(MASK)) if label != GOOD else None
        replaced = draw(st.none() | st.sampled_from(rows)) if rows else None
        rows.append(
            said(
                label,
                draw(st.integers(0, 3)),
                draw(st.sampled_from("rs")),
                author=draw(st.sampled_from("ab")),
                mask=mask,
                supersedes=replaced.label_id if replaced else None,
            )
        )
    return rows + [
        replace(row, comment=draw(st.sampled_from("xy")))
        for row in draw(st.lists(st.sampled_from(rows)) if rows else st.just([]))
    ]


@given(histories(), st.randoms(use_true_random=False))
def test_neither_order_of_arrival_nor_what_comes_twice_matters(rows, random):
    expected = in_force(rows)
    again = rows + random.sample(rows, len(rows) // 2)
    random.shuffle(again)
    assert in_force(again) == expected
    for those in expected.values():
        assert those
        assert len(those) == 1 or all(row.label != GOOD for row in those)
        assert list(those) == sorted(those, key=lambda row: (row.labelled_at, row.label_id))


@given(histories())
def test_what_holds_is_the_same_when_it_is_asked_again(rows):
    expected = in_force(rows)
    assert in_force([row for those in expected.values() for row in those]) == expected
