"""The frame message: CloudEvents 1.0 in binary mode (Kafka protocol binding), the image as the value.

Headers are read as if an enemy had written them: bounded in number and size, UTF-8 without control characters, numbers
in range. A message that breaks a rule is still a frame, with its error set: it gets a row and goes to the dead letters.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from dapo.errors import FrameError
from dapo.pack import ANY_PRODUCT
from pipeline.ports import Frame, Headers, Message, Record

SPEC_VERSION = "1.0"
TYPE = "com.dapo-inspection.frame"
REFERENCE = "ce_dataref"
ATTEMPT = "inspect.attempt"

_MAX_HEADERS = 64
_MAX_HEADER_BYTES = 16 * 1024  # all names and values: a trace, some ids and a few headers of the plant's own
_MAX_TEXT = 256  # characters of a name: rows, keys and metrics carry it on
MAX_ID = 1024  # characters of an event's id, source or reference, which may be a path
REASON = "inspect.reason"  # why a frame comes without its image
_LONG = ("ce_id", "ce_source", REFERENCE, REASON)
_TEXTS = ("camera_id", "station_id", "line_id", "product_id", "part_id", "job_id", "recipe_id")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_SEQUENCE = 2**63 - 1
_MAX_VIEWS = 1000
_MAX_DEADLINE_MS = 86_400_000.0


def read_frame(record: Record) -> Frame:
    """A frame from its message. Never raises for what is in the message.

    Where even the id can't be read, the frame is named after its place on the topic, so that it is told apart from
    every other one.
    """
    fallback = f"{record.partition}/{record.offset}"
    try:
        texts = _texts(record.headers)
        return _frame(record, texts)
    except FrameError as error:
        return Frame(
            frame_id=fallback,
            source=f"kafka:{record.topic}",
            captured_at=record.timestamp,
            data=record.value,
            error=(error.code, str(error)),
            record=record,
        )


def write_frame(frame: Frame, topic: str, *, data: bytes | None = None, reference: str = "") -> Message:
    """The message of a frame: its own bytes, or none and where they lie.

    Args:
        data: encoded image; None takes the frame's.
        reference: s3 URI of the image, where the message carries none (claim check).
    """
    headers = {
        "ce_specversion": SPEC_VERSION,
        "ce_id": frame.frame_id,
        "ce_source": frame.source,
        "ce_type": TYPE,
        "ce_time": frame.captured_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "content-type": frame.content_type or "application/octet-stream",
        "camera_id": frame.camera_id,
        "product_id": frame.product_id,
        **{name: text for name, text in frame.headers.items() if name in _KNOWN},
    }
    if frame.sequence is not None:
        headers["sequence"] = str(frame.sequence)
    if reference:
        headers[REFERENCE] = reference
    body = b"" if reference else (frame.data if data is None else data)
    packed = tuple((name, value.encode()) for name, value in headers.items() if value)
    return Message(topic, (frame.camera_id or frame.source).encode(), body, packed)


def _frame(record: Record, texts: dict[str, str]) -> Frame:
    _check_event(texts)
    passed = {name: texts[name] for name in _PASSED if name in texts}
    passed |= {name: text for name in _TEXTS if (text := texts.get(name))}
    for name, low, high in (("views_expected", 1, _MAX_VIEWS), (ATTEMPT, 0, _MAX_VIEWS)):
        if name in texts:
            passed[name] = str(_whole(name, texts[name], low, high))
    if "deadline_ms" in texts:
        passed["deadline_ms"] = str(_deadline(texts["deadline_ms"]))
    if (trace := texts.get("traceparent")) and _TRACE.fullmatch(trace):
        passed["traceparent"] = trace  # a broken trace is no reason to lose a frame
    if not record.value and REFERENCE not in texts:
        raise FrameError(
            "empty",
            texts.get(REASON)
            or "The message has no value and no ce_dataref header. Send the image or where it lies.",
        )
    return Frame(
        frame_id=texts["ce_id"],
        source=texts["ce_source"],
        captured_at=_time(texts["ce_time"]) if "ce_time" in texts else record.timestamp,
        data=record.value,
        content_type=texts.get("content-type", ""),
        product_id=texts.get("product_id", ANY_PRODUCT),
        camera_id=texts.get("camera_id") or texts["ce_source"],
        sequence=_whole("sequence", texts["sequence"], 0, _MAX_SEQUENCE) if "sequence" in texts else None,
        headers=passed,
        record=record,
    )


_PASSED = (REFERENCE, "is_simulated")


def _texts(headers: Headers) -> dict[str, str]:
    if len(headers) > _MAX_HEADERS:
        raise _broken(f"{len(headers)} headers; the limit is {_MAX_HEADERS}")
    size = sum(len(name) + len(value or b"") for name, value in headers)
    if size > _MAX_HEADER_BYTES:
        raise _broken(f"{size} bytes of headers; the limit is {_MAX_HEADER_BYTES}")
    found: dict[str, str] = {}
    for name, value in headers:
        if name not in _KNOWN:
            continue  # a plant's own headers are its own affair
        if name in found:
            raise _broken(f"header {name} is there twice")
        try:
            text = (value or b"").decode()
        except UnicodeDecodeError as error:
            raise _broken(f"header {name} is not UTF-8") from error
        limit = MAX_ID if name in _LONG else _MAX_TEXT
        if len(text) > limit:
            raise _broken(f"header {name} has {len(text)} characters; the limit is {limit}")
        if _CONTROL.search(text):
            raise _broken(f"header {name} holds control characters")
        if text:
            found[name] = text
    return found


_KNOWN = frozenset(
    (
        *("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type", "traceparent"),
        *("sequence", "views_expected", "deadline_ms", ATTEMPT, REASON, *_PASSED, *_TEXTS),
    )
)


def _check_event(texts: dict[str, str]) -> None:
    for name in ("ce_id", "ce_source"):
        if name not in texts:
            raise _broken(f"header {name} is missing")
    version = texts.get("ce_specversion", SPEC_VERSION)
    if version != SPEC_VERSION:
        raise _broken(f"ce_specversion is {version}; expected {SPEC_VERSION}")


def _whole(name: str, text: str, low: int, high: int) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII) or not low <= int(text) <= high:
        raise _broken(f"header {name} is '{text}'; expected a whole number of {low} to {high}")
    return int(text)


def _deadline(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= _MAX_DEADLINE_MS:
        raise _broken(f"header deadline_ms is '{text}'; expected milliseconds above 0, a day at most")
    return value


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _broken(
            f"header ce_time is '{text}'; expected RFC 3339, such as 2026-01-31T08:00:00Z"
        ) from error


def _broken(what: str) -> FrameError:
    return FrameError("broken-header", f"The message can't be read as a frame: {what}. Correct the sender.")
