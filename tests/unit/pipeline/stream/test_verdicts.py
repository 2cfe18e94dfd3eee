"""What is published of one frame."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from dapo.inspection import Defect, Evaluation, Verdict
from pipeline.ports import Record, Result
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import Teller
from pipeline.testing import CONFIGURATION, DAY, frame
from schemas.codec import decode_defects, decode_results

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def defect(kind: str) -> Defect:
    return Defect(kind, 0.9, (1, 2, 3, 4), 12, None, 0.1, (2.0, 3.0), np.ones((4, 3), bool))


def result(camera="cam", line="l", sequence=1, error=None, defects=(), **headers) -> Result:
    record = Record("t.frames", 2, 17, b"key", b"value", (("ce_id", b"f"),), DAY)
    given = frame(
        "f",
        b"value",
        camera_id=camera,
        sequence=sequence,
        headers={"line_id": line, **headers},
        record=record,
    )
    verdict = None if error else Verdict(Evaluation.NOT_OK, "", "", 0.9, 0.3, 0.6, tuple(defects))
    done = DAY + timedelta(milliseconds=120)
    return Result(given, verdict, error, 20, 10, "ab", None, DAY, done, 1.0, 2.0, 3.0, CONFIGURATION)


def teller(**options) -> Teller:
    return Teller(Topics("t"), **options)


def test_row_and_defects_share_their_ids():
    messages = teller().tell(result(defects=(defect("scratch"), defect("unknown")))).messages
    assert [one.topic for one in messages] == ["t.results", "t.defects.scratch", "t.defects.unknown"]
    [row] = decode_results(messages[0].value)
    assert (row.frames_partition, row.frames_offset, row.line_id) == (2, 17, "l")
    for index, message in enumerate(messages[1:]):
        [one] = decode_defects(message.value)
        assert (one.result_id, one.frame_key, one.defect_index) == (row.result_id, row.frame_key, index)
    assert {one.key for one in messages} == {b"cam"}


def test_lateness_is_said_of_each_row():
    assert decode_results(teller(deadline_ms=100).tell(result()).messages[0].value)[0].is_late is True
    assert decode_results(teller(deadline_ms=200).tell(result()).messages[0].value)[0].is_late is False
    own = decode_results(teller(deadline_ms=200).tell(result(deadline_ms="50.0")).messages[0].value)[0]
    assert (own.is_late, own.deadline_ms) == (True, 50.0)
    assert decode_results(teller().tell(result()).messages[0].value)[0].is_late is None


def test_the_trace_goes_on_with_a_span_of_its_own():
    headers = dict(teller().tell(result(traceparent=TRACE)).messages[0].headers)
    said = headers["traceparent"].decode()
    assert said.split("-")[1] == TRACE.split("-")[1]
    assert said.split("-")[2] != TRACE.split("-")[2]
    assert "traceparent" not in dict(teller().tell(result()).messages[0].headers)


def test_a_failed_frame_is_also_a_dead_letter_and_a_dropped_one_is_not():
    failed = teller().tell(result(error=("decode", "damaged", "cut\nshort")))
    assert [one.topic for one in failed.messages] == ["t.results", "t.deadletter"]
    letter = failed.messages[1]
    assert (letter.key, letter.value, letter.headers[0]) == (b"key", b"value", ("ce_id", b"f"))
    said = dict(letter.headers)
    assert said["__connect.errors.offset"] == b"17"
    assert said["__connect.errors.exception.message"] == b"cut short"
    dropped = teller().tell(result(error=("drop", "overload", "x")))
    assert [one.topic for one in dropped.messages] == ["t.results"]
    assert dropped.row.result_state == "Aborted"


def test_whoever_joins_views_is_told_how_many():
    assert dict(teller().tell(result(views_expected="3")).messages[0].headers)["views_expected"] == b"3"


def test_the_image_is_named_where_it_will_be_kept():
    told = teller(image_uri=lambda row, data: f"s3://b/{row.frame_key}").tell(result())
    assert told.row.image_uri == f"s3://b/{told.row.frame_key}"
