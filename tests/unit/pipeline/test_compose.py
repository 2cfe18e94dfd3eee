"""A run's own defect words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dapo.errors import VocabularyError
from dapo.handwritten import make_handwritten_pack
from dapo.pack_changes import set_threshold
from dapo.testing import small_encoder
from pipeline.compose import choose_types
from pipeline.testing import small_pack


def test_known_words_keep_their_vectors_and_everything_else_stays() -> None:
    pack = small_pack("scratch", "hole", "dent")
    pack = pack.with_products(
        {"plate": dataclasses.replace(pack.product("*"), threshold_ok=0.1, threshold_notok=0.2)}
    )
    chosen = choose_types(pack, "plate", ["Dent", "scratch"])
    assert chosen.product("plate").types == ("dent", "scratch")
    assert chosen.product("plate").threshold_notok == 0.2
    assert chosen.product("*") == pack.product("*")
    assert np.array_equal(chosen.tensors["text.types"], pack.tensors["text.types"])
    assert chosen.configuration_hash != pack.configuration_hash


def test_new_words_are_encoded() -> None:
    encoder = small_encoder()
    pack = make_handwritten_pack(encoder, ["scratch"])
    chosen = choose_types(pack, "cup", ["scratch", "Faulty imprint"], encoder)
    assert chosen.product("cup").types == ("scratch", "faulty-imprint")
    assert chosen.product("*").types == ("scratch",)
    assert np.array_equal(chosen.tensors["text.types"][0], pack.tensors["text.types"][0])
    assert len(chosen.tensors["text.types"]) == 2


def test_a_new_word_under_paper_scoring_leaves_no_thresholds() -> None:
    encoder = small_encoder()
    pack = make_handwritten_pack(encoder, ["scratch"])
    pack = dataclasses.replace(pack, scoring=dataclasses.replace(pack.scoring, kind="paper"))
    pack = set_threshold(pack, "cup", 0.1, 0.2)
    assert choose_types(pack, "cup", ["scratch"], encoder).product("cup").threshold_notok == 0.2
    assert choose_types(pack, "cup", ["dent"], encoder).product("cup").threshold_notok is None


def test_words_that_can_not_be_used_are_told() -> None:
    pack = small_pack()
    with pytest.raises(VocabularyError, match="'wobble' is not in the pack"):
        choose_types(pack, "*", ["wobble"])
    with pytest.raises(VocabularyError, match="Hole!"):
        choose_types(pack, "*", ["hole", "Hole!"])
