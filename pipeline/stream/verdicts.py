"""From one frame's result to the messages that tell of it: its row, a row per defect, and its dead letter.

Every frame yields exactly one row. A failed one is also in the dead letters, as it came, with headers that say why.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from dapo.inspection import ResultState
from pipeline.ports import Headers, Message, Result
from pipeline.rows import to_row
from pipeline.stream.frames import ATTEMPT
from pipeline.stream.topics import Topics
from schemas.codec import CONTENT_TYPE, dataschema, encode
from schemas.defects import DefectRow, defect_rows
from schemas.results import ResultRow

_CONNECTOR = "dapo-worker"
_MAX_REASON = (
    2000  # characters: an error that quotes a frame's bytes must not outgrow the topic's message size
)
_NOT_HEADER = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Told:
    """What is published of one frame.

    Attributes:
        row: its result row.
        messages: row, defects, dead letter; in this order.
        replayed: the frame was sent again from the dead letters, out of its camera's order.
    """

    row: ResultRow
    messages: tuple[Message, ...]
    replayed: bool = False

    @property
    def size(self) -> int:
        """Bytes of all messages."""
        return sum(len(message.value) for message in self.messages)


class Teller:
    """Makes messages of results.

    Args:
        topics: where to.
        deadline_ms: promised time from capture to result; None promises nothing.
        image_uri: where the image of a row with these bytes will lie, None where that is not sure.
    """

    def __init__(
        self,
        topics: Topics,
        deadline_ms: float | None = None,
        image_uri: Callable[[ResultRow, bytes], str | None] | None = None,
    ) -> None:
        self._topics = topics
        self._deadline_ms = deadline_ms
        self._image_uri = image_uri

    def tell(self, result: Result) -> Told:
        """All messages of one result."""
        row = to_row(result, deadline_ms=self._deadline_ms)
        if self._image_uri is not None:
            row = replace(row, image_uri=self._image_uri(row, result.frame.data))
        return Told(row, tuple(self._messages(result, row)), ATTEMPT in result.frame.headers)

    def _messages(self, result: Result, row: ResultRow) -> Iterator[Message]:
        key = (row.camera_id or result.frame.source).encode()
        trace = _child_trace(result.frame.headers.get("traceparent"))
        event = _event(row.result_id, row, ResultRow, trace)
        views = result.frame.headers.get("views_expected")  # whoever joins the views of a part needs it
        passed = (("views_expected", views.encode()),) if views else ()
        yield Message(self._topics.results, key, encode([row]), (*event, *passed))
        for defect in defect_rows(row):
            identity = f"{row.result_id}/{defect.defect_index}"
            topic = self._topics.defects(defect.defect["type"])
            yield Message(topic, key, encode([defect]), _event(identity, row, DefectRow, trace))
        if row.result_state == ResultState.FAILED:
            yield dead_letter(result, self._topics)


def dead_letter(result: Result, topics: Topics) -> Message:
    """The frame's message with its key, value and headers untouched, and what went wrong in headers after them."""
    record = result.frame.record
    if record is None or result.error is None:
        raise ValueError(f"frame {result.frame.frame_id}: only a failed frame of a stream has a dead letter")
    stage, code, message = result.error
    said = {
        "__connect.errors.topic": record.topic,
        "__connect.errors.partition": str(record.partition),
        "__connect.errors.offset": str(record.offset),
        "__connect.errors.connector.name": _CONNECTOR,
        "__connect.errors.stage": stage.upper(),
        "__connect.errors.exception.class.name": code,
        "__connect.errors.exception.message": _NOT_HEADER.sub(" ", message)[:_MAX_REASON],
        "inspect.stage": stage,
        "inspect.code": code,
    }
    added = tuple((name, text.encode()) for name, text in said.items())
    return Message(topics.dead_letters, record.key, record.value, (*record.headers, *added))


def _event(identity: str, row: ResultRow, kind: type[ResultRow] | type[DefectRow], trace: str) -> Headers:
    headers = {
        "ce_specversion": "1.0",
        "ce_id": identity,
        "ce_source": "dapo-inspection/worker",
        "ce_type": "com.dapo-inspection.result" if kind is ResultRow else "com.dapo-inspection.defect",
        "ce_time": row.finished_at.isoformat().replace("+00:00", "Z"),
        "ce_dataschema": dataschema(kind),
        "content-type": CONTENT_TYPE,
        "frame_key": row.frame_key,
        "evaluation": row.evaluation,
        "traceparent": trace,
    }
    return tuple((name, text.encode()) for name, text in headers.items() if text)


def _child_trace(parent: str | None) -> str:
    """W3C trace context (level 1) of the verdict: the frame's trace with a span of our own; "" where it has none."""
    if not parent:
        return ""
    version, trace, _, flags = parent.split("-")
    return f"{version}-{trace}-{secrets.token_hex(8)}-{flags}"
