"""Frames that wait: what is dropped, and when the reader has to pause."""

from __future__ import annotations

from pipeline.ports import Record
from pipeline.stream.inbox import Inbox
from pipeline.testing import DAY, frame

LARGE = b"x" * 1000


def put(inbox: Inbox, number: int, data: bytes = LARGE, line: str = "fast") -> None:
    record = Record("frames", 0, number, None, data, (), DAY)
    inbox.put(frame(f"f{number}", data, headers={"line_id": line}, record=record), 0)


def taken(inbox: Inbox) -> list[tuple[str, bool]]:
    found = []
    while (waiting := inbox.get(wait=False)) is not None:
        found.append((waiting.frame.frame_id, waiting.dropped))
    return found


def test_large_frames_of_a_realtime_line_are_dropped_before_the_reader_pauses():
    inbox = Inbox(200, 3000, lambda line: line == "fast")
    for number in range(8):
        assert not inbox.full
        put(inbox, number)
    assert not inbox.full
    assert taken(inbox) == [(f"f{number}", number < 5) for number in range(8)]


def test_what_is_dropped_says_which_limit_it_met_and_weighs_nothing():
    inbox = Inbox(200, 3000, lambda line: True)
    for number in range(4):
        put(inbox, number)
    old = inbox.get(wait=False)
    assert old is not None
    assert old.frame.error is not None
    assert "bytes" in old.frame.error[1]
    assert old.frame.data == b""
    assert old.frame.record is not None
    assert old.frame.record.value == b""


def test_a_frame_that_is_larger_than_the_limit_is_inspected_all_the_same():
    inbox = Inbox(200, 100, lambda line: True)
    put(inbox, 0)
    put(inbox, 1)
    assert taken(inbox) == [("f0", True), ("f1", False)]


def test_large_frames_of_a_capacity_line_make_the_reader_pause_and_none_is_dropped():
    inbox = Inbox(200, 3000, lambda line: line == "fast")
    for number in range(3):
        assert not inbox.full
        put(inbox, number, line="slow")
    assert inbox.full
    put(inbox, 3)  # the rest of the same poll
    assert [dropped for _, dropped in taken(inbox)] == [False] * 4


def test_drops_are_bounded_too():
    inbox = Inbox(4, 3000, lambda line: True)
    for number in range(8):
        assert not inbox.full
        put(inbox, number, b"x")
    assert inbox.full
