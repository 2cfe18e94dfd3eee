"""The ports between stages and the world. Each has a fake in `pipeline.testing` and one conformance suite.

    Source   gives frames            file, folder, video, camera | Kafka
    Infer    answers with predictions  in process | Triton
    Sink     takes results           folder | Kafka

Nobody patches: a test that needs a port takes the fake.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dapo.inspection import Prediction, Verdict


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it arrived, undecoded.

    Attributes:
        frame_id: unique and stable inside `source`; a path relative to its root, or "name#000123" of a video.
        source: where it came from, as a URI.
        data: encoded image; empty where `pixels` is given or `error` is set.
        pixels: uint8 [H, W, 3] RGB, from sources that decode themselves (video, camera).
        captured_at: UTC.
        error: (code, message) where the source met the frame but could not read it; it becomes a Failed result.
    """

    frame_id: str
    source: str
    captured_at: datetime
    data: bytes = b""
    pixels: NDArray[np.uint8] | None = None
    content_type: str = ""
    product_id: str = "*"
    camera_id: str = ""
    sequence: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    error: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One frame's outcome: exactly one per frame. `verdict` is None where the frame failed (`error` says why)."""

    frame: Frame
    verdict: Verdict | None
    error: tuple[str, str, str] | None  # stage, code, message
    image_width: int
    image_height: int
    image_sha256: str
    pixels: NDArray[np.uint8] | None  # for overlays; sinks must not keep it
    started_at: datetime
    finished_at: datetime
    decode_ms: float
    infer_ms: float
    judge_ms: float


class Source(Protocol):
    """Gives frames in a stable order.

    Iterating may block (a camera waits for its next frame) and reads one frame at a time: memory does not grow with
    the length of the source. A frame that can't be read is given with `error` set, never skipped. `total` is the number
    of frames where it is known beforehand. `close` may be called at any time, also while another thread iterates.
    """

    total: int | None

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None: ...


class Infer(Protocol):
    """Answers a batch of model inputs, in order.

    `images` is uint8 [B, S, S, 3] RGB at `image_size`; `products` names one product per image. Blocks until all are
    answered. Not thread-safe. The answer of an image does not depend on what else is in the batch beyond float rounding.
    """

    image_size: int
    configuration_hash: str

    def infer(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]: ...

    def close(self) -> None: ...


class Sink(Protocol):
    """Takes results in the order of the source.

    `write` may buffer; after `flush` everything written so far survives a crash. Writing the same frame twice is the
    caller's mistake. `close` flushes and publishes: nothing half-written is ever found under its final name.
    """

    def write(self, result: Result) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...
