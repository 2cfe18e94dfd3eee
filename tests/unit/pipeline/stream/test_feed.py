"""The feeder: each frame once, over restarts; large frames through the store."""

from __future__ import annotations

import contextlib
import threading

import numpy as np

from pipeline.decode import decode
from pipeline.ports import Record
from pipeline.stream.feed import Feeder, Tags, claimed, feeder_name
from pipeline.stream.frames import read_frame
from pipeline.testing import DAY, FakeSource, MemoryStore, encoded, frame, surface

TAGS = Tags("cam-1", "bottle", line_id="l1", simulated=True)


class MemoryOutlet:
    """Keeps messages with the position; dies after so many writes."""

    def __init__(self) -> None:
        self.messages, self.at, self.dies_after = [], 0, None

    def position(self) -> int:
        return self.at

    def write(self, messages, position) -> None:
        if self.dies_after is not None:
            if self.dies_after == 0:
                raise KeyboardInterrupt
            self.dies_after -= 1
        self.messages += messages
        self.at = position

    def frames(self):
        return [
            read_frame(Record("t", 0, at, one.key, one.value, one.headers, DAY))
            for at, one in enumerate(self.messages)
        ]


def source(count=150):
    picture = encoded(surface())
    return FakeSource([frame(f"{number:03d}.png", picture) for number in range(count)])


def test_frames_arrive_as_they_were_tagged():
    outlet = MemoryOutlet()
    fed = Feeder(outlet, "t", TAGS).run(source(3), threading.Event())
    assert fed.frames == 3
    first = outlet.frames()[0]
    assert (first.frame_id, first.source, first.camera_id, first.product_id) == (
        "000.png",
        "memory://test",
        "cam-1",
        "bottle",
    )
    assert first.headers["line_id"] == "l1"
    assert first.headers["is_simulated"] == "true"
    assert [one.sequence for one in outlet.frames()] == [0, 1, 2]
    assert first.captured_at == DAY


def test_a_killed_feeder_goes_on_behind_the_last_frame_that_arrived():
    outlet = MemoryOutlet()
    outlet.dies_after = 1
    with contextlib.suppress(KeyboardInterrupt):
        Feeder(outlet, "t", TAGS).run(source(), threading.Event())
    assert 0 < len(outlet.messages) < 150
    outlet.dies_after = None
    fed = Feeder(outlet, "t", TAGS).run(source(), threading.Event())
    assert fed.skipped + fed.frames == 150
    assert [one.frame_id for one in outlet.frames()] == [f"{number:03d}.png" for number in range(150)]


def test_a_large_frame_goes_through_the_store():
    outlet, store = MemoryOutlet(), MemoryStore()
    data = encoded(surface())
    feeder = Feeder(outlet, "t", TAGS, max_bytes=100, claim=claimed(store, "bucket", threading.Event()))
    fed = feeder.run(FakeSource([frame("big.png", data)]), threading.Event())
    [message] = outlet.messages
    assert fed.claims == 1
    assert message.value == b""
    reference = dict(message.headers)["ce_dataref"].decode()
    assert store.get(reference.removeprefix("s3://bucket/")) == data


def test_decoded_frames_are_sent_as_jpeg_near_to_the_original():
    outlet, pixels = MemoryOutlet(), surface(3, defect=True)
    Feeder(outlet, "t", TAGS).run(FakeSource([frame("v#1", b"", pixels=pixels)]), threading.Event())
    back = decode(outlet.messages[0].value)
    assert back.format == "JPEG"
    assert np.abs(back.pixels.astype(int) - pixels.astype(int)).mean() < 3


def test_a_frame_that_cannot_be_read_still_becomes_a_message():
    outlet = MemoryOutlet()
    fed = Feeder(outlet, "t", TAGS).run(
        FakeSource([frame("x", b"", error=("not-found", "gone"))]), threading.Event()
    )
    assert fed.unreadable == 1
    [got] = outlet.frames()
    assert got.error is not None


def test_stop_ends_the_feeding_and_keeps_what_was_sent():
    outlet, stop = MemoryOutlet(), threading.Event()
    fed = Feeder(outlet, "t", TAGS).run(source(), stop, on_frame=lambda one: stop.set())
    assert fed.frames == 1
    assert len(outlet.messages) == 1
    assert outlet.at == 1


def test_the_name_depends_on_source_and_camera():
    assert feeder_name("a", Tags("1")) != feeder_name("a", Tags("2")) != feeder_name("b", Tags("2"))
