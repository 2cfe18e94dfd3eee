"""Identifiers that do not depend on who computes them, or how often."""

from __future__ import annotations

import uuid

# UUIDv5 (RFC 9562) of the URL namespace; frozen: readers drop duplicates by what comes of it.
_FRAMES = uuid.uuid5(uuid.NAMESPACE_URL, "urn:dapo-inspection:frame")
_RESULTS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:dapo-inspection:result")


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
