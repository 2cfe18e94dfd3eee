"""The stages: one result per frame, in order, whatever the batch, the tiles and the picture."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from dapo.inspection import Evaluation, Prediction
from dapo.pack import Product, Tiles
from dapo.quality import FROZEN_AFTER
from pipeline.decode import Limits
from pipeline.inspect import Inspector, Preparer, content_hash
from pipeline.ports import Frame, Record, Result
from pipeline.testing import DAY, FakeInfer, encoded, frame, small_pack, surface

CALIBRATED = Product(types=("scratch", "hole"), threshold_ok=0.2, threshold_notok=0.6)


def _inspect(
    frames: Sequence[Frame], *, batch: int = 4, live: bool = False, product: Product = CALIBRATED
) -> list[Result]:
    pack = small_pack(products={"*": product})
    preparer, inspector = Preparer(FakeInfer(pack)), Inspector(FakeInfer(pack), batch=batch, live=live)
    results = [result for one in frames for result in inspector.add(preparer.prepare(one))]
    return [*results, *inspector.flush()]


def _frame(number: int, *, defect: bool = False) -> Frame:
    return frame(f"{number}.png", encoded(surface(number, defect=defect)))


def test_a_frame_passes_all_stages() -> None:
    [good, bad] = _inspect([_frame(0), _frame(1, defect=True)])
    assert good.verdict is not None
    assert good.verdict.evaluation is Evaluation.OK
    assert bad.verdict is not None
    assert bad.verdict.evaluation is Evaluation.NOT_OK
    [defect] = bad.verdict.defects
    assert defect.type == "scratch"  # darker than the surface: type 0 of the fake
    assert abs(defect.centroid[0] - 0.7 * 96) < 8
    assert (bad.image_width, bad.image_height) == (96, 64)
    assert bad.image_sha256 == hashlib.sha256(bad.frame.data).hexdigest()
    assert bad.started_at <= bad.finished_at
    assert min(bad.decode_ms, bad.infer_ms, bad.judge_ms) > 0


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_results_come_in_order_and_do_not_depend_on_the_batch(batch: int) -> None:
    frames = [frame(f"{n}", b"" if n % 3 == 1 else encoded(surface(n, defect=n % 4 == 0))) for n in range(20)]
    results = _inspect(frames, batch=batch)
    assert [result.frame.frame_id for result in results] == [str(n) for n in range(20)]
    scores = [result.verdict.anomaly_score if result.verdict else None for result in results]
    single = [
        result.verdict.anomaly_score if result.verdict else None
        for one in frames
        for result in _inspect([one])
    ]
    assert scores == single


def test_batches_are_full_across_frames() -> None:
    pack = small_pack(products={"*": Product(types=("scratch",), tiles=Tiles(1, 3))})
    infer = FakeInfer(pack)
    preparer, inspector = Preparer(FakeInfer(pack)), Inspector(infer, batch=4)
    for number in range(4):
        list(inspector.add(preparer.prepare(_frame(number))))
    list(inspector.flush())
    assert infer.calls == [4, 4, 4]


def test_a_live_source_is_answered_at_once() -> None:
    pack = small_pack()
    preparer, inspector = Preparer(FakeInfer(pack)), Inspector(FakeInfer(pack), batch=8, live=True)
    assert len(list(inspector.add(preparer.prepare(_frame(0))))) == 1


def test_failed_frames_do_not_pile_up_behind_a_batch_that_waits() -> None:
    pack = small_pack()
    preparer, inspector = Preparer(FakeInfer(pack)), Inspector(FakeInfer(pack), batch=4)
    assert list(inspector.add(preparer.prepare(_frame(0)))) == []
    given = [len(list(inspector.add(preparer.prepare(frame(f"bad{n}", b"x"))))) for n in range(100)]
    assert sum(given) >= 100 - 16


def test_tiles_find_what_the_whole_frame_loses() -> None:
    large = np.full((1024, 1024, 3), 150, np.uint8)
    large[100:116, 900:916] = 0
    tiled = Product(types=("scratch",), threshold_ok=0.3, threshold_notok=0.3, tiles=Tiles(8, 8, 0.1))
    data = encoded(large)
    [whole] = _inspect(
        [frame("x.png", data)], product=Product(types=("scratch",), threshold_ok=0.3, threshold_notok=0.3)
    )
    [cut] = _inspect([frame("x.png", data)], product=tiled)
    assert whole.verdict is not None
    assert whole.verdict.evaluation is Evaluation.OK
    assert cut.verdict is not None
    assert cut.verdict.evaluation is Evaluation.NOT_OK
    assert abs(cut.verdict.defects[0].centroid[0] - 908) < 16


@pytest.mark.parametrize(("value", "code"), [(0, "black"), (255, "over-exposed")])
def test_an_unusable_picture_is_not_decidable_and_not_inferred(value: int, code: str) -> None:
    [result] = _inspect([frame("x.png", encoded(np.full((64, 64, 3), value, np.uint8)))])
    assert result.verdict is not None
    assert result.verdict.evaluation is Evaluation.NOT_DECIDABLE
    assert result.verdict.reason_code == code
    assert math.isnan(result.verdict.anomaly_score)
    assert result.infer_ms == 0


def test_a_small_dark_defect_on_a_white_part_is_inspected() -> None:
    white = np.full((200, 200, 3), 255, np.uint8)
    white[90:100, 90:100] = 0
    [result] = _inspect([frame("x.png", encoded(white))])
    assert result.verdict is not None
    assert result.verdict.reason_code != "over-exposed"


def test_a_frozen_camera_is_noticed_and_recovers() -> None:
    frames = [*([_frame(1)] * (FROZEN_AFTER + 2)), _frame(2)]
    codes = [result.verdict and result.verdict.reason_code for result in _inspect(frames)]
    assert codes == [*[""] * FROZEN_AFTER, "frozen", "frozen", ""]


def test_a_frozen_camera_is_noticed_across_frames_that_are_taken_over() -> None:
    pack = small_pack()
    preparer = Preparer(FakeInfer(pack))
    for _ in range(20):
        preparer.passed_over(_frame(1))
    for number in range(3):
        preparer.passed_over(frame(f"clip#{number}", b"", pixels=surface(number), camera_id="clip"))
    prepared = preparer.prepare(_frame(1))
    assert prepared.picture is not None
    assert prepared.picture[0] == "frozen"


def _read(number: int, offset: int, camera: str = "c") -> Frame:
    record = Record("frames", 0, offset, b"c", b"", (), DAY)
    return frame(f"{number}.png", encoded(surface(number)), camera_id=camera, record=record)


def test_a_frame_that_is_read_again_is_no_frozen_camera() -> None:
    preparer = Preparer(FakeInfer(small_pack()))
    for _ in range(FROZEN_AFTER + 3):  # as often as a transaction is undone
        assert [preparer.prepare(_read(number, number)).picture for number in (1, 2)] == [None, None]
    for _ in range(FROZEN_AFTER + 3):
        assert preparer.prepare(_read(2, 2)).picture is None


def test_frames_of_a_frozen_camera_that_are_read_again_are_still_not_decidable() -> None:
    preparer = Preparer(FakeInfer(small_pack()))
    shots = [_read(1, offset) for offset in range(FROZEN_AFTER + 2)]
    first = [preparer.prepare(shot).picture for shot in shots]
    assert [found is not None for found in first] == [False] * FROZEN_AFTER + [True, True]
    again = preparer.prepare(shots[-1]).picture
    assert again is not None
    assert again[0] == "frozen"
    assert preparer.prepare(_read(2, FROZEN_AFTER + 2)).picture is None


def test_the_number_of_cameras_watched_is_bounded() -> None:
    preparer = Preparer(FakeInfer(small_pack()))
    data = encoded(surface(1))
    for number in range(1200):
        preparer.prepare(frame("x.png", data, camera_id=f"shot-{number}"))
    assert len(preparer._frozen) <= 1000
    codes = [
        preparer.prepare(frame("x.png", data, camera_id="shot-1199")).picture for _ in range(FROZEN_AFTER)
    ]
    assert codes[-1] is not None  # the newest one is still known


def test_frames_of_a_source_that_decodes() -> None:
    [result] = _inspect([frame("v#1", b"", pixels=surface(5, defect=True))])
    assert result.verdict is not None
    assert result.verdict.evaluation is Evaluation.NOT_OK
    assert len(result.image_sha256) == 64


@pytest.mark.parametrize(
    ("one", "stage", "code"),
    [
        (frame("x", b"rubbish"), "decode", "not-an-image"),
        (frame("x", b"", error=("not-found", "x is gone.")), "read", "not-found"),
        (frame("x", b"", pixels=np.zeros((2, 2, 3), np.uint8)), "decode", "too-small"),
    ],
)
def test_a_frame_that_fails_says_where_and_why(one: Frame, stage: str, code: str) -> None:
    [result] = _inspect([one])
    assert result.verdict is None
    assert result.error is not None
    assert result.error[:2] == (stage, code)


def test_a_frame_that_can_not_be_judged_does_not_stop_the_line(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeInfer):
        def infer(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]:
            return [
                Prediction(0.9, np.zeros(3, np.float16), one.type_map, one.type_scores)
                for one in super().infer(images, products)
            ]

    pack = small_pack(products={"*": CALIBRATED})
    inspector = Inspector(Broken(pack), batch=1)
    with caplog.at_level(logging.CRITICAL):
        [result] = inspector.add(Preparer(FakeInfer(pack)).prepare(_frame(1)))
    assert result.error is not None
    assert result.error[:2] == ("judge", "internal")


def test_limits_reach_the_decoder() -> None:
    pack = small_pack()
    prepared = Preparer(FakeInfer(pack), Limits(max_pixels=100)).prepare(_frame(0))
    assert prepared.error is not None
    assert prepared.error[1] == "too-many-pixels"


def test_content_hashes_tell_shapes_apart() -> None:
    wide, high = np.zeros((8, 16, 3), np.uint8), np.zeros((16, 8, 3), np.uint8)
    assert content_hash(frame("a", b"", pixels=wide)) != content_hash(frame("a", b"", pixels=high))
    assert content_hash(frame("a", b"", error=("not-found", "gone."))) == ""
