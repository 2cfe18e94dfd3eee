"""The frame message: what is written is read, and nothing that is written can break the reader."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.ports import DROP, Frame, Record, Result
from pipeline.rows import to_row
from pipeline.stream.frames import ATTEMPT, MAX_ID, REFERENCE, read_frame, write_frame
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import Teller
from pipeline.testing import CONFIGURATION, DAY, frame
from schemas.codec import decode_results, encode
from schemas.headers import FRAME_HEADERS

NAMES = ("station_id", "line_id", "part_id", "job_id", "recipe_id")
CONTROL = "".join(
    map(
        chr,
        [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)],
    )
)
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters=CONTROL), min_size=1, max_size=60)
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))


def record(headers=(), value=b"image", **fields) -> Record:
    given_ = {"topic": "t", "partition": 3, "offset": 17, "key": b"k", "timestamp": DAY, **fields}
    return Record(value=value, headers=tuple(headers), **given_)


def arrived(message, **fields) -> Frame:
    return read_frame(record(message.headers, message.value, topic=message.topic, key=message.key, **fields))


@given(
    frame_id=TEXT, source=TEXT, camera=st.just("") | TEXT, product=TEXT, at=TIMES,
    sequence=st.none() | st.integers(0, 2**63 - 1), views=st.none() | st.integers(1, 1000),
    names=st.dictionaries(st.sampled_from(NAMES), TEXT), data=st.binary(min_size=1, max_size=40),
)  # fmt: skip
def test_what_is_written_is_read(frame_id, source, camera, product, at, sequence, views, names, data):
    headers = {**names, **({"views_expected": str(views)} if views else {})}
    sent = Frame(
        frame_id, source, at, data, content_type="image/png", product_id=product, camera_id=camera,
        sequence=sequence, headers=headers,
    )  # fmt: skip
    got = arrived(write_frame(sent, "t"))
    assert got.error is None
    assert got.camera_id == (camera or source)
    for name in ("frame_id", "source", "captured_at", "data", "content_type", "product_id", "sequence"):
        assert getattr(got, name) == getattr(sent, name), name
    assert {
        name: text for name, text in got.headers.items() if name not in ("camera_id", "product_id")
    } == headers


def test_a_claim_check_has_no_bytes_and_says_where_they_lie():
    message = write_frame(frame(data=b"large"), "t", reference="s3://inspection/claims/1")
    assert message.value == b""
    got = arrived(message)
    assert got.error is None
    assert got.headers[REFERENCE] == "s3://inspection/claims/1"


def test_the_key_is_the_camera_so_that_its_frames_keep_their_order():
    assert write_frame(frame(camera_id="cam"), "t").key == b"cam"
    assert write_frame(frame(), "t").key == frame().source.encode()


KNOWN = tuple(header.name for header in FRAME_HEADERS)
VALUES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")),
    st.integers().map(lambda number: str(number).encode()),
    st.floats().map(lambda number: str(number).encode()),
    st.sampled_from(
        [
            b"", b"1.0", b"nan", b"inf", b"1e999", b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59",
            b"2026-01-31T08:00:00Z", b"true", b"s3://b/k", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"\xff\xfe",
            "\u202e".encode(), b"../../etc/passwd", b"x" * (MAX_ID + 1), "\u0663".encode(), b"a\x00b",
        ]
    ),
)  # fmt: skip
HEADERS = st.lists(
    st.tuples(st.sampled_from(KNOWN) | st.text(string.printable, max_size=20), VALUES), max_size=80
)
NAMED = st.builds(lambda own: (("ce_id", b"1"), ("ce_source", b"s"), *own), HEADERS)


@settings(max_examples=400)
@given(headers=HEADERS | NAMED, value=st.binary(max_size=20), key=st.none() | st.binary(max_size=20))
@example(
    headers=[("ce_id", b"1"), ("ce_source", b"s"), ("ce_time", b"9999-12-31T23:59:59-23:59")],
    value=b"x",
    key=None,
)
@example(
    headers=[("ce_id", b"1"), ("ce_source", b"s"), ("ce_time", b"0001-01-01T00:00:00+23:59")],
    value=b"x",
    key=None,
)
@example(headers=[("ce_id", b"1"), ("ce_source", b"s"), ("deadline_ms", b"5e-324")], value=b"x", key=None)
def test_no_message_breaks_the_reader_nor_what_comes_after_it(headers, value, key):
    given_ = record(headers, value, key=key)
    got = read_frame(given_)
    assert got.record == given_
    assert got.data == value
    assert 0 < len(got.frame_id) <= MAX_ID
    assert all(len(text) <= MAX_ID and not set(text) & set(CONTROL) for text in got.headers.values())
    stage, (code, message) = "read", got.error or (DROP, "dropped")
    result = Result(got, None, (stage, code, message), 0, 0, "", None, DAY, DAY, 0.0, 0.0, 0.0, CONFIGURATION)
    [row] = decode_results(encode([to_row(result)]))
    assert row.frame_id == got.frame_id
    told = Teller(Topics("t")).tell(result)
    letter = told.messages[-1]
    assert letter.value == value
    assert letter.headers[: len(headers)] == tuple(headers)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ((), "ce_id is missing"),
        ((("ce_id", b"1"),), "ce_source is missing"),
        ((("ce_id", b"1"), ("ce_id", b"2")), "twice"),
        ((("ce_id", b"\xff"),), "not UTF-8"),
        ((("ce_id", b"a\nb"),), "control characters"),
        ((("ce_id", b"x" * (MAX_ID + 1)),), "the limit is 1024"),
        ((("camera_id", b"x" * 257),), "the limit is 256"),
        ((("ce_id", b"1"), ("ce_source", b"s"), ("ce_specversion", b"0.3")), "expected 1.0"),
        ((("ce_id", b"1"), ("ce_source", b"s"), ("sequence", b"-1")), "whole number"),
        ((("ce_id", b"1"), ("ce_source", b"s"), ("views_expected", b"0")), "1 to 1000"),
        ((("ce_id", b"1"), ("ce_source", b"s"), (ATTEMPT, b"many")), "whole number"),
        ((("ce_id", b"1"), ("ce_source", b"s"), ("deadline_ms", b"nan")), "milliseconds"),
        ((("ce_id", b"1"), ("ce_source", b"s"), ("ce_time", b"yesterday")), "RFC 3339"),
        (tuple((f"x-{n}", b"") for n in range(65)), "65 headers"),
        ((("x", b"y" * 20_000),), "bytes of headers"),
    ],
)
def test_a_broken_header_is_named(headers, said):
    got = read_frame(record(headers))
    assert got.error is not None
    code, message = got.error
    assert code == "broken-header"
    assert said in message
    assert got.frame_id == "3/17"


def test_a_message_without_image_and_reference_is_empty():
    got = read_frame(record((("ce_id", b"1"), ("ce_source", b"s")), b""))
    assert got.error is not None
    assert got.error[0] == "empty"
    why = ("inspect.reason", b"it has 9 MB, and there is no store")
    got = read_frame(record((("ce_id", b"1"), ("ce_source", b"s"), why), b""))
    assert got.error == ("empty", "it has 9 MB, and there is no store")


def test_a_frame_without_a_time_has_that_of_its_record():
    got = read_frame(record((("ce_id", b"1"), ("ce_source", b"s")), timestamp=DAY + timedelta(hours=1)))
    assert got.captured_at == DAY + timedelta(hours=1)
