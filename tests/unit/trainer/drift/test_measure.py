"""Drift is told where frames differ from what a pack knows, and not where chance alone moves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dapo.errors import PackError
from dapo.pack import USUAL, Pack, Tiles
from dapo.pack_changes import add_type, set_product, with_usual, without_usual
from dapo.pack_io import read_pack, write_pack
from pipeline.bundled import default_pack_path
from trainer.drift.measure import LEAST_DISTANCE, drift_of, evenly, knows

BASE = read_pack(default_pack_path())
WIDTH = BASE.encoder.joint_width


def frames(count: int, seed: int, *, moved: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Scores and features of one kind of frame; `moved`: of another kind, so far away."""
    rng = np.random.default_rng(seed)
    middle = np.random.default_rng(1).normal(size=WIDTH) + moved * np.random.default_rng(2).normal(size=WIDTH)
    features = middle + 0.3 * rng.normal(size=(count, WIDTH))
    return np.clip(rng.normal(0.3 + 0.2 * moved, 0.05, count), 0, 1), features.astype(np.float32)


PACK = with_usual(BASE, "sample", *frames(200, 0))


@pytest.mark.parametrize("seed", range(1, 6))
def test_frames_of_the_same_kind_are_as_ever(seed: int) -> None:
    assert not any(one.drifted for one in drift_of(PACK, "sample", *frames(150, seed)))


def test_chance_alone_is_called_drift_once_in_hundreds_of_looks() -> None:
    """Few frames in few directions: there the frames that a pack remembers would be nearest to each other."""
    found = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)

        def few(
            count: int, rng: np.random.Generator = rng
        ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
            features = np.zeros((count, WIDTH))
            features[:, :3] = rng.normal(size=(count, 3)) + 5
            return rng.random(count), features.astype(np.float32)

        pack = with_usual(BASE, "sample", *few(30))
        found += any(one.drifted for one in drift_of(pack, "sample", *few(40)))
    assert found <= 3


def test_a_product_that_the_pack_does_not_name_is_not_remembered() -> None:
    """It is inspected as "*", and would get a copy of that, memory and all."""
    with pytest.raises(PackError, match="'nobody' is not in the pack"):
        with_usual(BASE, "nobody", *frames(30, 0))


def test_another_kind_of_frame_is_drift_in_both_respects() -> None:
    found = drift_of(PACK, "sample", *frames(50, 1, moved=0.5))
    assert [one.of for one in found] == ["scores", "features"]
    assert all(one.drifted and one.frames == 50 for one in found)
    assert all(one.distance > 0.6 for one in found)


def test_another_picture_with_the_same_score_is_drift_of_features_alone() -> None:
    scores, _ = frames(100, 1)
    _, features = frames(100, 1, moved=0.5)
    assert [one.drifted for one in drift_of(PACK, "sample", scores, features)] == [False, True]


def test_few_frames_have_to_be_further_off() -> None:
    few, many = (drift_of(PACK, "sample", *frames(count, 1))[0].limit for count in (20, 2000))
    assert few > 0.4
    assert many == LEAST_DISTANCE


def test_what_a_pack_knows_survives_its_file(tmp_path: Path) -> None:
    write_pack(PACK, tmp_path / "one.pack")
    read = read_pack(tmp_path / "one.pack")
    assert read.configuration_hash == PACK.configuration_hash != BASE.configuration_hash
    assert knows(read, "sample")
    assert not knows(read, "*")
    assert read.features_hash == BASE.features_hash


def test_what_moves_scores_makes_a_pack_forget() -> None:
    def kept(pack: Pack) -> bool:
        return knows(pack, "sample")

    assert kept(set_product(PACK, "sample", {"mm_per_px": 0.1}))
    assert not kept(set_product(PACK, "sample", {"tiles": Tiles(2, 2)}))
    assert kept(set_product(PACK, "*", {"tiles": Tiles(2, 2)}))
    word = PACK.tensors["text.types"][0]
    assert kept(add_type(PACK, "frayed rim", word))
    assert not kept(without_usual(PACK))
    assert without_usual(BASE) is BASE


@pytest.mark.parametrize("rows", [np.zeros((0, 1 + WIDTH)), np.zeros((3, WIDTH)), np.zeros(1 + WIDTH)])
def test_rows_of_another_shape_are_refused(rows: NDArray[np.float64]) -> None:
    with pytest.raises(PackError, match=r"usual.sample: expected rows of"):
        Pack(**{**vars_of(BASE), "tensors": {**BASE.tensors, f"{USUAL}sample": rows.astype(np.float32)}})
    with pytest.raises(PackError, match="no such product"):
        Pack(**{**vars_of(BASE), "tensors": {**BASE.tensors, f"{USUAL}nothing": rows.astype(np.float32)}})


def vars_of(pack: Pack) -> dict[str, object]:
    return {name: getattr(pack, name) for name in pack.__dataclass_fields__}


@given(st.integers(0, 1000), st.integers(1, 300))
def test_frames_are_drawn_evenly(count: int, most: int) -> None:
    places = list(evenly(count, most))
    assert len(places) == len(set(places)) == min(count, most)
    assert all(0 <= place < count for place in places)
    steps = np.diff(places)
    assert not len(steps) or steps.max() - steps.min() <= 1


def test_frames_that_the_pack_remembers_may_be_among_those_looked_at() -> None:
    """The day after a retuning: a frame is no news because it is nearest to itself."""
    remembered, fresh = frames(200, 0), frames(100, 3)
    scores, features = (np.concatenate(both) for both in zip(remembered, fresh, strict=True))
    assert not any(one.drifted for one in drift_of(PACK, "sample", scores, features))
