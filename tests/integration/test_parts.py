"""`dapo parts` on a real broker: a verdict a part, once, whatever is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from dapo.errors import LogRefused
from pipeline.cli.parts import joining
from pipeline.kafka.whole import WholeKafkaLog
from pipeline.ports import Message
from pipeline.stream.frames import write_frame
from pipeline.stream.parts import Parts
from pipeline.testing import encoded, frame, surface
from schemas.codec import decode_results
from tests.integration.stream_line import Line, until

DAPO = str(Path(sys.executable).with_name("dapo"))


@contextmanager
def parts_running(line: Line, timeout_s: float = 30.0) -> Iterator[Parts]:
    stop, errors = threading.Event(), Console(quiet=True)
    with joining(line.settings, stop, f"{line.prefix}-parts", timeout_s, {}, "6h", 0, errors) as parts:
        thread = threading.Thread(target=parts.run)
        thread.start()
        try:
            yield parts
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()


def test_parts_are_told_once_with_the_worst_of_their_views(line):
    for camera in ("cam-a", "cam-b"):
        frames = [
            frame(
                f"{camera}/{n}", encoded(surface(n, defect=camera == "cam-b" and n == 1)), camera_id=camera,
                headers={"part_id": f"p{n}", "views_expected": "2", "line_id": "l1"},
            )
            for n in range(6 if camera == "cam-a" else 4)
        ]  # fmt: skip
        line.send(*(write_frame(one, line.topics.frames) for one in frames))
    line.work(10)
    with parts_running(line, timeout_s=3.0) as parts:
        until(lambda: parts.joined.parts == 6, what=str(parts.joined))
        assert parts.missing() == {}
    told = {row.part_id: row for row in line.parts()}
    assert len(line.parts()) == 6
    assert {name: row.views_seen for name, row in told.items()} == {
        **dict.fromkeys(("p0", "p1", "p2", "p3"), 2),
        "p4": 1,
        "p5": 1,
    }
    assert {told[name].reason_code for name in ("p4", "p5")} == {"view-missing"}
    assert told["p1"].defect_types != ()
    line.send(*(record_as_message(line, "cam-a/4")))
    with parts_running(line, timeout_s=1.0) as parts:
        until(lambda: parts.joined.late == 1, what=str(parts.joined))
    assert len(line.parts()) == 6


def record_as_message(line: Line, frame_id: str) -> list[Message]:
    """The message of a result once more: as a view that comes after its part's verdict."""
    for record in line.records(line.topics.results):
        if decode_results(record.value)[0].frame_id == frame_id:
            return [Message(record.topic, record.key, record.value, record.headers)]
    raise AssertionError(frame_id)


def test_a_second_process_is_refused_and_the_first_goes_on(line):
    line.send(line.view(0, 0))
    with parts_running(line) as first:
        until(lambda: first.joined.views == 1)
        log = WholeKafkaLog(line.settings.kafka, line.topics.results, f"{line.prefix}-parts", "other")
        second = Parts(log, line.topics.parts, lambda since: (), whole=log.whole)
        with pytest.raises(LogRefused, match="stop the other"):
            second.run()
        line.send(line.view(0, 1))
        until(lambda: first.joined.parts == 1, what=str(first.joined))
    assert [row.views_seen for row in line.parts()] == [2]


def test_parts_survive_kills_without_loss_or_doubling(line):
    """kill -9 at random instants while results come; the successor rebuilds what was open."""
    random_, count = random.Random(7), 120
    command = [DAPO, "parts", "--group", f"{line.prefix}-parts", "--timeout", "60"]
    environment = {**os.environ, **line.environment, "OMP_NUM_THREADS": "1"}
    views = [(part, view) for part in range(count) for view in (0, 1)]
    random_.shuffle(views)
    fed = threading.Event()

    def feed() -> None:
        for part, view in views:
            line.send(line.view(part, view))
            threading.Event().wait(0.1)
        fed.set()

    feeder = threading.Thread(target=feed)
    feeder.start()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        for kill in range(2):
            told = len(line.parts())
            until(lambda told=told: len(line.parts()) > told + 3, what=f"verdicts before kill {kill}")
            threading.Event().wait(random_.random())
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
            process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        until(lambda: fed.is_set() and len(line.parts()) >= count, 90, "all parts")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=40)
        assert process.returncode == 0, err.decode()
    finally:
        process.kill()
        process.communicate()
        feeder.join()
    told = line.parts()
    assert sorted(int(row.part_id) for row in told) == list(range(count))
    assert {(row.evaluation, row.views_seen) for row in told} == {("OK", 2)}
