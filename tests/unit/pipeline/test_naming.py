"""Names of masks, overlays and dead letters."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from pipeline.naming import artifact_name, printable


def test_equal_stems_in_different_folders_differ() -> None:
    names = {artifact_name(name) for name in ("a/x.png", "b/x.png", "x.png", "x.jpg", "a_x.png")}
    assert len(names) == 5
    assert all("x-" in name for name in names)


def test_frames_of_a_video_can_be_told_apart_by_people() -> None:
    assert artifact_name("clips/line 1.mp4#000012").startswith("line_1_000012-")


@given(st.text(max_size=400))
def test_every_name_is_a_safe_file_name(frame_id: str) -> None:
    name = artifact_name(frame_id)
    assert name == artifact_name(frame_id)
    assert name.isascii()
    assert len(name) < 100
    assert not set(name) & set('/\\:*?"<>|. ')


@given(st.binary(min_size=1, max_size=50))
def test_any_file_name_can_be_written_as_unicode(raw: bytes) -> None:
    assert printable(os.fsdecode(raw)).encode()


def test_umlauts_stay() -> None:
    assert printable("Prüfteil 検査.png") == "Prüfteil 検査.png"
