from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dapo.inspection import Evaluation, Prediction
from dapo.judge import judge, upsample
from dapo.pack import Product, Tiles
from dapo.preprocess import resize
from dapo.tiles import Window, merge, windows

CALIBRATED = Product(types=("scratch", "hole"), threshold_ok=0.3, threshold_notok=0.6)


def prediction(score=0.9, spot=(4, 9), grid=16, kind=1, scores=(0.2, 0.8)):
    cells = np.full((grid, grid), 0.05, np.float16)
    if spot:
        cells[spot] = 0.95
    types = np.full((grid, grid), kind, np.uint16)
    return Prediction(score, cells, types, np.array(scores, np.float32))


@pytest.mark.parametrize(
    ("score", "evaluation"),
    [
        (0.29, Evaluation.OK),
        (0.3, Evaluation.NOT_DECIDABLE),
        (0.59, Evaluation.NOT_DECIDABLE),
        (0.6, Evaluation.NOT_OK),
    ],
)
def test_thresholds_decide(score, evaluation):
    verdict = judge(prediction(score), CALIBRATED, 256, 256)
    assert verdict.evaluation is evaluation
    assert bool(verdict.defects) == (evaluation is not Evaluation.OK)
    assert (verdict.threshold_ok, verdict.threshold_notok) == (0.3, 0.6)


def test_thresholds_of_the_likeliest_type_go_first():
    product = Product(
        types=("scratch", "hole"),
        threshold_ok=0.3,
        threshold_notok=0.6,
        type_thresholds={"hole": (0.7, 0.8)},
    )
    hole = judge(prediction(0.65, scores=(0.2, 0.8)), product, 256, 256)
    scratch = judge(prediction(0.65, scores=(0.8, 0.2)), product, 256, 256)
    assert (hole.evaluation, hole.threshold_notok) == (Evaluation.OK, 0.8)
    assert (scratch.evaluation, scratch.threshold_notok) == (Evaluation.NOT_OK, 0.6)


def test_without_thresholds_defects_are_listed_and_nothing_is_said_of_the_part():
    verdict = judge(prediction(), Product(types=("scratch", "hole")), 256, 256)
    assert verdict.evaluation is Evaluation.UNDEFINED
    assert verdict.reason_code == "uncalibrated"
    assert verdict.defects[0].type == "hole"


@pytest.mark.parametrize(("width", "height"), [(256, 256), (640, 480), (4000, 3000), (100, 1500), (12, 9)])
def test_a_region_lies_where_the_map_is_high(width, height):
    defect = judge(prediction(), CALIBRATED, width, height).defects[0]
    x, y, w, h = defect.bbox
    assert (x >= 0) & (y >= 0) & (x + w <= width) & (y + h <= height)
    assert defect.mask.shape == (h, w)
    assert defect.area_px == defect.mask.sum()
    assert defect.area_fraction == pytest.approx(defect.area_px / (width * height))
    centre = (9 / 15 * (width - 1), 4 / 15 * (height - 1))  # corners aligned
    assert defect.centroid == pytest.approx(centre, abs=max(2.0, 0.03 * max(width, height)))


def test_area_in_square_millimetres_needs_a_scale():
    scaled = Product(**{**vars(CALIBRATED), "mm_per_px": 0.5})
    defect = judge(prediction(), scaled, 256, 256).defects[0]
    assert defect.area_mm2 == pytest.approx(defect.area_px * 0.25)
    assert judge(prediction(), CALIBRATED, 256, 256).defects[0].area_mm2 is None


def test_small_regions_are_dropped_and_the_worst_are_kept():
    cells = np.zeros((16, 16), np.float16)
    cells[1::4, 1::4] = np.linspace(0.7, 1.0, 16).reshape(4, 4)
    many = Prediction(0.9, cells, np.zeros((16, 16), np.uint16), np.array([0.6, 0.4], np.float32))
    few = judge(many, Product(**{**vars(CALIBRATED), "max_regions": 3}), 256, 256).defects
    assert len(few) == 3
    assert [round(d.score, 2) for d in few] == [1.0, 0.98, 0.96]
    assert (
        judge(many, Product(**{**vars(CALIBRATED), "min_area_px": 5000}), 256, 256).defects[0].bbox
        == few[0].bbox
    )
    uncalibrated = Product(types=("scratch", "hole"), min_area_px=5000)
    assert judge(many, uncalibrated, 256, 256).defects == ()


def test_a_notok_frame_shows_where_even_below_the_mask_threshold():
    cells = np.full((16, 16), 0.1, np.float16)
    cells[3, 3] = 0.4
    faint = Prediction(0.7, cells, np.zeros((16, 16), np.uint16), np.array([0.6, 0.4], np.float32))
    assert len(judge(faint, CALIBRATED, 256, 256).defects) == 1
    assert judge(faint, Product(types=("scratch", "hole")), 256, 256).defects == ()


def test_an_ignored_place_does_not_make_a_part_notok():
    corner = ((0.45, 0.15), (0.75, 0.15), (0.75, 0.45), (0.45, 0.45))
    ignoring = Product(**{**vars(CALIBRATED), "ignore": (corner,)})
    verdict = judge(prediction(), ignoring, 256, 256)
    assert verdict.evaluation is Evaluation.OK
    elsewhere = Product(**{**vars(CALIBRATED), "roi": (((0, 0.6), (1, 0.6), (1, 1), (0, 1)),)})
    assert judge(prediction(), elsewhere, 256, 256).evaluation is Evaluation.OK
    around = Product(**{**vars(CALIBRATED), "roi": (((0, 0), (1, 0), (1, 1), (0, 1)),)})
    assert judge(prediction(), around, 256, 256).anomaly_score == pytest.approx(0.9)


@given(st.floats(0, 0.97), st.floats(0, 0.97), st.floats(0.005, 0.03))
def test_a_region_of_interest_smaller_than_a_cell_is_looked_at(x, y, side):
    """The screw that is missing lies between the centres of two cells."""
    square = ((x, y), (x + side, y), (x + side, y + side), (x, y + side))
    everywhere = Prediction(
        0.9,
        np.full((16, 16), 0.95, np.float16),
        np.ones((16, 16), np.uint16),
        np.array([0.2, 0.8], np.float32),
    )
    verdict = judge(everywhere, Product(**{**vars(CALIBRATED), "roi": (square,)}), 256, 256)
    assert verdict.evaluation is Evaluation.NOT_OK


def test_a_cell_that_is_ignored_for_the_most_part_is_not_looked_at():
    def score(side):
        spot = ((0, 0), (side, 0), (side, side), (0, side))
        return judge(prediction(spot=(0, 0)), Product(**{**vars(CALIBRATED), "ignore": (spot,)}), 256, 256)

    assert score(0.9 / 16).evaluation is Evaluation.OK
    assert score(0.4 / 16).evaluation is Evaluation.NOT_OK


def test_types_need_to_stand_out():
    even = prediction(scores=(0.5, 0.5))
    even.map[4, 10] = 0.95  # a region of two cells, one of each type
    half = Prediction(even.score, even.map, (np.indices((16, 16))[1] % 2).astype(np.uint16), even.type_scores)
    assert judge(half, CALIBRATED, 256, 256).defects[0].type == "unknown"
    assert judge(prediction(scores=()), Product(), 256, 256).defects[0].type == "unknown"


def test_upsample_is_bilinear_with_aligned_corners():
    cells = np.random.default_rng(0).random((7, 9)).astype(np.float32)
    ours = upsample(cells, 60, 50)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(cells)[None, None], (50, 60), mode="bilinear", align_corners=True
    )
    assert np.abs(ours - theirs[0, 0].numpy()).max() < 1e-5


@pytest.mark.parametrize(("width", "height"), [(4000, 3000), (7, 5), (1, 1), (1000, 10)])
@pytest.mark.parametrize("tiles", [None, Tiles(1, 1), Tiles(3, 4, 0.2), Tiles(8, 8, 0.5)])
def test_windows_cover_the_frame_and_stay_inside(width, height, tiles):
    covered = np.zeros((height, width), bool)
    for part in windows(width, height, tiles):
        assert part.width > 0
        assert part.height > 0
        assert part.x + part.width <= width
        assert part.y + part.height <= height
        covered[part.y : part.y + part.height, part.x : part.x + part.width] = True
    assert covered.all()


def test_windows_keep_to_the_region_of_interest():
    [part] = windows(100, 200, None, [((0.25, 0.5), (0.75, 0.5), (0.5, 0.75))])
    assert part == Window(25, 100, 50, 50)


def test_merge_takes_the_worst_window_and_keeps_its_place():
    parts = windows(1000, 500, Tiles(1, 2, 0.0))
    quiet, loud = prediction(0.1, None, kind=0, scores=(1, 0)), prediction(0.8, (8, 8), kind=1, scores=(0, 1))
    merged = merge([quiet, loud], parts, 1000, 500)
    assert merged.score == 0.8
    assert merged.map.shape == (16, 32)
    row, column = np.unravel_index(merged.map.argmax(), merged.map.shape)
    assert (row, column) == (8, 24)
    assert merged.type_map[8, 24] == 1
    assert merged.type_scores.tolist() == pytest.approx([1 / 9, 8 / 9], abs=1e-6)
    assert merge([quiet], [Window(0, 0, 10, 10)], 10, 10) is quiet
    silent = prediction(0.0, None)
    assert merge([silent, silent], parts, 1000, 500).type_scores.sum() == pytest.approx(1)


def contrast_head(image):
    """A head that sees what survives the resize: brightness against the image's median."""
    grey = image.astype(np.float32).mean(-1)
    cells = np.abs(grey - np.median(grey)).reshape(16, 16, 16, 16).max((1, 3)) / 255
    return Prediction(
        float(cells.max()), cells.astype(np.float16), np.zeros((16, 16), np.uint16), np.ones(1, np.float32)
    )


def test_a_scratch_of_ten_pixels_in_twelve_megapixels_is_found_with_tiles_and_lost_without():
    frame = np.full((3000, 4000, 3), 90, np.uint8)
    frame[1500:1501, 2000:2010] = 250  # 10 px long, 1 px wide
    product = Product(
        types=("scratch",), threshold_ok=0.03, threshold_notok=0.03, mask_threshold=0.02, min_area_px=1
    )
    found = {}
    for tiles in (None, Tiles(12, 16, 0.1)):
        parts = windows(4000, 3000, tiles)
        said = [contrast_head(resize(part.cut(frame), 256)) for part in parts]
        found[tiles] = judge(merge(said, parts, 4000, 3000), product, 4000, 3000)
    assert found[None].evaluation is Evaluation.OK
    tiled = found[Tiles(12, 16, 0.1)]
    assert tiled.evaluation is Evaluation.NOT_OK
    assert tiled.defects[0].centroid == pytest.approx((2005, 1500), abs=20)
