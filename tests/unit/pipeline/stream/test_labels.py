"""Labels: what can't be used for training is refused before anything is written."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dapo.errors import DapoError, VocabularyError
from pipeline.decode import Limits
from pipeline.stream.label_file import read_labels
from pipeline.stream.labels import Checker, LabelError, label_message, read_mask
from pipeline.testing import DAY, small_pack
from schemas.codec import decode
from schemas.labels import LabelRow
from schemas.rle import decode_mask, encode_mask

CHECKER = Checker.of(small_pack("scratch", "faulty-imprint"), Limits(max_pixels=10_000))
RESULT = str(uuid.UUID(int=7))


def drawn(mode="L", size=(12, 9)):
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[2:4, 5:8] = 255
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def mask(tmp_path):
    path = tmp_path / "mask.png"
    drawn().save(path)
    return path


@pytest.mark.parametrize("label", ["scratch", "faulty-imprint", "unknown", "good"])
def test_types_of_the_pack_unknown_and_good_are_labels(label):
    row = CHECKER.label(RESULT.upper(), label, DAY, "cli", author="zoë", comment="two\nlines")
    assert (row.result_id, row.label, row.author) == (RESULT, label, "zoë")


def test_another_word_is_refused_with_the_nearest():
    with pytest.raises(VocabularyError, match="Did you mean 'scratch'"):
        CHECKER.label(RESULT, "scratches", DAY, "cli")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"result_id": "7"}, "result_id: '7' is no UUID"),
        ({"supersedes": "x"}, "supersedes"),
        ({"frame_key": "x"}, "frame_key"),
        ({"author": "a" * 257}, "author"),
        ({"comment": "\x1b[2J"}, "comment"),
        ({"comment": "\ud800"}, "comment"),
        ({"mask": {"size": [3, 4], "counts": "zz"}}, "mask"),
        ({"mask": {"size": [3, 4], "counts": [49]}}, "counts as text"),
        ({"mask": {"size": [1000, 1000], "counts": "1"}}, "limit of 10000"),
        ({"mask": {}}, "mask"),
        ({"mask": {"size": [1, 2], "counts": "2"}}, "no pixel is set"),
        ({"mask": {"size": [1, 2], "counts": "11"}, "label": "good"}, "no mask"),
    ],
)
def test_what_training_could_not_use_is_refused(fields, said):
    given_ = {"result_id": RESULT, "label": "scratch", **fields}
    with pytest.raises(LabelError, match=said):
        CHECKER.label(given_.pop("result_id"), given_.pop("label"), DAY, "cli", **given_)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "I;16"])
def test_a_mask_is_every_pixel_that_is_not_0(mode, tmp_path):
    drawn(mode).save(tmp_path / "m.png")
    row = CHECKER.label(RESULT, "scratch", DAY, "cli", mask=tmp_path / "m.png")
    found = decode_mask(row.mask)
    assert found.shape == (9, 12)
    assert found.sum() == 6
    assert found[2:4, 5:8].all()


def _save(path, what):
    if isinstance(what, bytes):
        path.write_bytes(what)
    else:
        what.save(path, "JPEG" if what.mode == "CMYK" else "PNG")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (b"no png", "is no PNG"),
        (b"", "is no PNG"),
        (Image.new("CMYK", (9, 9)), "is no PNG"),
        (Image.new("L", (9, 9)), "no pixel is set"),
        (Image.new("RGBA", (9, 9), "red"), "grey PNG"),
        (Image.new("L", (101, 100), 1), "limit of 10000"),
        (bytes(5000), "more than 4000 bytes"),
    ],
)
def test_what_is_no_mask_is_refused(what, said, tmp_path):
    path = tmp_path / "m.png"
    _save(path, what)
    with pytest.raises(LabelError, match=said):
        read_mask(path, Limits(max_pixels=10_000, max_bytes=4000))


def test_a_damaged_or_missing_mask_is_refused(mask):
    mask.write_bytes(mask.read_bytes()[:60])
    with pytest.raises(LabelError, match="can't be read"):
        read_mask(mask, Limits())
    with pytest.raises(LabelError, match="can't be read"):
        read_mask(mask.with_name("none.png"), Limits())


def test_a_csv_is_read_with_masks_beside_it(tmp_path, mask):
    file = tmp_path / "labels.csv"
    file.write_text(
        "\ufeffresult_id,label,mask,author,comment,labelled_at\n"
        f'{RESULT},scratch,mask.png,zoë,"two\nlines",2026-01-31T08:00:00+01:00\n'
        f"{RESULT},good,,,,\n"
    )
    first, second = read_labels(file, CHECKER, DAY).rows
    assert decode_mask(first.mask).sum() == 6
    assert (first.source, first.comment, first.labelled_at) == (
        "import",
        "two\nlines",
        datetime(2026, 1, 31, 7, tzinfo=UTC),
    )
    assert (second.label, second.mask, second.author) == ("good", None, None)
    assert second.labelled_at == DAY + timedelta(microseconds=4)


def test_a_jsonl_may_hold_run_lengths(tmp_path, mask):
    file = tmp_path / "labels.jsonl"
    rle = encode_mask(np.eye(4, dtype=bool))
    entries = [
        {"result_id": RESULT, "label": "scratch", "mask": rle},
        {"result_id": RESULT, "label": "scratch", "mask": "mask.png"},
    ]
    file.write_text("\n\n".join(json.dumps(one) for one in entries) + "\n")
    rows = read_labels(file, CHECKER, DAY).rows
    assert [decode_mask(row.mask).sum() for row in rows] == [4, 6]
    assert len({row.label_id for row in rows}) == 2  # two defects of one type in one frame


@pytest.mark.parametrize(
    ("name", "text", "line", "said"),
    [
        ("a.csv", f"result_id,label\n{RESULT},scratch\nx,scratch\n", 3, "no UUID"),
        ("a.csv", f"result_id,label\n{RESULT},rust\n", 2, "no type of the pack"),
        ("a.csv", f"result_id,lable\n{RESULT},rust\n", 2, "Did you mean 'label'"),
        ("a.csv", f"result_id,label\n{RESULT},good,extra\n", 2, "more fields"),
        ("a.csv", f"result_id,label\n{RESULT}\n", 2, "label is missing"),
        ("a.csv", 'result_id,label\n"open', 2, "end of data"),
        ("a.csv", f"result_id,label,mask\n{RESULT},scratch,none.png\n", 2, "can't be read"),
        ("a.csv", f"result_id,label,labelled_at\n{RESULT},good,2026-01-31\n", 2, "no time zone"),
        ("a.csv", f"result_id,label,labelled_at\n{RESULT},good,soon\n", 2, "not like"),
        ("a.csv", f"result_id,label,labelled_at\n{(RESULT + ',good,2026-01-31T00:00:00Z' + chr(10)) * 2}", 3, "as line 2"),
        ("a.jsonl", '{"result_id":\n', 1, "no JSON"),
        ("a.jsonl", "\n[1]\n", 2, "expected an object"),
        ("a.jsonl", json.dumps({"result_id": 7, "label": "good"}), 1, "expected text"),
        ("a.jsonl", json.dumps({"result_id": RESULT, "label": "good", "comment": "\ud800"}), 1, "comment"),
        ("a.jsonl", "[" * 100_000, 1, "no JSON"),
    ],
)  # fmt: skip
def test_errors_name_file_and_line(name, text, line, said, tmp_path):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(LabelError, match=said) as caught:
        read_labels(file, CHECKER, DAY)
    assert str(caught.value).startswith(f"{file}:{line}: ")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.txt", b"", "neither"),
        ("a.csv", b"", "no label"),
        ("a.csv", b"result_id,label\n", "no label"),
        ("a.csv", b"\xff\xfe", "UTF-8"),
    ],
)
def test_a_file_that_holds_no_labels_is_refused(name, data, said, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(LabelError, match=said):
        read_labels(tmp_path / name, CHECKER, DAY)
    with pytest.raises(LabelError, match="can't be read"):
        read_labels(tmp_path / "none.csv", CHECKER, DAY)


def test_the_same_file_is_known_again_and_another_mask_makes_it_another(tmp_path, mask):
    file = tmp_path / "a.csv"
    file.write_text(f"result_id,label,mask\n{RESULT},scratch,mask.png\n")
    first = read_labels(file, CHECKER, DAY)
    assert read_labels(file, CHECKER, DAY + timedelta(days=1)).digest == first.digest
    drawn(size=(20, 20)).save(mask)
    assert read_labels(file, CHECKER, DAY).digest != first.digest


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")),
    kind=st.sampled_from(["csv", "jsonl"]),
)
def test_no_file_breaks_the_reader(data, kind, tmp_path):
    file = tmp_path / f"a.{kind}"
    for text in (data, b"result_id,label,mask,comment\n" + RESULT.encode() + b",scratch," + data):
        file.write_bytes(text)
        try:
            rows = read_labels(file, CHECKER, DAY).rows
        except DapoError:
            continue
        for row in rows:
            assert decode(label_message(row, "t").value, LabelRow) == [row]


def test_a_label_is_keyed_by_its_result():
    row = CHECKER.label(RESULT, "scratch", DAY, "cli")
    message = label_message(row, "test.labels")
    assert (message.topic, message.key) == ("test.labels", RESULT.encode())
    assert decode(message.value, LabelRow) == [row]
    assert dict(message.headers)["ce_id"] == row.label_id.encode()
