"""A product that production cuts is tuned on what production sees, and its scores are production's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from dapo.pack import Pack, Product, Tiles
from dapo.pack_changes import set_product
from dapo.pack_io import read_pack
from dapo.packing import load_pack_encoder
from dapo.predictor import Predictor
from dapo.tiles import Window
from pipeline.bundled import default_pack_path
from pipeline.settings import load
from schemas.rle import encode_mask
from trainer.data.dataset import ProductData
from trainer.data.masks import RunLengths
from trainer.data.sample import GOOD, Region, Sample, State
from trainer.evaluation.protocol import Outcome, Protocol, pack_for, predict
from trainer.gate.compare import Pair
from trainer.tuning.cache import Content, Cut, FeatureCache
from trainer.tuning.examples import Example, make_examples, manifest_hash
from trainer.tuning.look import by_frame, looked_cells, shown
from trainer.tuning.loop import Tuning
from trainer.tuning.packs import with_products
from trainer.tuning.reference import remember
from trainer.tuning.run import Plan, Retuned, retune
from trainer.tuning.scope import Scope
from trainer.tuning.sides import Sides, balanced_sides

from .plates import PRODUCTS, SIDE, WORDS, base_pack, plates
from .test_cache import Counting

TILED = Cut(Tiles(2, 2, overlap=0.25))
LEFT = ((0.0, 0.0), (0.6, 0.0), (0.6, 1.0), (0.0, 1.0))
WORDED = {"plate": WORDS, "ring": WORDS}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return plates(tmp_path_factory.mktemp("plates"), good=2, each=2)


def contents(cuts: dict[str, Cut], samples: list[Sample], folder: Path) -> tuple[list[Content], Counting]:
    _, encoder = base_pack()
    frozen = Counting(encoder)
    return FeatureCache(folder, frozen, encoder.image_size).fill(samples, cuts=cuts), frozen


def marked(sample: Sample) -> NDArray[np.bool_]:
    mask = sample.mask_at(SIDE)
    assert mask is not None
    return mask


def test_a_window_shows_what_of_the_defect_lies_in_it(samples: list[Sample], tmp_path: Path) -> None:
    found, _ = contents({"plate": TILED}, samples, tmp_path)
    examples = make_examples(samples, found, WORDED, 16)
    counts = {name: sum(e.product == name for e in examples) for name in PRODUCTS}
    assert counts == {"plate": 4 * 6, "ring": 6}
    assert {e.window is None for e in examples if e.product == "ring"} == {True}
    seen = set()
    for example in examples:
        if example.window is None:
            continue
        inside = example.window.cut(marked(example.sample).astype(np.uint8)).any()
        if not example.teaches:
            assert inside, "the edge of a mask"
            continue
        assert example.states is not None
        assert example.defective == bool(example.states.any()) == bool(inside)
        assert example.word == (example.sample.word if inside else GOOD)
        seen.add((example.sample.defective, example.defective))
    assert seen == {(False, False), (True, False), (True, True)}


def test_where_a_defect_lies_in_its_window(samples: list[Sample], tmp_path: Path) -> None:
    hole = next(s for s in samples if s.product == "plate" and s.word == "hole")
    [content] = contents({"plate": TILED}, [hole], tmp_path)[0]
    for example in make_examples([hole], [content], WORDED, 16):
        assert example.window is not None
        if example.states is None:
            continue  # the edge of a mask
        rows, columns = np.nonzero(example.window.cut(marked(hole).astype(np.uint8)))
        if not len(rows):
            continue
        middle = np.array([rows.mean() / example.window.height, columns.mean() / example.window.width])
        found = (np.argwhere(example.states == 1 + WORDS.index("hole")).mean(0) + 0.5) / 16
        assert np.abs(found - middle).max() < 0.1


def test_a_weak_label_of_several_windows_teaches_nothing_and_of_one_it_does(
    samples: list[Sample], tmp_path: Path
) -> None:
    hole = next(s for s in samples if s.product == "plate" and s.word == "hole")
    weak = replace(hole, regions=(Region("hole"),))
    for cut, teaches in ((TILED, False), (Cut(None, (LEFT,)), True)):
        found, _ = contents({"plate": cut}, [weak], tmp_path)
        examples = make_examples([weak], found, WORDED, 16)
        assert {(e.teaches, e.defective) for e in examples} == {(teaches, True)}


def drawn_at(sample: Sample, *places: tuple[str, slice, slice], side: int = 400) -> Sample:
    """A frame whose defects are these rectangles."""
    regions = []
    for word, rows, columns in places:
        mask = np.zeros((side, side), bool)
        mask[rows, columns] = True
        regions.append(Region(word, RunLengths(side, side, encode_mask(mask)["counts"])))
    return replace(sample, regions=tuple(regions), state=State.DEFECTIVE)


HALVES = Content("a" * 64, "b" * 64, (Window(0, 0, 200, 400), Window(200, 0, 200, 400)), 400, 400)


def test_a_speck_that_no_label_is_fine_enough_for_makes_no_good_window(samples: list[Sample]) -> None:
    parts = (Window(0, 0, 2000, 4000), Window(2000, 0, 2000, 4000))
    content = Content("a" * 64, "b" * 64, parts, 4000, 4000)
    small = drawn_at(samples[-1], ("hole", slice(7, 8), slice(7, 8)), side=4000)
    there, elsewhere = make_examples([small], [content], WORDED, 16)
    assert (there.states, there.teaches, there.word) == (None, False, "hole")
    assert (elsewhere.word, elsewhere.teaches) == (GOOD, True)


def test_the_edge_of_a_mask_says_nothing_of_its_window(samples: list[Sample]) -> None:
    """Tiles overlap, and masks are drawn generously."""
    edge = drawn_at(samples[-1], ("hole", slice(100, 102), slice(150, 202)))
    inside, outside = make_examples([edge], [HALVES], WORDED, 16)
    assert (inside.teaches, inside.word) == (True, "hole")
    assert not outside.teaches
    two = drawn_at(
        samples[-1], ("hole", slice(100, 102), slice(150, 202)), ("hole", slice(0, 40), slice(300, 340))
    )
    assert [e.teaches for e in make_examples([two], [HALVES], WORDED, 16)] == [True, True]


def test_masks_that_are_shrunk_away_leave_a_defective_window(samples: list[Sample]) -> None:
    thin = drawn_at(samples[-1], ("scratch", slice(3, 5), slice(20, 180)))
    there, elsewhere = make_examples([thin], [HALVES], WORDED, 16, whole=True)
    assert there.states is not None
    assert not there.states.any()
    assert (there.word, there.defective, elsewhere.word) == ("scratch", True, GOOD)


def test_two_types_that_share_a_cell_are_several(samples: list[Sample]) -> None:
    both = drawn_at(
        samples[-1], ("hole", slice(10, 14), slice(10, 14)), ("scratch", slice(14, 16), slice(10, 14))
    )
    there, _ = make_examples([both], [HALVES], WORDED, 16)
    assert (there.word, there.kind) == (None, "several")


def test_a_frame_is_computed_once_for_each_way_that_it_is_cut(samples: list[Sample], tmp_path: Path) -> None:
    plate = [s for s in samples if s.product == "plate"]
    for cut, more in ((TILED, 4), (TILED, 0), (Cut(), 1), (Cut(Tiles(1, 2)), 2), (TILED, 0)):
        _, frozen = contents({"plate": cut}, plate, tmp_path)
        assert frozen.frames == more * len(plate), cut


def test_an_entry_of_a_window_that_was_cut_short_is_made_again(samples: list[Sample], tmp_path: Path) -> None:
    plate = [s for s in samples if s.product == "plate"][:1]
    [content] = contents({"plate": TILED}, plate, tmp_path)[0]
    name, _ = content.entries[2]
    [entry] = tmp_path.rglob(f"{name}.safetensors")
    entry.write_bytes(entry.read_bytes()[:20])
    again, frozen = contents({"plate": TILED}, plate, tmp_path)
    assert again == [content]
    assert frozen.frames == 4


def test_cuts_are_part_of_what_a_pack_is_made_of(samples: list[Sample], tmp_path: Path) -> None:
    def hash_of(cut: Cut) -> str:
        return manifest_hash(
            make_examples(samples, contents({"plate": cut}, samples, tmp_path)[0], WORDED, 16)
        )

    assert len({hash_of(Cut()), hash_of(TILED), hash_of(Cut(Tiles(2, 2)))}) == 3


def test_a_product_that_gets_a_name_is_cut_as_before() -> None:
    pack = set_product(read_pack(default_pack_path()), "*", {"tiles": Tiles(2, 3), "ignore": (LEFT,)})
    named = with_products(pack, {"cup": ["crack"]}).product("cup")
    assert (named.tiles, named.ignore, named.types) == (Tiles(2, 3), (LEFT,), ("crack",))
    assert not named.calibrated


IGNORED = ((0.0, 0.0), (0.3, 0.0), (0.3, 0.3))


@pytest.fixture(scope="module")
def cut_pack() -> Pack:
    pack = read_pack(default_pack_path())
    pack = set_product(pack, "plate", {"tiles": Tiles(2, 2, overlap=0.25), "types": ()})
    return set_product(pack, "ring", {"roi": (LEFT,), "ignore": (IGNORED,), "types": ()})


def plan(folder: Path, *scopes: Scope) -> Plan:
    return Plan(
        scopes or (Scope.STEM, Scope.REFERENCE, Scope.THRESHOLDS),
        Tuning(Scope.STEM, epochs=3, batch=16),
        folder,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, cut_pack: Pack) -> Retuned:
    """Holes of plates are labelled without a mask."""
    root = tmp_path_factory.mktemp("cut")
    frames = [
        replace(s, regions=(Region("hole"),)) if s.product == "plate" and s.word == "hole" else s
        for s in plates(root / "data", good=20, each=8)
    ]
    return retune(cut_pack, load_pack_encoder(cut_pack), balanced_sides(frames, 1), plan(root / "cache"))


def test_scores_in_a_retuning_are_those_of_production(done: Retuned) -> None:
    assert done.after is not None
    settings = load({"model.threads": 2}, environment={}).settings
    pair = Pair(done.pack, done.pack, settings.model)
    verdicts = {one.sample.key: one.champion for one in pair.frames(done.sides.test)}
    assert len(done.after.outcomes) == len(done.sides.test) == len(verdicts)
    for outcome in done.after.outcomes:
        said = verdicts[outcome.sample.key].anomaly_score
        assert outcome.prediction.score == pytest.approx(said, abs=5e-3), outcome.sample.key


def test_an_evaluation_cuts_as_production_does_unless_it_is_the_papers(done: Retuned) -> None:
    assert done.after is not None
    encoder = load_pack_encoder(done.pack)
    products = [ProductData(n, tuple(s for s in done.sides.test if s.product == n)) for n in PRODUCTS]
    tuned = {outcome.sample.key: outcome.prediction for outcome in done.after.outcomes}

    def outcomes(protocol: Protocol) -> list[Outcome]:
        fitted = pack_for(done.pack, encoder, products, protocol)
        predictor = Predictor(fitted, encoder=encoder, runtime="torch", threads=2)
        return [outcome for product in products for outcome in predict(predictor, product)]

    for outcome in outcomes("default"):
        known = tuned[outcome.sample.key]
        assert outcome.prediction.score == pytest.approx(known.score, abs=5e-3), outcome.sample.key
        assert outcome.prediction.map.shape == known.map.shape
    grid = encoder.grid
    assert {outcome.prediction.map.shape for outcome in outcomes("paper")} == {(grid, grid)}


def test_an_evaluation_cuts_a_product_that_has_no_name_and_weighs_what_is_ignored(
    samples: list[Sample],
) -> None:
    rings = tuple(sample for sample in samples if sample.product == "ring")
    pack = set_product(read_pack(default_pack_path()), "*", {"tiles": Tiles(2, 2)})
    fitted = pack_for(pack, load_pack_encoder(pack), [ProductData("ring", rings)], "default")
    assert fitted.product("ring").tiles == Tiles(2, 2)
    ignoring = set_product(read_pack(default_pack_path()), "ring", {"ignore": (LEFT,)})
    encoder = load_pack_encoder(ignoring)
    fitted = pack_for(ignoring, encoder, [ProductData("ring", rings)], "default")
    for outcome in predict(Predictor(fitted, encoder=encoder, runtime="torch"), ProductData("ring", rings)):
        assert not outcome.prediction.map[:, :8].any()
        assert outcome.prediction.map[:, 12:].all()
        assert outcome.states is not None, "it is seen as a whole"


def test_the_pack_keeps_how_it_cuts_and_judges_by_new_thresholds(done: Retuned, cut_pack: Pack) -> None:
    for name in PRODUCTS:
        before, after = cut_pack.product(name), done.pack.product(name)
        assert (after.tiles, after.roi, after.ignore) == (before.tiles, before.roi, before.ignore)
        assert after.calibrated
        good = sum(s.product == name and not s.defective for s in done.sides.train)
        assert after.reference is not None
        assert after.reference.frames == good, "frames, not windows"
    assert done.pack.provenance["history"][-1]["retune"]["frames"]["train"] == len(done.sides.train)


def test_a_type_that_nobody_drew_in_tiles_is_named_and_not_taught(done: Retuned) -> None:
    assert set(done.pack.product("plate").types) == set(WORDS)
    weak = sum(s.product == "plate" and s.word == "hole" for s in done.sides.train)
    assert any(line.startswith(f"{weak} defective frames are cut into tiles") for line in done.notes)
    assert set(done.pack.provenance["training_words"]) >= {"hole", "scratch"}, "rings teach it"


def test_a_defect_where_nobody_looks_is_left_out(
    samples: list[Sample], cut_pack: Pack, tmp_path: Path
) -> None:
    rings = [s for s in samples if s.product == "ring" and not s.defective]
    hidden = drawn_at(rings[0], ("hole", slice(2, 8), slice(20, 26)), side=SIDE)
    outside = drawn_at(rings[1], ("hole", slice(50, 60), slice(80, 90)), side=SIDE)
    seen = drawn_at(rings[1], ("hole", slice(50, 60), slice(20, 30)), side=SIDE)
    ring = cut_pack.product("ring")
    assert [shown(sample, ring) for sample in (hidden, outside, seen, rings[0])] == [False, False, True, True]
    frames = plates(tmp_path / "data", good=8, each=1)
    rest = tuple(s for s in frames if not s.defective)
    sides = Sides((*rest, replace(hidden, key="hidden")), (), ())
    found = retune(cut_pack, load_pack_encoder(cut_pack), sides, plan(tmp_path, Scope.REFERENCE))
    assert [s.key for s in found.sides.train] == [s.key for s in rest]
    assert any(line.startswith("1 frames show their defect only where") for line in found.notes)


def test_a_small_defect_that_production_sees_is_kept(samples: list[Sample]) -> None:
    """However large the frame is."""
    small = drawn_at(samples[-1], ("hole", slice(1501, 1510), slice(2001, 2010)), side=4000)
    mask = small.mask_at(256)
    assert mask is not None
    assert not mask.any(), "it is lost where masks are squashed"
    assert shown(small, Product(ignore=(IGNORED,)))
    assert not shown(small, Product(roi=(((0.9, 0.9), (1.0, 0.9), (1.0, 1.0)),)))


def test_windows_of_one_good_frame_are_no_four_good_frames(cut_pack: Pack, tmp_path: Path) -> None:
    frames = [s for s in plates(tmp_path / "data", good=1, each=3) if s.product == "plate"]
    found = retune(
        cut_pack, load_pack_encoder(cut_pack), Sides(tuple(frames), (), ()), plan(tmp_path, Scope.REFERENCE)
    )
    assert found.pack.product("plate").reference is None
    assert any("1 good frames to remember" in line for line in found.notes)


def test_patches_that_production_looks_at() -> None:
    example = Example(None, HALVES, None, None, "a", HALVES.windows[0])  # type: ignore[arg-type]
    product = Product(roi=(LEFT,), ignore=(((0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.5)),))
    assert looked_cells(example, product, 4).reshape(4, 4).tolist() == [[False] * 4] * 2 + [[True] * 4] * 2
    right = replace(example, window=HALVES.windows[1])
    assert looked_cells(right, product, 4).reshape(4, 4)[3].tolist() == [True, False, False, False]
    assert looked_cells(right, Product(), 4).all()
    screw = ((0.97, 0.97), (0.98, 0.97), (0.98, 0.98), (0.97, 0.98))
    whole = replace(example, window=None)
    found = looked_cells(whole, Product(roi=(screw,)), 4).reshape(4, 4)
    assert np.argwhere(found).tolist() == [[3, 3]], "smaller than a patch, and production looks at it"


def test_what_varies_where_nobody_looks_is_not_remembered() -> None:
    draw = torch.Generator().manual_seed(0)
    taps = F.normalize(torch.randn(6, 1, 16, 8, generator=draw), dim=-1)
    looked = np.zeros((6, 16), bool)
    looked[:, :4] = True
    rows = remember(taps, range(6), (0,), looked=looked, size=1000).rows
    assert len(rows) == 6 * 4
    np.testing.assert_allclose(np.sort(rows, 0), np.sort(taps[:, 0, :4].flatten(0, 1).numpy(), 0), rtol=1e-6)


def test_examples_of_one_frame_are_taken_together(samples: list[Sample]) -> None:
    def example(sample: Sample) -> Example:
        return Example(sample, Content("a", "b"), None, None, "a")

    one, other = samples[:2]
    assert by_frame([example(s) for s in (one, one, other, one)]) == [[0, 1], [2], [3]]
