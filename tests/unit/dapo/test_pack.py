from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dapo.errors import PackError, VocabularyError
from dapo.inspection import Evaluation, Prediction
from dapo.judge import judge
from dapo.pack import (
    EncoderRef,
    Pack,
    Product,
    Scoring,
    Tiles,
    TypeWord,
    as_json,
)
from dapo.pack_changes import add_type, set_product, set_threshold
from dapo.pack_diff import diff_packs
from dapo.pack_io import check_writable, pack_bytes, read_pack, unpack, write_pack
from dapo.vocabulary import slugify

WIDTH = 8


def unit_rows(count, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make(words=("scratch", "hole"), **changes):
    rows = unit_rows(len(words) + 2)
    products = {"*": Product(types=tuple(slugify(w) for w in words))}
    values = {
        "kind": "handwritten",
        "encoder": EncoderRef("dapo-tiny", "bundled", "ab" * 32, 256, 16, WIDTH),
        "scoring": Scoring(),
        "temperature": 0.07,
        "alpha": 0.01,
        "readout": "eot",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "types": tuple(TypeWord(slugify(w), w) for w in words),
        "generic_words": ("defect",),
        "products": products,
        "provenance": {"seed": 1},
        "tensors": {"text.normal": rows[0], "text.generic": rows[1], "text.types": rows[2:]},
    }
    return Pack(**{**values, **changes})


fraction = st.floats(0, 1, width=32)
polygon = st.lists(st.tuples(fraction, fraction), min_size=3, max_size=5).map(tuple)
product = st.builds(
    Product,
    types=st.sampled_from([(), ("scratch",), ("hole", "scratch")]),
    mask_threshold=fraction,
    min_area_px=st.integers(0, 1000),
    roi=st.lists(polygon, max_size=2).map(tuple),
    ignore=st.lists(polygon, max_size=2).map(tuple),
    tiles=st.none() | st.builds(Tiles, st.integers(1, 8), st.integers(1, 8), st.floats(0, 0.5)),
    mm_per_px=st.none() | st.floats(0.001, 100),
)


@given(st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda n: n != "*"), product, max_size=3))
def test_packs_survive_the_round_trip(products):
    pack = make(products={"*": Product(), **products})
    found = unpack(pack_bytes(pack))
    assert diff_packs(pack, found) == []
    assert found.configuration_hash == pack.configuration_hash
    assert pack_bytes(found) == pack_bytes(pack)


@settings(max_examples=60)
@given(st.data())
def test_any_flipped_byte_is_noticed(data):
    whole = bytearray(pack_bytes(make()))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    try:
        found = unpack(bytes(whole))
    except (PackError, VocabularyError):
        return
    # A flip may leave the meaning alone (a space in the padded header): then everything is as it was.
    assert found.configuration_hash == make().configuration_hash


def test_every_cut_file_is_refused():
    whole = pack_bytes(make())
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        with pytest.raises(PackError):
            unpack(whole[:length])


def test_a_pack_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.pack"
    digest = write_pack(make(), path)
    assert read_pack(path).configuration_hash == digest

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PackError, match=r"No space left.*unchanged"):
        write_pack(make(("bent",)), path)
    assert read_pack(path).configuration_hash == digest
    assert [p.name for p in tmp_path.iterdir()] == ["a.pack"]


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(PackError, match="dapo pack new"):
        read_pack(tmp_path / "none.pack")


def test_another_safetensors_file_is_told_apart():
    from safetensors.numpy import save

    with pytest.raises(PackError, match="not a prompt pack"):
        unpack(save({"x": np.zeros(3, np.float32)}))


@pytest.mark.parametrize("name", ["missing/a.pack", "n" * 300, "folder", "."])
def test_a_place_that_can_not_be_written_is_a_message(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "missing").write_text("a file where a folder should be")
    before = sorted(tmp_path.rglob("*"))
    for attempt in (lambda path: write_pack(make(), path), check_writable):
        with pytest.raises(PackError, match=r"can't be written: .*--out"):
            attempt(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_asking_whether_a_place_can_be_written_leaves_nothing(tmp_path):
    check_writable(tmp_path / "new" / "a.pack")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("path", ["/dev/zero", "/dev", "n" * 300])
def test_what_is_no_file_is_not_read(path):
    with pytest.raises(PackError, match=r"not a file|can't be read"):
        read_pack(Path(path))


def test_a_pack_from_before_activations_were_recorded_keeps_its_hash():
    old = make()
    assert "activation" not in as_json(old)["encoder"]
    assert unpack(pack_bytes(old)).encoder.activation is None
    new = make(encoder=replace(old.encoder, activation="gelu"))
    assert unpack(pack_bytes(new)).encoder.activation == "gelu"
    assert new.configuration_hash != old.configuration_hash


def test_a_file_far_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "a.pack"
    write_pack(make(), path)
    monkeypatch.setattr("dapo.pack_io.MAX_BYTES", 100)
    with pytest.raises(PackError, match="more than the 100"):
        read_pack(path)


def test_unknown_keys_name_the_nearest():
    whole = pack_bytes(make())
    with pytest.raises(PackError, match=r"unknown key 'temperatura'. Did you mean 'temperature'"):
        unpack(whole.replace(b"temperature", b"temperatura"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"products": {}}, r"'\*' is missing"),
        ({"temperature": 0.0}, "temperature"),
        ({"types": (TypeWord("scratch", "hole"), TypeWord("hole", "scratch"))}, "expected 'hole'"),
        ({"products": {"*": Product(types=("scrach",))}}, "Did you mean 'scratch'"),
        ({"products": {"*": Product(types=("hole", "hole"))}}, "twice"),
        ({"products": {"*": Product(threshold_ok=0.2)}}, "both thresholds"),
        ({"products": {"*": Product(threshold_ok=0.6, threshold_notok=0.2)}}, "ok <= notok"),
        ({"products": {"*": Product(mask_threshold=1.5)}}, "mask_threshold"),
        ({"products": {"*": Product(max_regions=0)}}, "max_regions"),
        ({"products": {"*": Product(mm_per_px=0.0)}}, "mm_per_px"),
        ({"products": {"*": Product(tiles=Tiles(0, 1))}}, "tiles"),
        ({"products": {"*": Product(roi=(((0, 0), (1, 1)),))}}, "3 or more corners"),
        ({"products": {"*": Product(ignore=(((0, 0), (1, 0), (2, 1)),))}}, "fractions"),
    ],
)
def test_contradictions_are_refused(changes, says):
    with pytest.raises(PackError, match=says):
        make(**changes)


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("text.types", unit_rows(3), "expected shape"),
        ("text.normal", unit_rows(1)[0] * 2, "not L2-normalised"),
        ("text.normal", unit_rows(1)[0].astype(np.float64), "float32"),
        ("extra", np.array([np.nan], np.float32), "not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_named(name, array, says):
    with pytest.raises(PackError, match=says) as caught:
        make(tensors={**make().tensors, name: array})
    assert name in str(caught.value)


def test_two_words_with_one_slug_are_refused():
    with pytest.raises(VocabularyError, match="'Faulty imprint' and 'faulty-imprint'"):
        make(("Faulty imprint", "faulty-imprint"), products={"*": Product()})


def test_add_type_appends_a_row_and_changes_no_other():
    pack = make(products={"*": Product(types=("hole",)), "plain": Product()})
    new = add_type(pack, "Faulty imprint", unit_rows(1, 9)[0])
    assert np.array_equal(new.tensors["text.types"][:2], pack.tensors["text.types"])
    assert [word.slug for word in new.types] == ["scratch", "hole", "faulty-imprint"]
    assert new.product("*").types == ("hole", "faulty-imprint")
    assert new.product("plain").types == ()
    assert new.provenance["history"] == [{"parent": pack.configuration_hash, "add_type": "Faulty imprint"}]


def test_add_type_keeps_calibration_under_default_scoring_and_drops_it_under_paper():
    calibrated = {"*": Product(types=("hole",), threshold_ok=0.2, threshold_notok=0.4, calibrated=True)}
    assert add_type(make(products=calibrated), "bent", unit_rows(1)[0]).product("*").calibrated
    paper = make(products=calibrated, scoring=Scoring(kind="paper"))
    moved = add_type(paper, "bent", unit_rows(1)[0]).product("*")
    assert not moved.calibrated
    # All scores have moved: the old thresholds must not give one more verdict.
    assert (moved.threshold_ok, moved.threshold_notok) == (None, None)
    nothing = np.zeros((4, 4), np.float16)
    said = judge(
        Prediction(0.3, nothing, nothing.astype(np.uint16), np.full(2, 0.5, np.float32)), moved, 9, 9
    )
    assert said.evaluation is Evaluation.UNDEFINED


def test_add_type_refuses_a_word_it_has_and_a_product_it_has_not():
    with pytest.raises(VocabularyError, match="already has 'scratch'"):
        add_type(make(), "Scratch", unit_rows(1)[0])
    with pytest.raises(PackError, match=r"product 'bottel' is not in the pack. Did you mean 'bottle'"):
        add_type(
            make(products={"*": Product(), "bottle": Product()}), "bent", unit_rows(1)[0], products=["bottel"]
        )


def test_set_threshold_changes_thresholds_alone():
    pack = make()
    new = set_threshold(pack, "bottle", 0.25, 0.5)
    assert new.product("bottle") == replace(
        pack.product("*"), threshold_ok=0.25, threshold_notok=0.5, calibrated=True, calibration={"by": "hand"}
    )
    assert new.product("*") == pack.product("*")
    assert all(np.array_equal(new.tensors[name], pack.tensors[name]) for name in pack.tensors)


def test_set_product_keeps_thresholds_only_where_no_score_moves():
    base = Product(types=("hole",), threshold_ok=0.2, threshold_notok=0.4, calibrated=True)
    pack = make(products={"*": base})
    scaled = set_product(pack, "plate", {"mm_per_px": 0.5, "mask_threshold": 0.3, "min_area_px": 4})
    assert scaled.product("plate") == replace(base, mm_per_px=0.5, mask_threshold=0.3, min_area_px=4)
    assert scaled.product("*") == base
    corner = ((0.0, 0.0), (0.5, 0.0), (0.5, 0.5))
    for changes in ({"roi": (corner,)}, {"ignore": (corner,)}, {"tiles": Tiles(2, 3)}):
        moved = set_product(pack, "*", changes).product("*")
        assert moved == replace(base, **changes, threshold_ok=None, threshold_notok=None, calibrated=False)
    with pytest.raises(PackError, match="product plate: mm_per_px"):
        set_product(pack, "plate", {"mm_per_px": float("inf")})


def test_diff_speaks_of_what_changed():
    old, new = make(), add_type(make(), "bent", unit_rows(1, 5)[0])
    lines = "\n".join(diff_packs(old, new))
    assert "types.bent: added" in lines
    assert "tensor text.types: shape [2, 8] -> [3, 8]" in lines
    moved = make(tensors={**old.tensors, "text.normal": unit_rows(1, 7)[0]})
    assert any(line.startswith("tensor text.normal: changed by") for line in diff_packs(old, moved))
    more = make(tensors={**old.tensors, "extra": np.zeros(1, np.float32)})
    assert diff_packs(old, more) == ["tensor extra: added"]
    assert diff_packs(more, old) == ["tensor extra: removed"]
    assert any("removed" in line for line in diff_packs(new, old))


def test_a_number_beyond_all_norms_is_told_like_any_other():
    pack = make()
    huge = np.full_like(pack.tensors["text.normal"], 3e38)
    with pytest.raises(PackError, match="not L2-normalised"):
        replace(pack, tensors={**pack.tensors, "text.normal": huge})


def test_packs_from_before_keep_their_hash():
    """What a product may have since is not written where it has none of it."""
    assert not {"type_thresholds", "reference"} & set(as_json(make())["products"]["*"])


def test_thresholds_of_types_need_the_type_and_those_of_all_others():
    limits = {"threshold_ok": 0.2, "threshold_notok": 0.4}
    own = Product(types=("hole",), type_thresholds={"hole": (0.3, 0.5)}, **limits)
    assert unpack(pack_bytes(make(products={"*": own}))).products["*"].type_thresholds == {"hole": (0.3, 0.5)}
    for wrong, said in (
        (replace(own, type_thresholds={"scratch": (0.3, 0.5)}), "none of its types"),
        (replace(own, type_thresholds={"hole": (0.6, 0.5)}), "thresholds of hole"),
        (replace(own, threshold_ok=None, threshold_notok=None), "none for all others"),
    ):
        with pytest.raises(PackError, match=said):
            make(products={"*": wrong})


def test_thresholds_set_by_hand_are_of_all_types():
    limits = {"threshold_ok": 0.2, "threshold_notok": 0.4}
    own = Product(types=("hole",), type_thresholds={"hole": (0.3, 0.5)}, **limits)
    assert set_threshold(make(products={"*": own}), "*", 0.1, 0.2).products["*"].type_thresholds == {}


def test_a_products_pair_must_be_two_directions_of_a_known_product():
    pack = make()
    pair = unit_rows(2)
    name = "text.product.lid"
    with pytest.raises(PackError, match="no such product"):
        replace(pack, tensors={**pack.tensors, name: pair})
    lid = pack.with_products({"lid": Product()})
    assert replace(lid, tensors={**lid.tensors, name: pair}).configuration_hash != lid.configuration_hash
    for wrong in (pair[:1], 2 * pair):
        with pytest.raises(PackError, match=name):
            replace(lid, tensors={**lid.tensors, name: wrong})
