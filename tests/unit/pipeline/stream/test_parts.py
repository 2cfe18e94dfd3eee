"""Parts over a log in memory: each part one verdict, whatever is killed, undone, late or doubled."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta

import pytest

from dapo.errors import LogRefused, SettingsError
from pipeline.cli.parts import parse_views
from pipeline.ports import Loss, Message
from pipeline.stream.joining import MAX_VIEWS, Closed, Joiner, key_of
from pipeline.stream.parts import Parts
from pipeline.testing import DAY, MemoryLog
from schemas.codec import encode
from schemas.ids import part_key
from tests.unit.pipeline.stream.parts_line import PARTS, RESULTS, TIMEOUT, InDoubt, Line, result


def test_a_part_with_all_its_views_gets_the_worst_of_them():
    line = Line()
    line.send(result(view=0))
    line.turns()
    assert line.told == []
    line.send(result(view=1, evaluation="NotOK", station_id="s2", reason_code="above", reason="too high"))
    line.turns()
    [row] = line.told
    assert (row.evaluation, row.reason_code, row.views_expected, row.views_seen) == ("NotOK", "above", 2, 2)
    assert row.part_key == part_key("l1", "bottle", "p1", None)
    assert [view["camera_id"] for view in row.views] == ["camera-0", "camera-1"]
    assert row.station_id is None
    assert row.configuration_hash == "c"
    [record] = line.broker.read(PARTS)
    assert record.key == row.part_key.encode()
    assert dict(record.headers)["evaluation"] == b"NotOK"


def test_a_view_that_is_missing_makes_the_part_not_decidable():
    line = Line()
    line.send(result(), expected=3)
    line.turns()
    line.wait(TIMEOUT - 1)
    assert line.told == []
    line.wait(1)
    [row] = line.told
    assert (row.evaluation, row.reason_code) == ("NotDecidable", "view-missing")
    assert row.reason.startswith("1 of 3 views")
    assert line.parts.joined.incomplete == 1


def test_a_defect_stays_a_defect_where_a_view_is_missing():
    line = Line()
    line.send(result(evaluation="NotOK", reason_code="above"))
    line.turns()
    line.wait()
    assert [(row.evaluation, row.reason_code) for row in line.told] == [("NotOK", "above")]


def test_a_failed_view_counts_as_not_decidable():
    line = Line()
    line.send(result(view=0))
    line.send(result(view=1, state="Failed", evaluation="Undefined", reason_code="not-an-image"))
    line.turns()
    assert [(row.evaluation, row.reason_code) for row in line.told] == [("NotDecidable", "not-an-image")]


def test_a_part_that_does_not_say_how_many_views_is_closed_when_its_time_is_over():
    line = Line()
    line.send(result(view=0), expected=None)
    line.send(result(view=1), expected=None)
    line.turns()
    assert line.told == []
    line.wait()
    assert [(row.evaluation, row.views_expected, row.views_seen) for row in line.told] == [("OK", None, 2)]


@pytest.mark.parametrize(
    ("views", "complete"), [({"*": 2}, True), ({"bottle": 2, "*": 3}, True), ({"can": 2}, False)]
)
def test_views_per_product_count_where_the_frame_says_nothing(views, complete):
    line = Line(views=views)
    line.send(result(view=0), expected=None)
    line.send(result(view=1), expected=None)
    line.turns()
    assert bool(line.told) is complete


def test_broken_numbers_of_views_are_as_if_nothing_was_said():
    line = Line(views={"*": 1})
    for number, text in enumerate((b"", b"-1", b"0", b"1001", b"9" * 400, "٣".encode(), b"2.0")):
        row = result(f"part-{number}")
        line.broker.write(Message(RESULTS, b"k", encode([row]), (("views_expected", text),)))
    line.turns()
    assert {row.views_expected for row in line.told} == {1}
    assert len(line.told) == 7


def test_a_frame_that_was_fed_twice_is_one_view():
    line = Line()
    line.send(result(view=0))
    line.send(result(view=0))
    line.turns()
    assert line.told == []
    assert line.parts.joined.again == 1


def test_a_late_view_is_counted_and_never_a_second_verdict():
    line = Line()
    line.send(result(view=0))
    line.turns()
    line.wait()
    line.send(result(view=1))
    line.turns()
    line.wait()
    assert len(line.told) == 1
    assert line.parts.joined.late == 1
    line.kill()  # and the next one knows it too, from the topic
    line.send(result(view=2))
    line.turns()
    line.wait()
    assert len(line.told) == 1
    assert line.parts.joined.late == 1


def test_views_that_are_read_again_after_a_kill_are_not_called_late():
    line = Line()
    line.send(result("open", 0))
    line.turns()
    for number in range(3):
        line.send(result(f"whole-{number}", 0))
        line.send(result(f"whole-{number}", 1))
    line.turns()
    line.kill()
    line.turns()
    assert len(line.told) == 3
    assert line.parts.joined.late == 0
    line.send(result("open", 1))
    line.turns()
    assert sorted(row.part_id for row in line.told) == ["open", "whole-0", "whole-1", "whole-2"]


def test_results_of_no_part_and_strange_messages_are_passed_over():
    line = Line(partitions=1)
    line.send(result(None))
    line.broker.write(Message(RESULTS, b"k", b"no arrow"))
    line.turns()
    line.clock += 2
    line.turns()
    assert (line.parts.joined.partless, line.parts.joined.unreadable) == (1, 1)
    assert line.broker.offsets[("parts", (RESULTS, 0))] == 2


def test_the_committed_offset_is_that_of_the_oldest_record_an_open_part_needs():
    line = Line(partitions=1)
    line.send(result("done", 0))
    line.send(result("open", 0))
    line.send(result("done", 1))
    line.turns()
    assert line.broker.offsets[("parts", (RESULTS, 0))] == 1
    line.send(result("open", 1))
    line.turns()
    assert line.broker.offsets[("parts", (RESULTS, 0))] == 4


def test_each_partition_is_kept_from_where_an_open_part_needs_it():
    line = Line()
    line.send(result(view=0), 3)
    line.send(result(view=2), 3)  # in another partition
    assert len({record.partition for record in line.broker.read(RESULTS)}) == 2
    line.turns()
    line.clock += 2
    line.turns()
    assert {offset for (_, at), offset in line.broker.offsets.items() if line.broker.topics.get(at)} == {0}
    line.kill()
    line.send(result(view=1), 3)
    line.turns()
    assert [row.views_seen for row in line.told] == [3]


def test_a_view_is_not_missing_while_results_lie_unread():
    class Behind(InDoubt):
        waiting: int | None = 7

        def lag(self):
            return self.waiting

    line = Line()
    line.log.close()
    line.log = Behind(line.broker, RESULTS, "parts")
    line.parts = Parts(line.log, PARTS, line.published, joiner=Joiner(TIMEOUT), clock=lambda: line.clock)
    line.send(result())
    line.turns()
    line.wait(10 * TIMEOUT)
    line.log.waiting = None
    line.turns()
    assert line.told == []
    line.log.waiting = 0
    line.turns()
    assert len(line.told) == 1


def test_open_parts_are_bounded_and_the_oldest_goes_first():
    line = Line(joiner=Joiner(TIMEOUT, max_open=3))
    for number in range(5):
        line.send(result(f"p{number}"))
    line.turns()
    assert sorted(row.part_id for row in line.told) == ["p0", "p1"]
    assert line.parts.joined.incomplete == 2


def test_a_part_that_never_ends_is_closed():
    line = Line(partitions=1)
    for number in range(MAX_VIEWS + 1):
        line.send(result(view=number), expected=None)
    line.turns(5)
    assert [row.views_seen for row in line.told] == [MAX_VIEWS]
    assert line.parts.joined.late == 1


def test_keys_are_forgotten_after_a_while_but_never_while_an_older_part_is_open():
    closed = Closed()
    line = Line(partitions=1, closed=closed, remember=timedelta(minutes=1))
    line.send(result("open", 0))
    for number in range(100):
        line.send(result(f"w{number}", 0), expected=1)
    line.turns()
    assert len(closed) == 100
    line.send(result("open", 1))
    line.send(result("w0", 1), expected=1)
    line.turns()
    assert len(line.told) == 101
    assert line.parts.joined.late == 1
    assert len(closed) < 70


def test_too_many_verdicts_behind_an_open_part_end_its_waiting():
    closed = Closed(most=50)
    line = Line(partitions=1, closed=closed)
    line.send(result("open", 0))
    for number in range(1000):
        line.send(result(f"w{number}", 0), expected=1)
    line.turns(5)
    assert "open" in {row.part_id for row in line.told}
    assert len(line.told) == 1001
    line.kill()
    line.turns()
    line.wait()
    assert len(line.told) == 1001


def test_what_is_read_back_reaches_from_before_the_oldest_record():
    line = Line(partitions=1, remember=timedelta(hours=2))
    line.send(result("open", 0))
    line.turns()
    line.kill()
    line.turns()
    [first] = line.broker.read(RESULTS)
    assert line.asked[-1] <= first.timestamp - timedelta(hours=2)


def test_losses_are_counted():
    line = Line(partitions=1)
    line.log.losses.append(Loss(RESULTS, 0, 3, 10))
    line.turns(1)
    assert line.parts.joined.lost == 7
    assert line.log.losses == []


def test_a_newcomer_that_does_not_get_all_partitions_ends():
    with pytest.raises(LogRefused, match="stop the other"):
        Line(whole=lambda: False)


def test_who_had_all_partitions_stands_by_until_it_has_them_again():
    whole = [True]
    line = Line(whole=lambda: whole[0])
    line.send(result(view=0))
    line.turns()
    whole[0] = False
    other = MemoryLog(line.broker, RESULTS, "parts")
    line.send(result(view=1))
    line.turns()
    line.wait()
    assert line.told == []
    assert "group" in line.parts.missing()
    whole[0] = True
    other.close()
    line.turns()
    assert [row.evaluation for row in line.told] == ["OK"]
    assert line.parts.missing() == {}


def test_it_runs_until_it_is_stopped_and_leaves_open_parts():
    stop = threading.Event()
    line = Line(stop=stop)
    line.send(result())
    thread = threading.Thread(target=line.parts.run)
    thread.start()
    deadline = threading.Event()
    for _ in range(1000):
        if line.parts.joined.views:
            break
        deadline.wait(0.01)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert line.parts.joined.views == 1
    line.start()
    line.send(result(view=1))
    line.turns()
    assert len(line.told) == 1


def test_the_promise_is_kept_or_broken_from_the_last_capture_on():
    line = Line()
    line.send(result(view=0, deadline_ms=50.0))
    line.send(result(view=1, deadline_ms=1e15))
    line.turns()
    [row] = line.told
    assert (row.deadline_ms, row.is_late) == (50.0, True)
    assert row.last_captured_at == DAY + timedelta(milliseconds=1)


def test_parts_differ_by_line_product_and_job():
    rows = [result(), result(line_id="l2"), result(product_id="can"), result(job_id="j")]
    assert len({key_of(row) for row in rows}) == 4
    assert uuid.UUID(part_key("l1", "bottle", "p1", None)).bytes == key_of(rows[0])


@pytest.mark.parametrize("text", ["x", "a=", "0", "1001", "=", "a=b", "٣"])
def test_wrong_numbers_of_views_are_refused(text):
    with pytest.raises(SettingsError, match="--views"):
        parse_views([text])
