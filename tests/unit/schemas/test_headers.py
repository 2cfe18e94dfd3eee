"""The headers that the page of the contract names are those that are read and written."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from dapo.inspection import Defect, Evaluation, Verdict
from pipeline.ports import Message, Record, Result
from pipeline.stream.frames import read_frame
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import Teller
from pipeline.testing import CONFIGURATION, DAY, frame
from schemas.headers import DEAD_LETTER_HEADERS, FRAME_HEADERS, RESULT_HEADERS, Header

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SENT = {
    "ce_specversion": "1.0",
    "ce_time": "2026-01-31T08:00:00Z",
    "traceparent": TRACE,
    "sequence": "7",
    "views_expected": "2",
    "deadline_ms": "250",
    "is_simulated": "true",
    "inspect.attempt": "1",
}


def record(headers: list[tuple[str, str]]) -> Record:
    packed = tuple((name, text.encode()) for name, text in headers)
    return Record("t.frames", 0, 1, b"key", b"value", packed, DAY)


def sent() -> list[tuple[str, str]]:
    """A frame's headers, each one that is documented."""
    return [(header.name, SENT.get(header.name, "x")) for header in FRAME_HEADERS]


def told(**outcome: object) -> tuple[Message, ...]:
    given = frame("f", headers={"views_expected": "2", "traceparent": TRACE}, record=record(sent()))
    done = DAY + timedelta(milliseconds=9)
    defect = Defect("hole", 0.9, (1, 2, 3, 4), 12, None, 0.1, (2.0, 3.0), np.ones((4, 3), bool))
    verdict = Verdict(Evaluation.NOT_OK, "", "", 0.9, 0.3, 0.6, (defect,))
    said = {"verdict": verdict, "error": None} | outcome
    result = Result(
        given, said["verdict"], said["error"], 20, 10, "ab", None, DAY, done, 1.0, 2.0, 3.0, CONFIGURATION
    )
    return Teller(Topics("t")).tell(result).messages


def names(headers: tuple[Header, ...]) -> set[str]:
    return {header.name for header in headers}


def test_a_frame_with_every_header_is_read():
    assert read_frame(record(sent())).error is None


@pytest.mark.parametrize("header", FRAME_HEADERS, ids=lambda header: header.name)
def test_a_frame_lacks_a_required_header_and_no_other(header):
    error = read_frame(record([one for one in sent() if one[0] != header.name])).error
    assert (error is not None) == header.required


@pytest.mark.parametrize("header", FRAME_HEADERS, ids=lambda header: header.name)
def test_every_header_of_a_frame_is_looked_at(header):
    """Of those that are known none may be there twice; others are passed over."""
    error = read_frame(record([*sent(), (header.name, SENT.get(header.name, "x"))])).error
    assert error
    assert f"header {header.name} is there twice" in error[1]
    assert read_frame(record([*sent(), ("plant", "a"), ("plant", "b")])).error is None


def test_results_and_defects_carry_the_headers_of_the_page():
    result, defect = told()
    assert {name for name, _ in result.headers} == names(RESULT_HEADERS)
    assert {h.name for h in RESULT_HEADERS if h.required} <= {name for name, _ in defect.headers}


def test_a_dead_letter_keeps_the_frames_headers_and_adds_those_of_the_page():
    _, letter = told(verdict=None, error=("decode", "damaged", "cut short"))
    assert [(name, text.decode()) for name, text in letter.headers[: len(FRAME_HEADERS)]] == sent()
    added = {name for name, _ in letter.headers[len(FRAME_HEADERS) :]}
    assert added == names(DEAD_LETTER_HEADERS) - {"inspect.attempt"}  # which is the frame's own
