"""A resumed run equals an uninterrupted one over the source as it is now."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from dapo.errors import DapoError, OutputError, SettingsError
from dapo.pack import Product
from pipeline import job as jobs
from pipeline.decode import Limits
from pipeline.job import Job, check_apart, check_folder, run_job
from pipeline.naming import artifact_name
from pipeline.record import parts, read_results
from pipeline.run import INTERRUPTED, USAGE, RunOptions
from pipeline.sources import open_source
from pipeline.summary import FrameOutcome, RunSummary
from pipeline.testing import FakeInfer, encoded, small_pack, surface

PACK = small_pack(products={"*": Product(types=("scratch", "hole"), threshold_ok=0.2, threshold_notok=0.6)})
COUNT = 40
TIMES = ("captured_at", "started_at", "finished_at", "decode_ms", "infer_ms", "judge_ms")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(COUNT):
        data = b"bad" if number % 10 == 3 else encoded(surface(number, defect=number % 4 == 0))
        (folder / f"{number:03d}.png").write_bytes(data)
    for number in range(30, 38):  # a frozen camera: the run may stop in the middle of it
        (folder / f"{number:03d}.png").write_bytes(encoded(surface(30)))
    return folder


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ROWS_PER_FILE", 7)


def _run(
    photos: Path,
    out: Path,
    *,
    stop_at: int | None = None,
    resume: bool = False,
    batch: int = 4,
    limit: int | None = None,
    infer: FakeInfer | None = None,
) -> RunSummary:
    stop, summary = threading.Event(), RunSummary()
    opened = open_source([str(photos)], None, Limits(), summary.add_skipped)

    def on_frame(_: FrameOutcome) -> None:
        if summary.frames == stop_at:
            stop.set()

    work = Job(opened.name, "small.pack", out, RunOptions(batch=batch, limit=limit), resume=resume)
    return run_job(work, opened.source, infer or FakeInfer(PACK), PACK, summary, stop=stop, on_frame=on_frame)


def _content(out: Path) -> tuple[list[dict[str, object]], dict[str, str], list[int]]:
    """Rows without times, hashes of all pictures and dead letters' bytes, rows per file."""
    rows = [asdict(replace(row, **dict.fromkeys(TIMES))) for row in read_results(out)]
    files = {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("masks", "overlays", "deadletter")
        for path in sorted((out / name).iterdir())
        if not (name == "deadletter" and path.suffix == ".json")
    }
    letters = {path.name for path in (out / "deadletter").glob("*.json")}
    return rows, {**files, **dict.fromkeys(letters, "")}, [path.stat().st_size > 0 for path in parts(out)]


def _numbers(summary: RunSummary) -> str:
    """A summary without times and without what tells a resumed run."""
    plain = summary.as_json()
    for name in ("started_at", "finished_at", "reused", "interrupted", "exit_code"):
        del plain[name]
    return json.dumps(plain) + str(summary.worst)


@pytest.mark.parametrize("stops", [(1,), (5, 9), (7,), (33,), (34,), (36, 37), (39,)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    photos: Path, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    whole = _run(photos, tmp_path / "whole")
    for number, stop_at in enumerate(stops):
        stopped = _run(photos, tmp_path / "out", stop_at=stop_at, resume=number > 0)
        assert stopped.interrupted
        assert stopped.exit_code == INTERRUPTED
        assert stop_at <= stopped.frames < COUNT or stopped.frames == COUNT
    resumed = _run(photos, tmp_path / "out", resume=True)
    assert resumed.reused >= stops[-1]
    assert _content(tmp_path / "out") == _content(tmp_path / "whole")
    assert _numbers(resumed) == _numbers(whole)
    assert not (tmp_path / "out" / "results.previous").exists()


def test_a_limit_can_be_raised_by_a_resumed_run(photos: Path, tmp_path: Path) -> None:
    whole = _run(photos, tmp_path / "whole", limit=20)
    _run(photos, tmp_path / "out", limit=10)
    resumed = _run(photos, tmp_path / "out", resume=True, limit=20)
    assert resumed.reused == 10
    assert _content(tmp_path / "out") == _content(tmp_path / "whole")
    assert _numbers(resumed) == _numbers(whole)
    assert not (tmp_path / "out" / "results.previous").exists()


@pytest.mark.parametrize(("first", "says"), [(20, "frame 20"), (None, "the end")])
def test_a_lower_limit_would_drop_results_and_is_refused(
    photos: Path, tmp_path: Path, first: int | None, says: str
) -> None:
    _run(photos, tmp_path / "out", limit=first)
    before = _content(tmp_path / "out")
    with pytest.raises(SettingsError, match=f"went on to {says}, and --limit 10 would drop"):
        _run(photos, tmp_path / "out", resume=True, limit=10)
    assert _content(tmp_path / "out") == before


def test_another_source_is_not_resumed_over_the_results_of_this_one(photos: Path, tmp_path: Path) -> None:
    _run(photos, tmp_path / "out")
    before = _content(tmp_path / "out")
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match=r"was started with source .*, now it is .*elsewhere"):
        _run(tmp_path / "elsewhere", tmp_path / "out", resume=True)
    assert _content(tmp_path / "out") == before


def test_a_source_that_is_away_costs_no_results(photos: Path, tmp_path: Path) -> None:
    _run(photos, tmp_path / "out")
    before = _content(tmp_path / "out")
    photos.rename(tmp_path / "unmounted")
    photos.mkdir()
    assert _run(photos, tmp_path / "out", resume=True).exit_code == USAGE
    photos.rmdir()
    (tmp_path / "unmounted").rename(photos)
    assert _run(photos, tmp_path / "out", resume=True).reused == COUNT
    assert _content(tmp_path / "out") == before


def test_two_runs_do_not_share_a_folder(photos: Path, tmp_path: Path) -> None:
    def second(_: FrameOutcome) -> None:
        for resume in (False, True):
            with pytest.raises(SettingsError, match="another run is writing there"):
                _run(photos, tmp_path / "out", resume=resume)

    opened = open_source([str(photos)], None, Limits(), lambda *_: None)
    work = Job(opened.name, "small.pack", tmp_path / "out", RunOptions(limit=1))
    run_job(work, opened.source, FakeInfer(PACK), PACK, RunSummary(), on_frame=second)
    assert _run(photos, tmp_path / "out", resume=True, batch=8).frames == COUNT


FOREIGN = [
    "masks/gt.png",
    "overlays/a.jpg",
    "deadletter/x",
    "results/mine.csv",
    "report.html",
    "summary.json",
    "run.json",
]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_what_no_run_wrote_is_never_removed(
    photos: Path, tmp_path: Path, name: str, how: dict[str, bool]
) -> None:
    mine = tmp_path / "work" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("{}")
    opened = open_source([str(photos)], None, Limits(), lambda *_: None)
    work = Job(opened.name, "p", tmp_path / "work", RunOptions(), **how)
    with pytest.raises(OutputError, match=f"holds {name.split('/')[0]} and no run.json of 'dapo run'"):
        run_job(work, opened.source, FakeInfer(PACK), PACK, RunSummary())
    assert [path for path in (tmp_path / "work").rglob("*") if path.is_file()] == [mine]


def test_rows_without_their_marker_are_gone_on_with_but_not_removed(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _run(photos, out)
    before = _content(out)
    (out / "run.json").unlink()
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="nothing is removed"):
            check_folder(out, resume=False, overwrite=overwrite)
    assert _run(photos, out, resume=True).reused == COUNT
    assert _content(out) == before


def test_nothing_is_inferred_again(photos: Path, tmp_path: Path) -> None:
    _run(photos, tmp_path / "out")
    infer = FakeInfer(PACK)
    again = _run(photos, tmp_path / "out", resume=True, infer=infer)
    assert again.reused == COUNT
    assert infer.calls == []


def _changed(photos: Path) -> None:
    (photos / "004.png").write_bytes(encoded(surface(104)))  # had a defect, is good now
    (photos / "005.png").write_bytes(encoded(surface(105, defect=True)))  # the other way
    (photos / "013.png").write_bytes(encoded(surface(113)))  # could not be read, can now
    (photos / "006.png").write_bytes(b"bad now")


def _removed(photos: Path) -> None:
    for number in (0, 3, 8, 20):
        (photos / f"{number:03d}.png").unlink()


def _added(photos: Path) -> None:
    (photos / "0000.png").write_bytes(encoded(surface(200, defect=True)))
    (photos / "zzz.png").write_bytes(encoded(surface(201, defect=True)))


def _renamed(photos: Path) -> None:
    (photos / "000.png").rename(photos / "moved.png")


@pytest.mark.parametrize("change", [_changed, _removed, _added, _renamed])
@pytest.mark.parametrize("stop_at", [25, None])
def test_the_source_may_change_in_between(
    photos: Path, tmp_path: Path, change: Callable[[Path], None], stop_at: int | None
) -> None:
    _run(photos, tmp_path / "out", stop_at=stop_at)
    change(photos)
    _run(photos, tmp_path / "out", resume=True)
    _run(photos, tmp_path / "whole")
    assert _content(tmp_path / "out") == _content(tmp_path / "whole")


def test_a_lost_picture_is_made_again(photos: Path, tmp_path: Path) -> None:
    _run(photos, tmp_path / "whole")
    _run(photos, tmp_path / "out")
    (tmp_path / "out" / "masks" / f"{artifact_name('004.png')}.png").unlink()
    (tmp_path / "out" / "overlays" / f"{artifact_name('008.png')}.jpg").unlink()
    (tmp_path / "out" / "deadletter" / f"{artifact_name('003.png')}.json").unlink()
    assert _run(photos, tmp_path / "out", resume=True).reused == COUNT - 3
    assert _content(tmp_path / "out") == _content(tmp_path / "whole")


class _Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_a_killed_run_can_be_resumed_and_so_can_a_killed_resumption(photos: Path, tmp_path: Path) -> None:
    class Dying(FakeInfer):
        def infer(self, images, products):  # type: ignore[no-untyped-def]
            if sum(self.calls) >= 12:
                raise _Killed
            return super().infer(images, products)

    for resume in (False, True):
        with pytest.raises(_Killed):
            _run(photos, tmp_path / "out", resume=resume, infer=Dying(PACK))
    assert (tmp_path / "out" / "results.previous").is_dir()
    assert _run(photos, tmp_path / "out", resume=True).reused > 24
    _run(photos, tmp_path / "whole")
    assert _content(tmp_path / "out") == _content(tmp_path / "whole")


def test_results_are_not_overwritten_unasked(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _run(photos, out)
    before = _content(out)
    with pytest.raises(OutputError, match=r"--resume.*--overwrite.*--out"):
        _run(photos, out)
    assert _content(out) == before


def test_overwriting_removes_what_is_ours_and_nothing_else(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _run(photos, out)
    (out / "my notes.txt").write_text("keep me")
    (photos / "000.png").unlink()
    summary = RunSummary()
    opened = open_source([str(photos)], None, Limits(), summary.add_skipped)
    run_job(
        Job(opened.name, "p", out, RunOptions(), overwrite=True),
        opened.source,
        FakeInfer(PACK),
        PACK,
        summary,
    )
    assert summary.frames == COUNT - 1
    assert (out / "my notes.txt").read_text() == "keep me"
    assert not (out / "masks" / f"{artifact_name('000.png')}.png").exists()


def test_other_settings_are_refused(photos: Path, tmp_path: Path) -> None:
    _run(photos, tmp_path / "out", stop_at=5)
    with pytest.raises(SettingsError, match="batch 4, now it is 8"):
        _run(photos, tmp_path / "out", resume=True, batch=8)
    assert jobs.earlier_batch(tmp_path / "out") == 4
    assert jobs.earlier_batch(tmp_path) is None


def test_rows_of_another_pack_are_not_taken_over(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _run(photos, out)
    marker = json.loads((out / "run.json").read_text())
    other = replace(PACK, temperature=0.02)
    summary = RunSummary()
    opened = open_source([str(photos)], None, Limits(), summary.add_skipped)
    work = Job(opened.name, "p", out, RunOptions(batch=4), resume=True)
    with pytest.raises(SettingsError, match=marker["configuration_hash"]):
        run_job(work, opened.source, FakeInfer(other), other, summary)
    (out / "run.json").unlink()  # lost: the rows themselves still say it
    run_job(work, opened.source, FakeInfer(other), other, summary)
    assert summary.reused == 0
    assert {row.configuration_hash for row in read_results(out)} == {other.configuration_hash}


def test_results_do_not_lie_among_the_frames(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photos, target_is_directory=True)
    for walked, out in (
        (photos, photos),
        (photos, tmp_path / "link"),
        (tmp_path / "out" / "overlays", tmp_path / "out"),
        (tmp_path / "out" / "masks" / "x", tmp_path / "out"),
    ):
        with pytest.raises(SettingsError, match="Give another folder"):
            check_apart(walked, out)
    check_apart(photos, photos / "out")
    check_apart(photos, tmp_path)


def test_going_on_and_removing_contradict(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="one of both"):
        check_folder(tmp_path, resume=True, overwrite=True)


def test_a_folder_that_can_not_be_reached_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="File name too long"):
        check_folder(tmp_path / ("x" * 300), resume=False, overwrite=False)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        check_folder(tmp_path / "out", resume=False, overwrite=False)


def test_resuming_nothing_starts_a_run(photos: Path, tmp_path: Path) -> None:
    assert _run(photos, tmp_path / "out", resume=True).frames == COUNT


def test_damaged_results_are_told(photos: Path, tmp_path: Path) -> None:
    _run(photos, tmp_path / "out")
    parts(tmp_path / "out")[0].write_bytes(b"garbage")
    with pytest.raises(DapoError, match="Move it away"):
        _run(photos, tmp_path / "out", resume=True)


def test_a_frame_that_could_not_be_read_is_tried_again(photos: Path, tmp_path: Path) -> None:
    (photos / "link.png").symlink_to(photos / "later.png")
    _run(photos, tmp_path / "out")
    (photos / "later.png").write_bytes(encoded(np.full((64, 64, 3), 150, np.uint8)))
    resumed = _run(photos, tmp_path / "out", resume=True)
    assert resumed.reused == COUNT
    assert not list((tmp_path / "out" / "deadletter").glob("link*"))
