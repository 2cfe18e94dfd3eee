"""The headers of the contract. All values are UTF-8 text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Header:
    """One header, for the page of the contract."""

    name: str
    meaning: str
    required: bool = False


FRAME_HEADERS = (
    Header("ce_specversion", "CloudEvents version: `1.0`"),
    Header("ce_id", "frame id: unique and stable within `ce_source`, so that sending twice is seen", True),
    Header("ce_source", "where the frame comes from, as a URI: a camera, a folder, a video", True),
    Header("ce_type", "`com.dapo-inspection.frame`"),
    Header("ce_time", "when the picture was taken, RFC 3339; else the time of the Kafka record counts"),
    Header(
        "ce_dataref",
        "where the image lies (`s3://...`) if the value is empty: the claim check for large frames",
    ),
    Header(
        "content-type", "`image/jpeg`, `image/png`, `image/bmp`, `image/tiff`, `image/webp`; content decides"
    ),
    Header("traceparent", "W3C trace context; the verdict carries the same trace on"),
    Header("camera_id", "camera; else `ce_source` counts"),
    Header("station_id", "station"),
    Header("line_id", "line"),
    Header(
        "product_id", "product; one that the pack does not know is judged as `*`: Undefined, defects listed"
    ),
    Header("part_id", "part; views of one part share it"),
    Header("job_id", "job"),
    Header("recipe_id", "recipe"),
    Header(
        "sequence", "number of the frame at its camera, 0 and up by one; a gap is a frame lost before Kafka"
    ),
    Header("views_expected", "number of views of the part, 1 to 1000"),
    Header("deadline_ms", "promised time from capture to result; else the worker's setting counts"),
    Header("is_simulated", "`true` where the line is simulated"),
    Header("inspect.attempt", "set by `dapo dead-letters replay`: how often the frame was sent again"),
)

RESULT_HEADERS = (
    Header("content-type", "`application/vnd.apache.arrow.stream`", True),
    Header("ce_dataschema", "kind of row and its version, as in the headings of the rows", True),
    Header("ce_specversion", "`1.0`", True),
    Header("ce_id", "`result_id`; of a defect row `result_id/defect_index`", True),
    Header("ce_source", "who wrote it", True),
    Header("ce_type", "`com.dapo-inspection.result` or `com.dapo-inspection.defect`", True),
    Header("ce_time", "`finished_at`", True),
    Header("frame_key", "as in the row: duplicates are dropped without decoding", True),
    Header("evaluation", "as in the row: OK frames are skipped without decoding", True),
    Header("views_expected", "of the frame, where it had one"),
    Header("traceparent", "the frame's trace, with a span of the worker's"),
)

DEAD_LETTER_HEADERS = (
    Header("__connect.errors.topic", "topic of the frame", True),
    Header("__connect.errors.partition", "its partition", True),
    Header("__connect.errors.offset", "its offset", True),
    Header("__connect.errors.connector.name", "who gave it up", True),
    Header("__connect.errors.stage", "stage that failed, in capitals", True),
    Header("__connect.errors.exception.class.name", "reason code", True),
    Header("__connect.errors.exception.message", "why, for people", True),
    Header("inspect.stage", "stage that failed: `read` (headers, `ce_dataref`), `decode` or `judge`", True),
    Header("inspect.code", "reason code, as `reason_code` of the Failed row", True),
    Header("inspect.attempt", "how often the frame had been sent again before, where it was"),
)
