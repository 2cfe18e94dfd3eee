"""The topics of the contract: what lies there, under which key, for how long, who writes and who reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic, for the page of the contract. `cleanup.policy` is `delete` on all: compaction would keep one row a key.

    Attributes:
        name: with the default prefix.
        key: UTF-8 text; messages of one key keep their order.
        value: what a message is.
        kept: retention.
        writes: the command that writes it.
        reads: who reads it.
    """

    name: str
    key: str
    value: str
    kept: str
    writes: str
    reads: str


# "the declared outage": of the store or the MES, whichever may be away longer; `dapo topics` computes bytes from it.
_OUTAGE = "1.5 x the declared outage, by time and bytes"

TOPICS = (
    Topic(
        "inspection.frames",
        "`camera_id`, else `ce_source`",
        "encoded image, or none and `ce_dataref`",
        _OUTAGE,
        "`dapo feed`, cameras, the plant's own",
        "`dapo worker`, `dapo archive` (by offset)",
    ),
    Topic(
        "inspection.results",
        "key of its frame",
        "result row: one per frame, always",
        _OUTAGE,
        "`dapo worker`",
        "MES, console, `dapo archive`, `dapo parts`, `dapo watch`",
    ),
    Topic(
        "inspection.defects.<type>",
        "key of its frame",
        "defect row: one per region of NotOK, NotDecidable and Undefined frames",
        _OUTAGE,
        "`dapo worker`",
        "MES, stations that care for one type",
    ),
    Topic(
        "inspection.deadletter",
        "key of its frame",
        "the frame's value, untouched",
        "14 days, or longer where the declared outage asks for it",
        "`dapo worker`",
        "`dapo dead-letters`, whoever mends the sender",
    ),
    Topic(
        "inspection.parts",
        "`part_key`",
        "part row: one per part",
        _OUTAGE,
        "`dapo parts`",
        "MES, console",
    ),
    Topic(
        "inspection.status",
        "`worker_id/line_id`",
        "status row: one a second per worker and line",
        "1 day; one partition",
        "`dapo worker`",
        "MES, console, `dapo watch`",
    ),
    Topic(
        "inspection.labels",
        "`result_id`",
        "label row: one per label",
        "for ever: it is people's work",
        "`dapo label`, console",
        "training, console",
    ),
)
