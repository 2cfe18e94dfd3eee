"""Where images lie: readable, the same for everyone, and safe whatever cameras call themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.archive.keys import UNKNOWN, image_key, image_key_of, media_of, safe_segment, taken_at
from pipeline.store.names import checked_key
from pipeline.testing import encoded, surface
from tests.unit.pipeline.archive.rows import make_row

HOSTILE = ["../../etc/passwd", "a/b", "..", ".", "", " ", "a b", "ä", "A\x00", "x" * 500, "a__b", "_", "-rf", "=", "line=1",
           "%2e%2e", "a\\b", "\ud800", "\U0001f4f7", "a\n", "con", "*", "s3://b"]  # fmt: skip
NAMES = st.one_of(st.text(max_size=80), st.sampled_from(HOSTILE), st.from_regex(r"\A[A-Za-z0-9_.-]{1,70}\Z"))


@given(NAMES)
@example("a__b")
def test_every_name_becomes_one_safe_segment(name: str) -> None:
    segment = safe_segment(name)
    assert "/" not in segment
    assert checked_key(segment) == segment
    assert checked_key(f"line={segment}")
    assert len(segment) <= 64
    assert safe_segment(name) == segment


@given(NAMES, NAMES)
def test_different_names_never_share_a_segment(one: str, other: str) -> None:
    assert (safe_segment(one) == safe_segment(other)) == (one == other)


@given(NAMES)
def test_no_name_takes_the_segment_of_another(name: str) -> None:
    """Not even one that was made from the other's segment."""
    segment = safe_segment(name)
    if segment != name:
        assert safe_segment(segment) != segment


def test_hostile_names_stay_apart() -> None:
    assert len({safe_segment(name) for name in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("name", ["l1", "cam-1", "10.0.0.5", "Line_2", "a" * 64])
def test_usual_names_stay_as_they_are(name: str) -> None:
    assert safe_segment(name) == name


def test_the_key_of_an_image() -> None:
    one = make_row(0, captured_at=datetime(2026, 1, 31, 23, 59, tzinfo=UTC))
    assert image_key_of(one, "png") == f"frames/l1/cam-1/2026/01/31/23/{one.frame_key}.png"


def test_the_hour_is_utc_and_that_of_the_picture() -> None:
    east = datetime(2026, 2, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert "/2026/01/31/23/" in image_key_of(make_row(0, captured_at=east), "png")
    assert "/2026/01/31/12/" in image_key_of(make_row(0, captured_at=None), "png")
    assert taken_at(datetime(2026, 1, 31), datetime(2026, 2, 1, tzinfo=UTC)) == datetime(
        2026, 1, 31, tzinfo=UTC
    )
    assert "/0001/01/01/00/" in image_key_of(make_row(0, captured_at=datetime(1, 1, 1, tzinfo=UTC)), "png")


@given(NAMES, NAMES, NAMES, st.datetimes(timezones=st.just(UTC)))
def test_no_row_makes_an_unsafe_key(line: str, camera: str, frame: str, when: datetime) -> None:
    key = image_key(line_id=line, camera_id=camera, taken=when, frame_key=frame, suffix="bin")
    assert checked_key(key) == key
    assert key.startswith("frames/")
    assert key.count("/") == 7


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        ("JPEG", "jpg"),
        ("PNG", "png"),
        ("BMP", "bmp"),
        ("TIFF", "tiff"),
        ("WEBP", "webp"),
        ("GIF", "gif"),
        ("PPM", "pnm"),
    ],
)
def test_the_suffix_is_found_by_content(form: str, suffix: str) -> None:
    media = media_of(encoded(surface(), form))
    assert media.suffix == suffix
    assert media.content_type.startswith("image/")


@given(st.binary(max_size=20))
@example(b"<html><script>")
@example(b"")
def test_what_is_no_image_is_never_called_one(data: bytes) -> None:
    media = media_of(data)
    assert (
        media == UNKNOWN
        or data[:2] in (b"\xff\xd8", b"\x89P", b"BM", b"II", b"MM", b"RI", b"GI")
        or data[:1] == b"P"
    )
    assert media.content_type == "application/octet-stream" or media.content_type.startswith("image/")
