"""What a shadow run says of two packs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dapo.errors import FrameError, ServiceUnavailable
from dapo.inspection import Defect, Evaluation, Verdict
from dapo.pack import Pack
from pipeline.inspect import Inspector, Preparer
from pipeline.ports import Frame, Record
from pipeline.registry.shadow import Agreement, Shadow, rank_correlation
from pipeline.rows import to_row
from pipeline.stream.frames import read_frame, write_frame
from pipeline.testing import DAY, FakeInfer, encoded, frame, surface
from schemas.results import ResultRow
from tests.unit.pipeline.registry.packs import OWN, champion, with_word

A = champion()
STRICT = A.with_products({"*": replace(OWN, threshold_ok=0.01, threshold_notok=0.02)})


class Line:
    """Frames on a topic, and the champion's rows of them."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.rows: list[ResultRow] = []
        infer = FakeInfer(A)
        self._preparer, self._inspector = Preparer(infer), Inspector(infer, live=True)

    def inspect(self, data: bytes, **fields: object) -> ResultRow:
        number = len(self.records)
        message = write_frame(frame(f"f{number}", data, camera_id=f"c{number}", **fields), "t")
        record = Record("t", 0, number, message.key, message.value, message.headers, DAY)
        self.records.append(record)
        [result] = self._inspector.add(self._preparer.prepare(read_frame(record)))
        self.rows.append(to_row(result))
        return self.rows[-1]

    def read(self, partition: int, offset: int) -> Record | None:
        return self.records[offset] if offset < len(self.records) else None


@pytest.fixture
def line() -> Line:
    made = Line()
    for number in range(8):
        made.inspect(encoded(surface(number, defect=number % 2 == 1)))
    return made


def shadow(line: Line, challenger: Pack, **options: object) -> Shadow:
    def fetch(one: Frame) -> bytes:
        raise FrameError("not-found", f"{one.frame_id} is not in the store")

    return Shadow(A.configuration_hash, FakeInfer(challenger), line.read, fetch)


def test_a_pack_that_says_the_same_agrees(line: Line) -> None:
    run = shadow(line, with_word(A))
    assert not run.look(line.rows)
    said = run.agreement.report()
    assert said["frames"] == 8
    assert said["agreement"] == 1.0
    assert said["table"]["OK"]["OK"] + said["table"]["NotOK"]["NotOK"] == 8
    assert said["changed"] == []
    assert said["types_changed"] == 0
    assert said["rank_correlation"] == 1.0
    assert said["challenger_ms"]["p50"] <= said["challenger_ms"]["p99"]


def test_verdicts_that_change_are_named(line: Line) -> None:
    run = shadow(line, STRICT)
    run.look(line.rows)
    said = run.agreement.report()
    assert said["agreement"] == 0.5
    assert said["table"]["OK"] == {"OK": 0, "NotOK": 4, "NotDecidable": 0, "Undefined": 0}
    assert [one["frame_id"] for one in said["changed"]] == ["f0", "f2", "f4", "f6"]
    assert {(one["champion"], one["challenger"]) for one in said["changed"]} == {("OK", "NotOK")}


def test_it_ends_after_as_many_frames_as_were_asked_for(line: Line) -> None:
    run = shadow(line, A)
    assert run.look(line.rows, limit=3)
    assert run.agreement.frames == 3


def test_what_can_not_be_compared_is_counted_by_why(line: Line) -> None:
    failed = line.inspect(b"no image")
    black = line.inspect(encoded(np.zeros((64, 64, 3), np.uint8)))
    rows = [
        failed,
        black,
        replace(line.rows[0], configuration_hash="0" * 64),
        replace(line.rows[0], frames_offset=1000),
        replace(line.rows[0], frames_offset=None),
    ]
    run = shadow(line, A)
    run.look(rows)
    assert run.agreement.frames == 0
    assert run.agreement.report()["skipped"] == {"frame is gone": 1, "not inferred": 3, "other pack": 1}
    assert run.agreement.report()["agreement"] is None


def test_a_server_that_is_away_for_one_frame_is_asked_for_the_next(line: Line) -> None:
    class Flaky(FakeInfer):
        def infer(self, images, products):  # type: ignore[no-untyped-def]
            if not self.calls:
                self.calls.append(0)
                raise ServiceUnavailable("away")
            return super().infer(images, products)

    run = Shadow(A.configuration_hash, Flaky(A), line.read, lambda one: b"")
    run.look(line.rows)
    assert run.agreement.frames == 7
    assert run.agreement.skipped == {"server away": 1}


def test_large_frames_are_fetched_from_where_they_lie(line: Line) -> None:
    row = line.rows[1]
    message = write_frame(read_frame(line.records[1]), "t", reference="s3://inspection/claims/x")
    line.records[1] = Record("t", 0, 1, message.key, message.value, message.headers, DAY)
    run = shadow(line, A)
    run.look([row])
    assert run.agreement.skipped == {"image can't be had": 1}
    fetched = Shadow(
        A.configuration_hash, FakeInfer(A), line.read, lambda one: encoded(surface(1, defect=True))
    )
    fetched.look([row])
    assert fetched.agreement.table == {("NotOK", "NotOK"): 1}


def test_other_types_are_counted_apart_from_verdicts(line: Line) -> None:
    row = line.rows[1]
    region = Defect("dent", 0.9, (0, 0, 4, 4), 16, None, 0.1, (2.0, 2.0), np.ones((4, 4), bool))
    agreement = Agreement()
    agreement.add(row, Verdict(Evaluation.NOT_OK, "", "", 0.9, 0.2, 0.6, (region,)), 1.0)
    assert agreement.types_changed == 1
    assert agreement.changes == []


@pytest.mark.parametrize(
    ("pairs", "rho"),
    [
        ([], None),
        ([(1, 1)], None),
        ([(1, 1), (1, 2)], None),
        ([(1, 3), (2, 2), (3, 1)], -1.0),
        ([(1, 1), (2, 2), (2, 3), (4, 4)], 0.9487),  # as scipy.stats.spearmanr says
    ],
)
def test_rank_correlation(pairs: list[tuple[float, float]], rho: float | None) -> None:
    assert rank_correlation(pairs) == rho
