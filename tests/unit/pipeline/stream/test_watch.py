"""What `dapo watch` shows."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from rich.console import Console

from dapo.errors import SettingsError
from pipeline.stream.watch import Board, Wanted, plain
from pipeline.testing import DAY
from schemas.golden_results import rows
from schemas.golden_stream import statuses

ROW = next(row for row in rows() if row.defects)
BEAT = statuses()[0]


def verdict(**fields):
    return dataclasses.replace(ROW, **fields)


def beat(**fields):
    return dataclasses.replace(BEAT, at=DAY, **fields)


def shown(board: Board, after_s: float = 1.0) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(board.render(DAY + timedelta(seconds=after_s)))
    return capture.get()


def test_verdicts_are_chosen_by_line_camera_and_evaluation():
    row = verdict(line_id="l1", camera_id="c1", evaluation="NotOK")
    assert Wanted().takes(row)
    assert Wanted("l1", "c1", ("NotOK", "OK")).takes(row)
    for wanted in (Wanted("l2"), Wanted("", "c2"), Wanted("", "", ("OK",))):
        assert not wanted.takes(row)
    with pytest.raises(SettingsError, match="--only: 'Bad'"):
        Wanted(only=("Bad",))


def test_the_board_shows_the_last_verdicts_and_counts_all():
    board = Board(Wanted(only=("NotOK",)), rows=2)
    assert not board.add(verdict(evaluation="OK"))
    for number in range(5):
        assert board.add(verdict(evaluation="NotOK", result_state="Completed", frame_id=f"frame-{number}"))
    text = shown(board)
    assert "frame-4" in text
    assert "frame-3" in text
    assert "frame-2" not in text
    assert "NotOK 5" in text
    assert board.shown == 5


def test_failed_frames_are_counted_as_such():
    board = Board(Wanted())
    board.add(verdict(result_state="Failed", evaluation="Undefined", reason_code="not-an-image"))
    text = shown(board)
    assert "Failed (not-an-image)" in text
    assert "Failed 1" in text
    assert "Undefined 0" in text


def test_a_line_without_a_beat_is_dead():
    board = Board(Wanted())
    board.beat(beat(line_id="l1", worker_id="w1", state="running", waiting_for=None))
    board.beat(beat(line_id="l2", worker_id="w1", state="waiting", waiting_for="model"))
    alive = shown(board, 2)
    assert "DEAD" not in alive
    assert "waiting for model" in alive
    assert shown(board, 20).count("DEAD") == 2
    board.beat(dataclasses.replace(beat(line_id="l1", worker_id="w1"), at=DAY + timedelta(seconds=19)))
    assert shown(board, 20).count("DEAD") == 1


def test_a_worker_that_was_restarted_answers_for_the_lines_it_had_before():
    board = Board(Wanted())
    for line in ("l1", "l2"):
        board.beat(beat(line_id=line, worker_id="w1", state="running", waiting_for=None, frames_in=77))
    board.beat(beat(line_id="l3", worker_id="w2", state="running", waiting_for=None))
    later = DAY + timedelta(seconds=19)
    anew = dataclasses.replace(
        beat(line_id=None, worker_id="w1", state="waiting", waiting_for="model", frames_in=0), at=later
    )
    board.beat(anew)
    text = shown(board, 20)
    assert text.count("waiting for model") == 2
    assert text.count("DEAD") == 1
    assert "77" not in text


def test_a_worker_that_met_its_first_line_is_no_longer_shown_without_one():
    board = Board(Wanted("l1"))
    board.beat(beat(line_id=None, worker_id="w1", state="running", waiting_for=None))
    assert "w1" in shown(board)
    board.beat(beat(line_id="l1", worker_id="w1", state="running", waiting_for=None))
    assert shown(board).count("w1") == 1
    board.beat(beat(line_id=None, worker_id="w2", state="running", waiting_for=None))
    board.beat(beat(line_id="l2", worker_id="w2", state="running", waiting_for=None))
    assert "w2" not in shown(board)


def test_without_any_beat_it_says_so_and_other_lines_are_left_out():
    board = Board(Wanted("l1"))
    board.beat(beat(line_id="l2"))
    assert "no worker runs" in shown(board)


def test_the_number_of_lines_is_bounded():
    board = Board(Wanted())
    for number in range(1200):
        board.beat(beat(line_id=f"line-{number:04d}"))
    text = shown(board)
    assert text.count("line-") == 1000
    assert "line-1199" in text


def test_plain_is_one_line_of_fields_whatever_the_frame_is_called():
    row = verdict(frame_id="a\tb\nc\x1b[2J", evaluation="NotOK", result_state="Completed", reason_code=None)
    line = plain(row)
    assert "\n" not in line
    assert "\x1b" not in line
    fields = line.split("\t")
    assert len(fields) == 8
    assert fields[1] == "NotOK"
    assert fields[6] == "a�b�c�[2J"
    assert set(fields[7].split(",")) == {defect["type"] for defect in row.defects}


def test_markup_in_names_is_text():
    board = Board(Wanted())
    board.add(verdict(frame_id="[red]x[/red]"))
    assert "[red]x[/red]" in shown(board)
