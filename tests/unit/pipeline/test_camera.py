"""Cameras: the newest frame, opened again after a lost connection or a stall, no password in any row."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dapo.errors import SourceError
from pipeline.sources.camera import CameraSource, without_password
from pipeline.sources.choose import open_source


class _Capture:
    """An OpenCV capture that gives `count` frames; then fails, or hangs until it is let go."""

    def __init__(self, count: int, *, hangs: threading.Event | None = None, opened: bool = True) -> None:
        self._left = count
        self._hangs = hangs
        self._opened = opened
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self._opened

    def read(self) -> tuple[bool, Any]:
        if self._left:
            self._left -= 1
            return True, np.full((8, 8, 3), (1, 2, 3), np.uint8)
        if self._hangs is not None:
            self._hangs.wait(10)
        return False, None

    def release(self) -> None:
        self.released = True


def _source(captures: list[_Capture], **options: float) -> CameraSource:
    waiting: Iterator[_Capture] = iter(captures)
    hang = threading.Event()
    return CameraSource(
        "rtsp://user:secret@10.0.0.5/live",
        capture=lambda _: next(waiting, _Capture(0, hangs=hang)),
        pause_s=0.01,
        **options,
    )


def test_frames_are_rgb_and_numbered() -> None:
    source = _source([_Capture(1)])
    frame = next(iter(source))
    source.close()
    assert frame.pixels is not None
    assert frame.pixels[0, 0].tolist() == [3, 2, 1]
    assert frame.sequence == 0
    assert frame.frame_id.endswith("-000000000")
    assert source.total is None


def test_a_lost_connection_is_opened_again() -> None:
    captures = [_Capture(1), _Capture(0, opened=False), _Capture(1)]
    source = _source(captures)
    frames = iter(source)
    assert [next(frames).sequence, next(frames).sequence] == [0, 1]
    source.close()
    assert source.reconnects == 2
    assert captures[0].released
    assert captures[1].released


def test_a_hanging_camera_is_left_behind_after_the_stall_time() -> None:
    let_go = threading.Event()
    source = _source([_Capture(1, hangs=let_go), _Capture(1)], stall_s=0.05)
    frames = iter(source)
    assert next(frames).sequence == 0
    assert next(frames).sequence == 1
    let_go.set()
    source.close()
    assert source.reconnects >= 1


def test_a_slow_reader_sees_the_newest_frame_and_knows_what_it_missed() -> None:
    first_taken, burst_over, let_go = threading.Event(), threading.Event(), threading.Event()

    class _Burst(_Capture):
        def read(self) -> tuple[bool, Any]:
            if self._left == 49:
                first_taken.wait(10)
            if not self._left:
                burst_over.set()
            return super().read()

    source = _source([_Burst(50, hangs=let_go)])
    frames = iter(source)
    assert next(frames).sequence == 0
    first_taken.set()
    assert burst_over.wait(10)
    assert next(frames).sequence == 49
    assert source.dropped == 48
    source.close()
    let_go.set()


def test_close_ends_a_waiting_iteration() -> None:
    source = _source([_Capture(0, hangs=threading.Event())])
    threading.Timer(0.05, source.close).start()
    assert list(source) == []


def test_a_camera_that_is_not_there_is_said_at_once_and_without_its_password() -> None:
    with pytest.raises(SourceError) as caught:
        _source([_Capture(0, opened=False)])
    assert "10.0.0.5" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_passwords_are_cut_from_addresses() -> None:
    assert without_password("rtsp://user:p@ss@cam/live?x=1") == "rtsp://cam/live?x=1"
    assert without_password("http://cam:8080/a") == "http://cam:8080/a"
    shown = without_password("http://cam/video.cgi?channel=2&user=admin&pwd=secret&res=hd")
    assert shown == "http://cam/video.cgi?channel=2&user=***&pwd=***&res=hd"


def test_a_mistyped_address_is_a_users_mistake() -> None:
    with pytest.raises(SourceError, match="address can't be read"):
        CameraSource("rtsp://[::1/x")


@pytest.mark.parametrize("address", ["rtsp://127.0.0.1:9/none", "63", "/dev/video63"])
def test_addresses_are_cameras(address: str) -> None:
    with pytest.raises(SourceError, match=r"camera .* can't be opened"):
        open_source([address], None, limits=_limits(), skip=lambda *_: None)


def _limits() -> Any:
    from pipeline.decode import Limits

    return Limits()
