"""Dead letters: chosen, and sent back as they first came, each once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dapo.errors import SettingsError
from pipeline.ports import Record, Result
from pipeline.stream.dead_letters import (
    Selection,
    chosen,
    original,
    parse_place,
    printable,
    read_letter,
    replay,
)
from pipeline.stream.frames import read_frame
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import dead_letter
from pipeline.testing import CONFIGURATION, DAY

TOPICS = Topics("test")
OWN = (("ce_id", b"f1"), ("ce_source", b"s"), ("camera_id", b"cam"), ("x-plant", b"\xff\x00"))


def letter(offset=0, *, headers=OWN, code="not-an-image", stage="decode", value=b"no image", message="why"):
    came = Record(TOPICS.frames, 1, 40 + offset, b"key", value, tuple(headers), DAY)
    failed = Result(
        read_frame(came), None, (stage, code, message), 0, 0, "", None, DAY, DAY, 0.0, 0.0, 0.0, CONFIGURATION
    )
    made = dead_letter(failed, TOPICS)
    return Record(TOPICS.dead_letters, 0, offset, made.key, made.value, made.headers, DAY)


class Outlet:
    """Keeps what is written; `dies_after` this many writes, as a killed process does."""

    def __init__(self) -> None:
        self.at, self.messages, self.opened, self.dies_after = 0, [], 0, 10**9

    def open(self):
        self.opened += 1
        return self

    def position(self):
        return self.at

    def write(self, messages, position):
        if self.dies_after == 0:
            raise KeyboardInterrupt
        self.dies_after -= 1
        self.messages += messages
        self.at = position


def run(records, outlet, selection=None, **options):
    return replay(records, selection or Selection(), TOPICS.frames, outlet.open, **options)


def test_a_letter_says_what_went_wrong():
    found = read_letter(letter(7, message="line\none"))
    assert (found.place, found.camera, found.frame_id) == ("0/7", "cam", "f1")
    assert (found.stage, found.code, found.message) == ("decode", "not-an-image", "line one")
    assert (found.attempt, found.size) == (0, 8)


def test_a_letter_whose_headers_are_hostile_is_still_listed():
    headers = [
        ("ce_id", b"\xff\x1b[2J"),
        ("inspect.code", b"fake"),
        ("inspect.attempt", b"-1"),
        ("n\x07", b""),
    ]
    found = read_letter(letter(headers=headers))
    assert found.code == "not-an-image"
    assert "\x1b" not in found.frame_id
    assert found.attempt == 0
    assert read_letter(Record("t", 0, 0, None, b"", (), DAY)).code == ""


@pytest.mark.parametrize(
    ("selection", "offsets"),
    [
        (Selection(), [0, 1, 2]),
        (Selection(code="empty"), [1]),
        (Selection(stage="read"), [1]),
        (Selection(camera="other"), [2]),
        (Selection(code="empty", camera="other"), []),
    ],
)
def test_letters_are_chosen_by_code_stage_and_camera(selection, offsets):
    other = (("ce_id", b"1"), ("ce_source", b"other"))
    records = [letter(0), letter(1, code="empty", stage="read"), letter(2, headers=other)]
    assert [record.offset for _, record in chosen(records, selection)] == offsets


def test_a_replay_sends_the_frame_as_it_first_came_and_counts():
    message = original(letter(), TOPICS.frames)
    assert (message.topic, message.key, message.value) == (TOPICS.frames, b"key", b"no image")
    assert message.headers == (*OWN, ("inspect.attempt", b"1"))
    again = original(letter(headers=message.headers), TOPICS.frames)
    assert again.headers == (*OWN, ("inspect.attempt", b"2"))


@given(
    st.lists(st.tuples(st.text(max_size=12).filter(lambda n: not n.startswith(("inspect.", "__conn"))), st.binary(max_size=9))),
    st.binary(max_size=30),
    st.none() | st.binary(max_size=9),
)  # fmt: skip
def test_whatever_came_goes_back(headers, value, key):
    came = Record(TOPICS.frames, 0, 5, key, value, tuple(headers), DAY)
    failed = Result(
        read_frame(came), None, ("read", "c", "m"), 0, 0, "", None, DAY, DAY, 0.0, 0.0, 0.0, CONFIGURATION
    )
    made = dead_letter(failed, TOPICS)
    back = original(Record(TOPICS.dead_letters, 0, 0, made.key, made.value, made.headers, DAY), TOPICS.frames)
    assert (back.key, back.value, back.headers[:-1]) == (key, value, tuple(headers))


def test_the_number_of_attempts_stays_one_that_the_worker_takes():
    message = original(letter(headers=(*OWN, ("inspect.attempt", b"1000"))), TOPICS.frames)
    frame = read_frame(Record("t", 0, 0, message.key, message.value, message.headers, DAY))
    assert frame.error is None
    assert frame.headers["inspect.attempt"] == "1000"


def test_a_replay_that_was_killed_goes_on_and_sends_each_letter_once():
    records = [letter(offset) for offset in range(200)]
    outlet = Outlet()
    outlet.dies_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(records, outlet)
    assert len(outlet.messages) == 128
    outlet.dies_after = 10**9
    done = run(records, outlet)
    assert (done.sent, done.before) == (72, 128)
    assert len(outlet.messages) == 200
    assert run([*records, letter(200)], outlet).sent == 1


def test_again_sends_all_once_more_and_survives_a_kill():
    records = [letter(offset) for offset in range(100)]
    outlet = Outlet()
    run(records, outlet)
    outlet.dies_after = 2  # the new beginning, and one batch
    with pytest.raises(KeyboardInterrupt):
        run(records, outlet, again=True)
    outlet.dies_after = 10**9
    assert run(records, outlet).sent == 36
    assert len(outlet.messages) == 200


def test_a_limit_is_kept_and_the_next_goes_on_behind_it():
    records = [letter(offset) for offset in range(10)]
    outlet = Outlet()
    assert run(records, outlet, limit=4).sent == 4
    assert run(records, outlet, limit=4).sent == 4
    assert outlet.at == 8
    assert run(records, outlet, limit=0).sent == 0


def test_large_frames_make_short_transactions():
    records = [letter(offset, value=bytes(2 * 2**20)) for offset in range(4)]
    outlet = Outlet()
    outlet.dies_after = 1
    with pytest.raises(KeyboardInterrupt):
        run(records, outlet)
    assert len(outlet.messages) == 2, "4 MB: what a link of a megabyte a second commits in time"


def test_nothing_is_opened_where_nothing_is_chosen_and_a_stop_ends_it():
    outlet = Outlet()
    assert run([letter()], outlet, Selection(code="other")).sent == 0
    assert outlet.opened == 0
    assert run([letter()], outlet, stopped=lambda: True).sent == 0


def test_each_selection_and_partition_keeps_a_place_of_its_own():
    selections = [
        Selection(),
        Selection("a"),
        Selection(stage="a"),
        Selection(since="2h"),
        Selection("ab"),
        Selection("a", "b"),
    ]
    names = {one.replay_name("t", partition) for one in selections for partition in (0, 1)}
    assert len(names) == 12
    assert Selection("a").replay_name("t", 0) == Selection("a").replay_name("t", 0)


def test_places_are_read_and_others_refused():
    assert parse_place("3/17") == (3, 17)
    for text in ("3", "a/1", "-1/2", "1/2/3", ""):
        with pytest.raises(SettingsError, match="dead-letters list"):
            parse_place(text)


def test_outside_text_cannot_steer_a_terminal():
    assert printable(b"a\x1b[2J\xff\n") == "a�[2J��"
