from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from trainer.evaluation.aupro import aupro, aupro_by_passes
from trainer.evaluation.baselines import BASELINES, score
from trainer.evaluation.metrics import Counts, auroc, average_precision, f1_max, tally, three
from trainer.evaluation.multitype import MultiType


def best_f1(truth, scores):
    precision, recall, _ = precision_recall_curve(truth, scores)
    return (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=60))
def test_metrics_are_scikit_learns_with_ties(pairs):
    scores, truth = (np.array(column) for column in zip(*pairs, strict=True))
    counts = tally(scores / 5, truth)
    if truth.any() and not truth.all():
        assert auroc(counts) == pytest.approx(roc_auc_score(truth, scores))
    else:
        assert auroc(counts) is None
    if truth.any():
        assert average_precision(counts) == pytest.approx(average_precision_score(truth, scores))
        assert f1_max(counts) == pytest.approx(best_f1(truth, scores))
    else:
        assert average_precision(counts) is f1_max(counts) is None


def test_counts_of_float16_maps_are_exact_over_several_images():
    rng = np.random.default_rng(0)
    counts, maps, masks = Counts(), [], []
    for _ in range(3):
        maps.append(rng.normal(0, 1, (20, 30)).astype(np.float16))
        masks.append(rng.random((20, 30)) > 0.8)
        counts.add(maps[-1], masks[-1])
    scores, truth = np.concatenate(maps).ravel(), np.concatenate(masks).ravel()
    assert three(tally(counts)) == pytest.approx(
        {
            "auroc": roc_auc_score(truth, scores),
            "ap": average_precision_score(truth, scores),
            "f1_max": best_f1(truth, scores),
        }
    )


def test_negative_zero_ties_with_zero():
    counts = Counts()
    counts.add(np.array([-0.0, 0.0], np.float16), np.array([True, False]))
    assert auroc(tally(counts)) == 0.5


def test_truth_is_needed():
    with pytest.raises(ValueError, match="truth"):
        tally(np.zeros(2))


def random_maps(seed, count=5, side=50):
    rng = np.random.default_rng(seed)
    masks = [cv2.GaussianBlur(rng.standard_normal((side, side)), (0, 0), 3) > 0.12 for _ in range(count)]
    maps = [(rng.random((side, side)) + 0.7 * mask).astype(np.float16) for mask in masks]
    return maps, masks


@pytest.mark.parametrize("seed", range(6))
def test_aupro_is_the_two_hundred_passes(seed):
    maps, masks = random_maps(seed)
    assert aupro(maps, masks) == pytest.approx(aupro_by_passes(maps, masks), abs=1e-6)


def test_aupro_counts_diagonal_neighbours_as_one_region():
    mask = np.zeros((20, 20), bool)
    mask[2, 2] = mask[3, 3] = True
    anomaly = np.linspace(0, 0.4, 400).reshape(20, 20)
    anomaly[2, 2] = 1.0  # one of the two pixels is found: an overlap of a half, not of one region of two
    assert aupro([anomaly], [mask]) == pytest.approx(aupro_by_passes([anomaly], [mask]), abs=1e-6)
    assert aupro([anomaly], [mask]) < 0.75


def test_aupro_has_no_say_without_regions_or_background():
    flat, mask = np.zeros((4, 4)), np.zeros((4, 4), bool)
    assert aupro([flat], [mask]) is None
    assert aupro([flat], [~mask]) is None


def test_multi_type_is_macro_over_the_states_that_occur():
    task = MultiType(["good", "hole", "bent"])
    truth = np.array([[0, 0], [1, 1]])
    sure = np.stack([truth == 0, truth == 1, np.zeros_like(truth)]).astype(np.float32)
    task.add(sure, truth)
    assert task.figures() == {"auroc": 1.0, "ap": 1.0, "f1": 1.0}
    assert task.figures(["bent"]) == {"auroc": None, "ap": None, "f1": None}
    task.add(sure[[1, 0, 2]], truth)  # all wrong
    assert task.figures()["f1"] == pytest.approx(0.5)
    assert task.figures()["auroc"] == pytest.approx(0.5)


def test_baselines_see_a_bright_spot():
    image = np.full((64, 64, 3), 90, np.uint8)
    clean = {name: score(saliency(image)) for name, saliency in BASELINES.items()}
    image[30:36, 40:46] = 240
    for name, saliency in BASELINES.items():
        field = saliency(image)
        y, x = np.unravel_index(field.argmax(), field.shape)
        assert abs(y - 33) < 8
        assert abs(x - 43) < 8
        assert score(field) > clean[name]
