"""What every Infer must do. Run on the fake and in process by test_ports.py, on a real Triton by tests/integration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.ports import Infer
from pipeline.testing import surface


class InferSuite(ABC):
    """Subclasses open models whose pack has the types scratch and hole, product "none" without types, "one" with hole."""

    @abstractmethod
    def opened(self) -> Infer:
        """One that answers."""

    @pytest.fixture
    def infer(self) -> Iterator[Infer]:
        made = self.opened()
        yield made
        made.close()

    @pytest.mark.parametrize("count", [0, 1, 4, 7, 20])
    def test_each_image_is_answered_in_order(self, infer: Infer, count: int) -> None:
        found = infer.infer(_images(infer, 20)[:count], ["*"] * count)
        assert len(found) == count
        for one in found:
            assert 0 <= one.score <= 1
            assert one.map.dtype == np.float16
            assert one.map.ndim == 2
            assert one.map.min() >= 0
            assert one.map.max() <= 1
            assert one.type_map.dtype == np.uint16
            assert one.type_map.shape == one.map.shape
            assert one.type_scores.dtype == np.float32
            assert one.type_scores.shape == (2,)
            assert one.type_scores.sum() == pytest.approx(1, abs=1e-5)
        assert len({one.map.tobytes() for one in found}) == count

    def test_an_answer_does_not_depend_on_the_others(self, infer: Infer) -> None:
        images = _images(infer, 7)
        together = infer.infer(images, ["*"] * 7)
        order = [3, 0, 6, 5, 1, 2, 4]
        shuffled = infer.infer(images[order], ["*"] * 7)
        alone = [infer.infer(image[None], ["*"])[0] for image in images]
        for number in range(7):
            for other in (alone[number], shuffled[order.index(number)]):
                assert together[number].score == other.score
                assert np.array_equal(together[number].map, other.map)
                assert np.array_equal(together[number].type_scores, other.type_scores)

    def test_products_may_be_mixed_and_unknown(self, infer: Infer) -> None:
        found = infer.infer(_images(infer, 4), ["none", "one", "*", "never heard of"])
        assert [len(one.type_scores) for one in found] == [0, 1, 2, 2]

    def test_answers_are_the_callers_own(self, infer: Infer) -> None:
        [one] = infer.infer(_images(infer, 1), ["*"])
        one.map[:] = 0
        one.type_scores[:] = 0
        [again] = infer.infer(_images(infer, 1), ["*"])
        assert again.map.any()

    def test_it_says_which_configuration_answers(self, infer: Infer) -> None:
        assert len(infer.pack.configuration_hash) == 64
        assert infer.image_size > 0

    def test_what_does_not_fit_together_is_refused(self, infer: Infer) -> None:
        with pytest.raises(ValueError, match="2 images for 1 products"):
            infer.infer(_images(infer, 2), ["*"])


def _images(infer: Infer, count: int) -> np.ndarray:
    size = infer.image_size
    return np.stack(
        [surface(number, defect=number % 2 == 0, width=size, height=size) for number in range(count)]
    )
