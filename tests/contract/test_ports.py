"""What every implementation of a port must do: the fakes and the adapters run the same tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest

from dapo.handwritten import make_handwritten_pack
from dapo.pack import Product
from dapo.predictor import Predictor
from dapo.testing import small_encoder
from pipeline.decode import Limits
from pipeline.infer import InProcessInfer
from pipeline.inspect import Inspector, Preparer
from pipeline.ports import Infer, Result, Sink, Source
from pipeline.record import FolderSink, read_results
from pipeline.sources.choose import open_source
from pipeline.testing import FakeInfer, FakeSource, MemorySink, encoded, frame, small_pack, surface
from tests.contract.infer_suite import InferSuite

COUNT = 5
PACK = small_pack("scratch", "hole", products={"none": Product(), "one": Product(types=("hole",))})


SMALL = make_handwritten_pack(small_encoder(), ["scratch", "hole"], products={"none": [], "one": ["hole"]})

# --- Source ----------------------------------------------------------------------------------------------------------


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(COUNT - 1):
        (folder / f"{number}.png").write_bytes(encoded(surface(number)))
    (folder / "9.png").symlink_to(folder / "gone.png")  # a frame that can't be read
    return folder


def _video(tmp_path: Path) -> Path:
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for number in range(COUNT):
        writer.write(surface(number))
    writer.release()
    return path


def _open(*given: str, list_file: str | None = None) -> Source:
    return open_source(given, list_file, Limits(), lambda *_: None).source


def _listed(tmp_path: Path) -> Source:
    folder = _folder(tmp_path)
    names = tmp_path / "names.txt"
    names.write_text(
        "".join(f"{folder / name}\n" for name in ("0.png", "1.png", "1.png", "2.png", "gone.png"))
    )
    return _open(list_file=str(names))


SOURCES: dict[str, Callable[[Path], Source]] = {
    "fake": lambda _: FakeSource([frame(str(number)) for number in range(COUNT)]),
    "folder": lambda tmp_path: _open(str(_folder(tmp_path))),
    "glob": lambda tmp_path: _open(str(_folder(tmp_path) / "*.png")),
    "list": _listed,
    "video": lambda tmp_path: _open(str(_video(tmp_path))),
}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    made = SOURCES[request.param](tmp_path)
    yield made
    made.close()


def test_a_source_gives_each_frame_once_under_an_id_of_its_own(source: Source) -> None:
    frames = list(source)
    assert len(frames) == source.total == COUNT
    assert len({(one.source, one.frame_id) for one in frames}) == COUNT
    for one in frames:
        assert one.captured_at.tzinfo is not None
        assert (one.error is not None) + (one.pixels is not None) + bool(one.data) == 1


def test_a_source_gives_the_same_again(source: Source) -> None:
    def seen() -> list[tuple[str, str, bytes]]:
        return [
            (one.source, one.frame_id, one.data if one.pixels is None else one.pixels.tobytes())
            for one in source
        ]

    assert seen() == seen()


def test_a_closed_source_ends(source: Source) -> None:
    frames = iter(source)
    next(frames)
    source.close()
    source.close()
    assert list(frames) == []


# --- Infer -----------------------------------------------------------------------------------------------------------


class TestFakeInfer(InferSuite):
    def opened(self) -> Infer:
        return FakeInfer(PACK)


class TestInProcessInfer(InferSuite):
    def opened(self) -> Infer:
        return InProcessInfer(SMALL, batch=4, predictor=Predictor(SMALL, encoder=small_encoder()))


# --- Sink ------------------------------------------------------------------------------------------------------------


def _results(count: int) -> list[Result]:
    preparer, inspector = Preparer(FakeInfer(PACK)), Inspector(FakeInfer(PACK), batch=2)
    found: list[Result] = []
    for number in range(count):
        data = b"bad" if number == 1 else encoded(surface(number, defect=number == 2))
        found += inspector.add(preparer.prepare(frame(f"{number}.png", data)))
    return [*found, *inspector.flush()]


class _Sink:
    """A sink and how to read what survived."""

    def __init__(self, made: Sink, durable: Callable[[], list[str]]) -> None:
        self.made = made
        self.durable = durable


@pytest.fixture(params=["memory", "folder"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> _Sink:
    if request.param == "memory":
        memory = MemorySink()
        return _Sink(memory, lambda: [result.frame.frame_id for result in memory.written[: memory.durable]])
    folder = FolderSink(tmp_path, rows_per_file=2)
    return _Sink(folder, lambda: [row.frame_id for row in read_results(tmp_path)])


def test_what_is_flushed_survives(sink: _Sink) -> None:
    for number, result in enumerate(_results(COUNT)):
        sink.made.write(result)
        sink.made.flush()
        assert sink.durable() == [f"{n}.png" for n in range(number + 1)]


def test_close_publishes_everything_in_order(sink: _Sink) -> None:
    for result in _results(COUNT):
        sink.made.write(result)
    sink.made.close()
    assert sink.durable() == [f"{n}.png" for n in range(COUNT)]


def test_flushing_twice_changes_nothing(sink: _Sink) -> None:
    sink.made.flush()
    for result in _results(1):
        sink.made.write(result)
    sink.made.flush()
    sink.made.flush()
    sink.made.close()
    assert sink.durable() == ["0.png"]


def test_an_empty_sink_closes(sink: _Sink) -> None:
    sink.made.close()
    assert sink.durable() == []


def test_sinks_keep_no_pixels() -> None:
    sink = MemorySink()
    for result in _results(3):
        sink.write(result)
    assert all(result.pixels is None for result in sink.written)
