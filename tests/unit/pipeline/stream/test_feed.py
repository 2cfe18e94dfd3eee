"""The feeder: each frame once, over restarts; large frames through the store."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest

from dapo.errors import ServiceUnavailable, SourceError
from pipeline.decode import decode
from pipeline.ports import Record
from pipeline.stream.feed import Feeder, Tags, claimed, feeder_name, passing_name
from pipeline.stream.frames import read_frame
from pipeline.testing import DAY, FakeSource, MemoryStore, encoded, frame, surface

TAGS = Tags("cam-1", "bottle", line_id="l1", simulated=True)


class MemoryOutlet:
    """Keeps messages with the position; dies after so many writes."""

    def __init__(self) -> None:
        self.messages, self.at, self.mark, self.dies_after = [], 0, "", None
        self.sizes: list[int] = []  # of each write, in bytes

    def position(self) -> int:
        return self.at

    def kept(self) -> tuple[int, str]:
        return self.at, self.mark

    def write(self, messages, position, mark="") -> None:
        if self.dies_after is not None:
            if self.dies_after == 0:
                raise KeyboardInterrupt
            self.dies_after -= 1
        self.messages += messages
        self.at, self.mark = position, mark
        self.sizes.append(sum(len(one.value) for one in messages))

    def frames(self):
        return [
            read_frame(Record("t", 0, at, one.key, one.value, one.headers, DAY))
            for at, one in enumerate(self.messages)
        ]


class Camera:
    """Gives what it is shown, and waits in silence for more until it is closed."""

    total = None

    def __init__(self, *frames) -> None:
        self._frames, self.closed = frames, threading.Event()

    def __iter__(self):
        yield from self._frames
        assert self.closed.wait(30), "nobody closed it"

    def close(self) -> None:
        self.closed.set()


PICTURE = encoded(surface())


def named(*names):
    return FakeSource([frame(name, PICTURE) for name in names])


def source(count=150):
    return named(*(f"{number:03d}.png" for number in range(count)))


@contextlib.contextmanager
def feeding(feeder, *arguments, **options):
    """Run a feeder in a thread; its result is in the list that is given, once it has ended."""
    done: list = []
    thread = threading.Thread(target=lambda: done.append(feeder.run(*arguments, **options)))
    thread.start()
    yield done
    thread.join(10)
    assert not thread.is_alive()


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
    assert dict(outlet.messages[0].headers)["inspect.reason"] == b"not-found: gone"


def test_stop_ends_the_feeding_and_keeps_what_was_sent():
    outlet, stop = MemoryOutlet(), threading.Event()
    fed = Feeder(outlet, "t", TAGS).run(source(), stop, on_frame=lambda one: stop.set())
    assert fed.frames == 1
    assert len(outlet.messages) == 1
    assert outlet.at == 1


@pytest.mark.parametrize(
    "now",
    [
        ["a.png", "b.png", "x.png"],  # fewer than were fed
        [f"new-{number}.png" for number in range(8)],
        ["000.png", "000a.png", "001.png", "002.png", "003.png", "004.png"],  # one came among them
        [
            "001.png",
            "002.png",
            "003.png",
            "0031.png",
            "004.png",
            "005.png",
        ],  # one went, one came: the fifth is the same
        [],
    ],
)
def test_a_source_that_no_longer_begins_with_what_was_fed_is_refused(now):
    outlet = MemoryOutlet()
    Feeder(outlet, "t", TAGS).run(source(5), threading.Event())
    with pytest.raises(SourceError, match=r"5 frames of this source were fed before.*--name"):
        Feeder(outlet, "t", TAGS).run(named(*now), threading.Event())
    assert len(outlet.messages) == outlet.at == 5


def test_what_was_added_behind_is_fed():
    outlet = MemoryOutlet()
    for count, frames, skipped in ((5, 5, 0), (5, 0, 5), (8, 3, 5), (9, 1, 8)):
        fed = Feeder(outlet, "t", TAGS).run(source(count), threading.Event())
        assert (fed.frames, fed.skipped) == (frames, skipped)
    assert [one.frame_id for one in outlet.frames()] == [f"{number:03d}.png" for number in range(9)]


def test_a_camera_goes_on_counting_where_it_was():
    outlet = MemoryOutlet()
    for names in (("a", "b"), ("c",)):
        fed = Feeder(outlet, "t", TAGS).run(named(*names), threading.Event(), live=True)
        assert fed.skipped == 0
    assert [one.frame_id for one in outlet.frames()] == ["a", "b", "c"]


def test_what_a_camera_gave_before_it_fell_silent_is_written_and_stop_closes_it():
    outlet, stop = MemoryOutlet(), threading.Event()
    camera = Camera(*(frame(str(number), PICTURE) for number in range(3)))
    with feeding(Feeder(outlet, "t", TAGS), camera, stop, live=True) as done:
        until(lambda: len(outlet.messages) == 3)
        assert not done
        stop.set()
    assert camera.closed.is_set()
    assert done[0].frames == 3


def test_a_slow_rate_holds_no_frame_back():
    outlet, stop = MemoryOutlet(), threading.Event()
    with feeding(Feeder(outlet, "t", TAGS, rate=0.001), source(3), stop):
        until(lambda: len(outlet.messages) == 1)
        stop.set()
    assert outlet.at == 1


def test_an_error_of_the_source_comes_through():
    def frames():
        yield frame("a", PICTURE)
        raise SourceError("the list can't be read")

    outlet = MemoryOutlet()
    with pytest.raises(SourceError, match="list"):
        Feeder(outlet, "t", TAGS).run(FakeSource(frames(), total=2), threading.Event())


def test_a_transaction_holds_what_a_slow_link_carries_in_time():
    outlet = MemoryOutlet()
    frames = [frame(str(number), bytes(3 * 2**20)) for number in range(3)]
    Feeder(outlet, "t", TAGS).run(FakeSource(frames), threading.Event())
    assert max(outlet.sizes) <= 4 * 2**20
    assert sum(outlet.sizes) == 9 * 2**20


def test_frames_before_a_large_one_do_not_wait_for_the_store():
    def away(key, data, content_type):
        assert outlet.at == 1
        stop.set()
        raise ServiceUnavailable("no store")

    outlet, stop = MemoryOutlet(), threading.Event()
    frames = [frame("a", bytes(50)), frame("big", bytes(101)), frame("c", bytes(50))]
    fed = Feeder(outlet, "t", TAGS, max_bytes=100, claim=away).run(FakeSource(frames), stop)
    assert (fed.frames, fed.claims, outlet.at) == (1, 0, 1)


def test_a_frame_too_large_for_a_message_goes_without_its_image_and_says_why():
    outlet = MemoryOutlet()
    frames = [frame("a.png", bytes(50)), frame("big.png", bytes(101)), frame("c.png", bytes(100))]
    fed = Feeder(outlet, "t", TAGS, max_bytes=100).run(FakeSource(frames), threading.Event())
    assert (fed.frames, fed.too_large, fed.bytes) == (3, 1, 150)
    assert [len(one.value) for one in outlet.messages] == [50, 0, 100]
    _, got, _ = outlet.frames()
    assert got.error is not None, "the worker makes a Failed row and a dead letter of it"
    reason = dict(outlet.messages[1].headers)["inspect.reason"].decode()
    assert reason.startswith("too-large: 101 bytes; kafka.max_message_bytes is 100")


@pytest.mark.parametrize("asked_to_stop", [True, False])
def test_a_broker_that_is_away_at_the_end_is_no_error_of_a_stopped_feeder(asked_to_stop):
    class Away(MemoryOutlet):
        def write(self, messages, position, mark=""):
            if asked_to_stop:
                stop.set()
            raise ServiceUnavailable("no broker")

    stop = threading.Event()
    feeder = Feeder(Away(), "t", TAGS)
    with contextlib.nullcontext() if asked_to_stop else pytest.raises(ServiceUnavailable):
        fed = feeder.run(source(100), stop)
        assert (fed.frames, fed.bytes) == (0, 0), "only what is on the topic is counted"


def test_the_name_depends_on_source_camera_and_host():
    names = {
        feeder_name(place, Tags(camera), host)
        for place in ("/a", "/b")
        for camera in ("1", "2")
        for host in ("x", "y")
    }
    assert len(names) == 8
    assert feeder_name("/a", Tags("1"), "x") == feeder_name("/a", Tags("1"), "x")


def test_a_passing_name_is_never_met_again_and_one_that_a_feeder_may_have():
    assert passing_name() != passing_name()
    assert passing_name().startswith("dapo-feed-")
