from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from dapo.errors import SettingsError
from dapo.handwritten import make_handwritten_pack
from dapo.pack_io import read_pack, write_pack
from dapo.testing import small_encoder
from pipeline.calibrate import calibrate, upper_bound
from pipeline.cli import invoke
from pipeline.cli.calibrate import describe

scores = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=300)


@given(scores, st.sampled_from([0.001, 0.01, 0.05, 0.1]))
def test_at_most_the_wanted_share_of_good_frames_alarms(values, rate):
    found = calibrate(values, rate)
    alarms = sum(value >= found.threshold_notok for value in values)
    assert found.alarms == alarms
    if found.threshold_notok < 1:  # a score of 1 alarms whatever the threshold
        assert alarms <= rate * len(values)
    assert found.threshold_ok <= found.threshold_notok
    below = sum(value >= found.threshold_ok for value in values)
    assert (
        found.threshold_ok == 1
        or below <= 5 * rate * len(values)
        or found.threshold_ok == found.threshold_notok
    )


def test_the_threshold_is_the_lowest_that_keeps_the_rate():
    found = calibrate(np.arange(100) / 128, 0.05)
    assert found.alarms == 5
    assert found.threshold_notok == pytest.approx(94 / 128)


def test_the_bound_is_clopper_and_pearsons():
    assert upper_bound(0, 150) == pytest.approx(0.0198, abs=1e-4)  # the rule of three
    for alarms, frames in ((0, 20), (1, 60), (7, 300)):
        assert binom.cdf(alarms, frames, upper_bound(alarms, frames)) == pytest.approx(0.05)
    assert upper_bound(3, 3) == 1.0


def test_too_few_frames_say_how_many_are_needed():
    found = calibrate([0.1] * 150, 0.01)
    assert not found.sure
    assert found.frames_needed == 299
    assert calibrate([0.1] * 299, 0.01).sure


@pytest.mark.parametrize("rate", [0, -1, 0.2, 1])
def test_rates_out_of_range_are_refused(rate):
    with pytest.raises(SettingsError, match="--false-alarm-rate"):
        calibrate([0.5], rate)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--false-alarm-rate", "0.5"], "--false-alarm-rate 0.5"),
        (["--out", "/dev/null/a.pack"], "can't be written"),
    ],
)
def test_what_can_be_known_before_is_told_before_any_inspection(tmp_path, monkeypatch, capsys, options, says):
    monkeypatch.setattr("dapo.packing.load_encoder", lambda *_: pytest.fail("loaded a model for nothing"))
    line = ["calibrate", str(tmp_path), "--product", "cup", "--out", str(tmp_path / "out.pack"), *options]
    assert invoke(line) == 2
    assert says in capsys.readouterr().err


def test_it_is_said_when_no_frame_can_be_not_decidable():
    few = describe(calibrate(np.arange(16) / 16, 0.01), "cup")
    assert "no frame will be NotDecidable" in few
    assert "takes at least 20 good frames" in few
    alike = describe(calibrate([0.5] * 100, 0.01), "cup")
    assert "needs scores that differ more" in alike
    enough = describe(calibrate(np.arange(20) / 20, 0.01), "cup")
    assert "between them NotDecidable" in enough
    assert "equal" not in enough


def test_nothing_to_calibrate_from_is_refused():
    with pytest.raises(SettingsError, match="nothing to calibrate from"):
        calibrate([], 0.01)


def test_the_command_sets_one_products_thresholds(tmp_path, monkeypatch, capsys):
    encoder = small_encoder()
    base, out, good = tmp_path / "a.pack", tmp_path / "b.pack", tmp_path / "good"
    write_pack(make_handwritten_pack(encoder, ["scratch", "hole"]), base)
    monkeypatch.setattr("dapo.packing.load_encoder", lambda *args, **options: encoder)
    good.mkdir()
    rng = np.random.default_rng(0)
    for index in range(12):
        cv2.imwrite(str(good / f"{index}.png"), rng.integers(0, 255, (40, 50, 3), dtype=np.uint8))
    (good / "broken.png").write_bytes(b"no picture")
    cv2.imwrite(str(good / "dark.png"), np.zeros((40, 50, 3), np.uint8))
    line = ["calibrate", str(good), "--product", "bottle", "--pack", str(base), "--out", str(out)]
    assert invoke([*line, "--types", "hole", "--false-alarm-rate", "0.1"]) == 0
    captured = capsys.readouterr()
    product = read_pack(out).product("bottle")
    assert product.calibrated
    assert product.types == ("hole",)
    assert 0 < product.threshold_ok <= product.threshold_notok < 1
    assert product.calibration["frames"] == 12
    assert read_pack(out).product("*") == read_pack(base).product("*")
    assert "left out: broken.png" in captured.err
    assert "left out: dark.png" in captured.err
    assert "1 of 12 good frames alarm" in captured.out
    assert "to show 10 % takes at least 29 good frames" in captured.out
