"""Hostile messages against the frame reader, the decoder and the judge: each must get exactly one row.

    python -m tests.fuzz.run --messages 100000 --seed 1

Values are random bytes, images cut or flipped in places, and headers that lie about sizes; message headers are missing,
doubled, huge, not UTF-8, or nearly right. A message that raises, that yields no row or two, or a Failed one without its dead
letter counts as a crash. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from pipeline.decode import Limits
from pipeline.inspect import Inspector, Preparer
from pipeline.ports import Headers, Record
from pipeline.stream.frames import read_frame
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import Teller
from pipeline.testing import FakeInfer, encoded, small_pack, surface
from schemas.codec import decode_results

_NAMES = (
    *(
        "ce_id",
        "ce_source",
        "ce_time",
        "ce_specversion",
        "ce_dataref",
        "content-type",
        "traceparent",
        "camera_id",
    ),
    *(
        "line_id",
        "product_id",
        "part_id",
        "sequence",
        "views_expected",
        "deadline_ms",
        "inspect.attempt",
        "x-plant",
    ),
)
_TEXTS = (
    *(
        "",
        "1",
        "-1",
        "0",
        "9" * 30,
        "1e999",
        "nan",
        "2026-01-31T08:00:00Z",
        "9999-12-31T23:59:59+99:99",
        "../../etc",
    ),
    *(
        "s3://b/k",
        "\x00",
        "\u202egnp",
        "a" * 300,
        "b" * 2000,
        "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
        "ü",
        "[/b]",
    ),
)
_LIMITS = Limits(max_bytes=2**20, max_pixels=4_000_000)
_DAY = datetime(2026, 1, 1, tzinfo=UTC)


class Hostile:
    """Messages from a seed."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        picture = surface(1, defect=True)
        self._images = [
            encoded(picture, form) for form in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
        ]

    def record(self, number: int) -> Record:
        """One message."""
        return Record("fuzz.frames", 0, number, self._key(), self._value(), self._headers(number), _DAY)

    def _key(self) -> bytes | None:
        return self._rng.choice((None, b"", b"k", b"\xff" * 100))

    def _value(self) -> bytes:
        rng = self._rng
        kind = rng.randrange(8)
        image = bytearray(rng.choice(self._images))
        if kind == 0:
            return rng.randbytes(rng.randrange(200))
        if kind == 1:
            return bytes(image[: rng.randrange(len(image))])
        if kind == 2:
            for _ in range(rng.randrange(1, 40)):
                image[rng.randrange(len(image))] = rng.randrange(256)
            return bytes(image)
        if kind == 3:
            for _ in range(rng.randrange(1, 6)):
                image[rng.randrange(min(64, len(image)))] = rng.randrange(256)
            return bytes(image)
        if kind == 4:
            return _png(rng.randrange(2**31), rng.randrange(2**31))
        if kind == 5:
            other = rng.choice(self._images)
            return bytes(image[: rng.randrange(40)]) + other
        return bytes(image) if kind == 6 else b""

    def _headers(self, number: int) -> Headers:
        rng = self._rng
        if rng.random() < 0.5:  # mostly right, so that the value is reached
            return (
                ("ce_id", str(number).encode()),
                ("ce_source", b"fuzz"),
                ("camera_id", b"c%d" % (number % 7)),
            )
        found = []
        for _ in range(rng.choice((0, 1, 3, 6, 6, 90))):
            text = rng.choice(_TEXTS).encode() if rng.random() < 0.8 else rng.randbytes(rng.randrange(30))
            found.append((rng.choice(_NAMES), text))
        return tuple(found)


def _png(width: int, height: int) -> bytes:
    """A PNG whose header promises a picture of this size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, body, b"IEND")
    )


def fuzz(messages: int, seed: int, say: Callable[[str], None] = lambda line: None) -> dict[str, object]:
    """Send them all. Returns what the last line prints."""
    pack, topics, begun = small_pack(), Topics("fuzz"), time.monotonic()
    inspector = Inspector(FakeInfer(pack), batch=1)
    teller = Teller(topics)
    states: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    crashes: list[str] = []
    hostile = Hostile(seed)
    preparer = Preparer(FakeInfer(pack), _LIMITS)
    for number in range(messages):
        record = hostile.record(number)
        try:
            results = list(inspector.add(preparer.prepare(read_frame(record))))
            [told] = [teller.tell(result) for result in results]
            [row] = decode_results(told.messages[0].value)
            letters = [one for one in told.messages if one.topic == topics.dead_letters]
            assert (len(letters) == 1) == (row.result_state == "Failed"), "a failed frame has one dead letter"
            assert all(one.value == record.value for one in letters), (
                "a dead letter is the message as it came"
            )
            assert row.reason_code != "internal", row.reason
            states[row.result_state] += 1
            codes[row.reason_code or "-"] += 1
        except Exception as error:
            crashes.append(f"message {number}: {type(error).__name__}: {error}")
            list(inspector.flush())
        if (number + 1) % 10_000 == 0:
            say(f"{number + 1} messages, {len(crashes)} crashes, {dict(states)}")
    return {
        "messages": messages,
        "seed": seed,
        "crashes": len(crashes),
        "first_crashes": crashes[:5],
        "answered": sum(states.values()),
        "states": dict(states),
        "reason_codes": dict(codes.most_common()),
        "minutes": round((time.monotonic() - begun) / 60, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(fuzz(options.messages, options.seed, print)))


if __name__ == "__main__":
    main()
