"""Identifiers that do not depend on who computes them, or how often."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

# UUIDv5 (RFC 9562) of the URL namespace; frozen: readers drop duplicates by what comes of it.
_FRAMES = uuid.uuid5(uuid.NAMESPACE_URL, "urn:dapo-inspection:frame")
_RESULTS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:dapo-inspection:result")
_PARTS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:dapo-inspection:part")
_LABELS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:dapo-inspection:label")


def frame_key(source: str, frame_id: str) -> str:
    """Key of a frame from CloudEvents `source` and `id`: what readers drop duplicates by.

    >>> frame_key("camera/1", "42") == frame_key("camera/1", "42")
    True
    """
    # The length keeps ("a", "bc") and ("ab", "c") apart.
    return str(uuid.uuid5(_FRAMES, f"{len(source)}:{source}{frame_id}"))


def result_id(frame: str, configuration_hash: str) -> str:
    """Id of a result: one frame under one configuration. `frame` is a frame key."""
    return str(uuid.uuid5(_RESULTS, f"{frame}/{configuration_hash}"))


def part_key(line_id: str | None, product_id: str | None, part_id: str, job_id: str | None) -> str:
    """Key of a part: its number alone comes again on another line, for another product or in the next job.

    >>> part_key("line-1", "bottle", "17", None) == part_key("line-1", "bottle", "17", "")
    False
    """
    return str(uuid.uuid5(_PARTS, _joined(line_id, product_id, part_id, job_id)))


def label_id(result: str, label: str, author: str | None, labelled_at: datetime) -> str:
    """Id of a label: the same statement of the same person at the same microsecond is one label.

    Args:
        result: result id.
        labelled_at: with a time zone; any zone gives the same id.

    Raises:
        ValueError: `labelled_at` has no time zone.
    """
    if labelled_at.tzinfo is None:
        raise ValueError(f"labelled_at {labelled_at.isoformat()}: needs a time zone")
    when = labelled_at.astimezone(UTC).isoformat(timespec="microseconds")
    return str(uuid.uuid5(_LABELS, _joined(result, label, author, when)))


def _joined(*texts: str | None) -> str:
    """Texts as one, so that other texts give another one; no text is not the empty text."""
    return "".join("-" if text is None else f"{len(text)}:{text}" for text in texts)
