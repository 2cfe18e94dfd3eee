"""Labels become cells without losing a defect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.sample import Region, State
from trainer.tuning.batches import shares
from trainer.tuning.cache import Content
from trainer.tuning.examples import UNNAMED, in_cells, make_examples, manifest_hash

from .plates import WORDS, plates


@given(st.integers(0, 31), st.integers(0, 31), st.integers(1, 12), st.integers(1, 12))
def test_no_defect_gets_lost_however_small(x: int, y: int, w: int, h: int) -> None:
    states = np.zeros((32, 32), np.int64)
    states[y : y + h, x : x + w] = 2
    found = in_cells(states, 8)
    assert 2 in found
    assert set(np.unique(found)) <= {0, 2}


def test_a_cell_is_what_covers_half_of_it() -> None:
    states = np.zeros((8, 8), np.int64)
    states[:, :3] = 1
    assert in_cells(states, 4).tolist() == [[1, 1, 0, 0]] * 4
    assert in_cells(states, 4, whole=True).tolist() == [[1, 0, 0, 0]] * 4


def contents(count: int) -> list[Content]:
    return [Content(f"{n:064d}", f"{n:064d}") for n in range(count)]


def test_weak_and_unnamed_labels_are_kept_as_what_they_are(tmp_path: Path) -> None:
    samples = [s for s in plates(tmp_path, good=1, each=1) if s.product == "plate"]
    scratch = next(s for s in samples if s.word == "scratch")
    weak = replace(scratch, key="weak", regions=(Region("scratch"),))
    unnamed = replace(scratch, key="unnamed", regions=(replace(scratch.regions[0], word=None),))
    words = {"plate": WORDS}
    good, drawn, nowhere, unknown = make_examples(
        [samples[0], scratch, weak, unnamed], contents(4), words, 16
    )
    assert good.states is not None
    assert not good.states.any()
    assert drawn.states is not None
    assert set(np.unique(drawn.states)) == {0, 2}
    assert nowhere.states is None
    assert unknown.states is not None
    assert set(np.unique(unknown.states)) == {0, UNNAMED}


def test_a_defect_too_small_to_be_found_again_is_no_good_frame(tmp_path: Path) -> None:
    class Tiny:
        """One pixel of four thousand a side."""

        def shape(self) -> tuple[int, int]:
            return 4000, 4000

        def at(self, size: int) -> np.ndarray:
            found = np.zeros((size, size), bool)
            found[3, 3] = size >= self.from_size
            return found

        def version(self) -> str:
            return "tiny"

        from_size = 200

    sample = next(s for s in plates(tmp_path, good=1, each=1) if s.word == "hole")
    found = []
    for from_size in (200, 10_000):
        mask = Tiny()
        mask.from_size = from_size
        small = replace(sample, regions=(Region("hole", mask),))
        found += make_examples([small], contents(1), {"plate": WORDS}, 16)
    assert found[0].states is not None
    assert found[0].states.any()
    assert found[1].states is None  # weak: somewhere in it


def test_unlabelled_frames_are_no_examples(tmp_path: Path) -> None:
    sample = replace(plates(tmp_path, good=1, each=1)[0], state=State.UNLABELLED)
    with pytest.raises(ValueError, match="not labelled"):
        make_examples([sample], contents(1), {}, 16)


def test_products_states_and_types_are_drawn_alike_whatever_their_numbers(tmp_path: Path) -> None:
    samples = [s for s in plates(tmp_path, good=8, each=3) if not (s.product == "ring" and s.word == "hole")]
    samples = [s for s in samples if s.word != "hole" or s.key.endswith("0.png")]
    examples = make_examples(samples, contents(len(samples)), {"plate": WORDS, "ring": WORDS}, 16)
    drawn = dict.fromkeys([("plate", "good"), ("plate", "hole"), ("plate", "scratch"), ("ring", "good")], 0.0)
    for example, share in zip(examples, shares(examples), strict=True):
        drawn[example.product, example.kind] = drawn.get((example.product, example.kind), 0.0) + share
    assert drawn == pytest.approx(
        {
            ("plate", "good"): 0.25,
            ("plate", "hole"): 0.125,
            ("plate", "scratch"): 0.125,
            ("ring", "good"): 0.25,
            ("ring", "scratch"): 0.25,
        }
    )


def test_the_manifest_is_of_content_and_labels_alone(tmp_path: Path) -> None:
    samples = plates(tmp_path, good=2, each=1)
    words = {"plate": WORDS, "ring": WORDS}
    examples = make_examples(samples, contents(len(samples)), words, 16)
    moved = make_examples(
        [replace(s, key=f"other/{s.key}") for s in samples], contents(len(samples)), words, 16
    )
    assert manifest_hash(examples) == manifest_hash(moved[::-1])
    # Packs say it of themselves: it may not change with the program.
    assert manifest_hash(examples) == "202995e31c4c64d43637e4630913a59d1440f268206a9038b4db77db9b89481a"
    assert manifest_hash(examples) != manifest_hash(examples[1:])
