"""A model that answers with another pack from some call on: every frame is of one pack, and the order of packs holds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from dapo.inspection import Prediction
from dapo.pack import Pack, Product, Tiles
from pipeline.inspect import Inspector, Preparer
from pipeline.ports import Frame, Result
from pipeline.testing import FakeInfer, encoded, frame, small_pack, surface

WORDS = ("scratch", "hole")
WHOLE = Product(types=WORDS, threshold_ok=0.2, threshold_notok=0.6)
CUT = Product(types=WORDS, threshold_ok=0.2, threshold_notok=0.6, tiles=Tiles(1, 3))
LOOSE = Product(types=WORDS, threshold_ok=1.0, threshold_notok=1.0, tiles=Tiles(1, 3))
FINE = Product(types=WORDS, threshold_ok=0.2, threshold_notok=0.6, tiles=Tiles(2, 2))
LEFT = Product(types=WORDS, roi=(((0.0, 0.0), (0.4, 0.0), (0.4, 1.0), (0.0, 1.0)),))


def pack(product: Product, **others: Product) -> Pack:
    return small_pack(*WORDS, products={"*": product, **others})


class Switching(FakeInfer):
    """From the call of a number on another pack answers, as on a model server that was pointed to it."""

    def __init__(self, first: Pack, switches: dict[int, Pack]) -> None:
        super().__init__(first)
        self._switches = switches

    def infer(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]:
        self.pack = self._switches.get(len(self.calls), self.pack)
        return super().infer(images, products)


def inspect(infer: FakeInfer, frames: Sequence[Frame], batch: int = 4) -> list[Result]:
    preparer, inspector = Preparer(infer), Inspector(infer, batch=batch)
    results = [result for one in frames for result in inspector.add(preparer.prepare(one))]
    return [*results, *inspector.flush()]


_ALONE: dict[str, list[Result]] = {}


def under(pack: Pack) -> list[Result]:
    """Twenty frames under one pack alone; it does not matter in which batches."""
    digest = pack.configuration_hash
    if digest not in _ALONE:
        _ALONE[digest] = inspect(FakeInfer(pack), some_frames(20))
    return _ALONE[digest]


@cache
def some_frames(count: int) -> list[Frame]:
    """Good and bad surfaces, every fifth no image, every seventh black."""
    data = [
        b"no image"
        if number % 5 == 4
        else encoded(
            np.zeros((64, 96, 3), np.uint8) if number % 7 == 6 else surface(number, defect=number % 3 == 0)
        )
        for number in range(count)
    ]
    return [frame(f"{number}", one, camera_id=f"c{number}") for number, one in enumerate(data)]


def said(result: Result) -> tuple[object, ...]:
    """All of a result that a pack decides."""
    verdict = result.verdict
    if verdict is None:
        return (result.error,)
    regions = [(one.type, one.bbox, one.score) for one in verdict.defects]
    return (verdict.evaluation, verdict.threshold_ok, repr(verdict.anomaly_score), regions)


@pytest.mark.parametrize("batch", [1, 4, 64])
@pytest.mark.parametrize("at", [0, 1, 2, 4, 7])
@pytest.mark.parametrize(
    "packs",
    [(pack(CUT), pack(LOOSE)), (pack(WHOLE), pack(CUT)), (pack(CUT), pack(WHOLE)), (pack(CUT), pack(FINE))],
    ids=["thresholds", "into tiles", "out of tiles", "other tiles"],
)
def test_each_frame_is_as_under_one_pack_alone(packs: tuple[Pack, Pack], at: int, batch: int) -> None:
    frames = some_frames(20)
    results = inspect(Switching(packs[0], {at: packs[1]}), frames, batch)
    assert [result.frame.frame_id for result in results] == [one.frame_id for one in frames]
    alone = {one.configuration_hash: under(one) for one in packs}
    for number, result in enumerate(results):
        assert said(result) == said(alone[result.configuration.hash][number])
    order = [result.configuration.hash for result in results]
    assert order == sorted(order, key=[one.configuration_hash for one in packs].index)


def test_a_frame_that_is_answered_in_part_is_asked_again_from_its_first_input() -> None:
    infer = Switching(pack(CUT), {1: pack(LOOSE)})
    frames = [frame(f"{number}", encoded(surface(number, defect=True))) for number in range(4)]
    results = inspect(infer, frames)
    # Three inputs each: the first call has one of the second frame, which the second call finds under another pack.
    assert [result.configuration.hash for result in results] == [
        pack(CUT).configuration_hash,
        *[pack(LOOSE).configuration_hash] * 3,
    ]
    assert sum(infer.calls) == 12 + 3


def test_packs_that_come_one_after_the_other_keep_their_order() -> None:
    packs = [pack(WHOLE), pack(CUT), pack(FINE), pack(LOOSE)]
    infer = Switching(packs[0], {1: packs[1], 2: packs[2], 4: packs[3]})
    results = inspect(infer, some_frames(24), batch=8)
    hashes = [one.configuration_hash for one in packs]
    order = [hashes.index(result.configuration.hash) for result in results]
    assert order == sorted(order)
    assert len(results) == 24
    assert set(order) >= {2, 3}


def test_only_products_that_are_cut_otherwise_are_cut_again() -> None:
    before, after = pack(WHOLE, part=WHOLE), pack(WHOLE, part=LEFT)
    infer = Switching(before, {0: after})
    data = encoded(surface(1, defect=True))  # the blot lies right of the middle
    frames = [frame("a", data, product_id="part"), frame("b", data), frame("c", data, product_id="other")]
    part, other, unknown = inspect(infer, frames)
    assert part.verdict is not None
    assert part.verdict.defects == ()
    for one in (other, unknown):
        assert one.verdict is not None
        assert len(one.verdict.defects) == 1
    assert sum(infer.calls) == 3 + 1


def test_a_frame_that_was_prepared_before_the_pack_changed_is_cut_for_the_new_one() -> None:
    infer = Switching(pack(WHOLE), {1: pack(CUT)})
    preparer, inspector = Preparer(infer), Inspector(infer, batch=1)
    early = [preparer.prepare(frame(f"{number}", encoded(surface(number)))) for number in range(4)]
    results = [result for one in early for result in inspector.add(one)]
    assert len(results) == 4
    assert infer.calls == [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]  # 1 whole, 1 in vain, then 3 tiles of each
    assert results[0].configuration.hash == pack(WHOLE).configuration_hash


def test_rows_say_what_they_were_made_with() -> None:
    infer = FakeInfer(pack(WHOLE))
    [named] = Inspector(infer, live=True, pack_name="line.pack").add(
        Preparer(infer).prepare(some_frames(1)[0])
    )
    [unnamed] = Inspector(infer, live=True).add(Preparer(infer).prepare(some_frames(1)[0]))
    assert named.configuration.prompts == "line.pack"
    assert unnamed.configuration.prompts == pack(WHOLE).configuration_hash[:12]
    assert unnamed.configuration.model == "fake@000000000000"
