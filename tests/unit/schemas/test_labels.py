from __future__ import annotations

from datetime import UTC, datetime

import pytest

from schemas.labels import label_row

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
