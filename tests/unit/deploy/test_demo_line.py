"""The demo's simulated cameras and the pack of its products."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest

from dapo.pack_io import read_pack
from deploy.demo.camera import SimulatedCamera
from deploy.demo.products import PRODUCTS, draw
from pipeline.decode import Limits, decode
from pipeline.stream.feed import Feeder, Tags

PACK = Path(__file__).parents[3] / "deploy" / "demo" / "demo.pack"
SHEET = PRODUCTS["steel-sheet"]


def test_the_pack_knows_the_products_calibrated_and_with_their_words():
    pack = read_pack(PACK)
    for product in PRODUCTS.values():
        known = pack.product(product.name)
        assert known.calibrated
        assert set(known.types) == set(product.types)


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_surfaces_are_pictures_and_the_same_seed_draws_the_same(product):
    for defective in (False, True):
        first, again = (draw(product, np.random.default_rng(3), defective=defective) for _ in range(2))
        assert first.shape == (224, 224, 3)
        assert first.dtype == np.uint8
        assert (first == again).all()


def test_a_camera_gives_pictures_of_its_product_with_the_share_of_defects_that_was_asked_for():
    frames = list(itertools.islice(iter(SimulatedCamera("cam-1", SHEET, 0.0, seed=1)), 3))
    assert len({frame.frame_id for frame in frames}) == 3
    assert {frame.source for frame in frames} == {"simulated:cam-1"}
    assert decode(frames[0].data, Limits()).pixels.shape == (224, 224, 3)


def test_a_camera_that_was_started_again_gives_other_frames_and_goes_on_counting():
    class Outlet:
        position, messages = 0, []

        def kept(self):
            return self.position, ""

        def write(self, messages, position, mark=""):
            self.position = position
            self.messages += [dict(message.headers) for message in messages]

    outlet = Outlet()
    for _ in range(2):
        stop, fed = threading.Event(), itertools.count(1)
        feeder = Feeder(outlet, "frames", Tags("cam-1", SHEET.name, "demo", simulated=True), rate=1000.0)
        feeder.run(
            SimulatedCamera("cam-1", SHEET, 0.5), stop, live=True,
            on_frame=lambda frame, stop=stop, fed=fed: stop.set() if next(fed) == 5 else None,
        )  # fmt: skip
    assert [int(one["sequence"]) for one in outlet.messages] == list(range(10))
    assert len({one["ce_id"] for one in outlet.messages}) == 10
    assert {one["is_simulated"] for one in outlet.messages} == {b"true"}
