"""The stages of one frame: decode, infer, judge. The same for a folder and for a stream.

`Preparer` decodes and cuts (it may run in a thread of its own); `Inspector` infers in batches and judges, in order.
Both are bounded: a frame's pixels are dropped with its result.

The pack is a property of the answer: a model may answer with another one from some call on. A frame is of one pack all the
same: what was cut for or answered under the one before is cut and asked again. In the order of frames packs change once.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from dapo.errors import FrameError
from dapo.inspection import Evaluation, Prediction, Verdict
from dapo.judge import judge
from dapo.pack import Pack, Polygon, Tiles
from dapo.preprocess import resize
from dapo.quality import FROZEN_AFTER, FrozenDetector, defects_of_picture
from dapo.tiles import Window, merge, windows
from pipeline.decode import DecodedImage, Limits, check_pixels, decode
from pipeline.ports import Configuration, Frame, Infer, Partition, Result

_LOG = logging.getLogger(__name__)
_MAX_CAMERAS = 1000  # watched for a standing picture: names come from outside, one a shot where a sender errs
_MAX_WAITING_BYTES = 512 * 2**20  # of pixels that wait for a full batch: five frames of 30 MP


@dataclass(slots=True)
class Prepared:
    """A frame ready for the model, or already known to need none.

    Attributes:
        sha256: of the encoded bytes, or of the pixels where the source decodes; "" where nothing was read.
        pixels: uint8 [H, W, 3], None where the frame failed.
        parts: windows of the frame, in px.
        inputs: uint8 [len(parts), S, S, 3]; empty where nothing is inferred.
        cut: tiles and regions that it was cut by; None where nothing is inferred.
        picture: (reason code, reason) where the picture itself is not usable.
        error: (stage, code, message) where the frame failed.
    """

    frame: Frame
    sha256: str
    started_at: datetime
    decode_ms: float = 0.0
    pixels: NDArray[np.uint8] | None = None
    parts: list[Window] = field(default_factory=list)
    inputs: list[NDArray[np.uint8]] = field(default_factory=list)
    cut: tuple[Tiles | None, tuple[Polygon, ...]] | None = None
    picture: tuple[str, str] | None = None
    error: tuple[str, str, str] | None = None

    @property
    def weight(self) -> int:
        """Bytes it holds."""
        pixels = 0 if self.pixels is None else self.pixels.nbytes
        return pixels + len(self.frame.data) + sum(one.nbytes for one in self.inputs)


def cut_for(pack: Pack, prepared: Prepared) -> bool:
    """Cut a frame into model inputs as a pack says, unless it is cut so or needs none; whether it was cut."""
    product = pack.product(prepared.frame.product_id)
    wanted = (product.tiles, product.roi)
    if prepared.pixels is None or prepared.picture or prepared.error or prepared.cut == wanted:
        return False
    height, width = prepared.pixels.shape[:2]
    prepared.parts = windows(width, height, *wanted)
    prepared.inputs = [resize(part.cut(prepared.pixels), pack.encoder.image_size) for part in prepared.parts]
    prepared.cut = wanted
    return True


def content_hash(frame: Frame) -> str:
    """SHA-256 hex of what arrived; "" where nothing did."""
    if frame.pixels is not None:
        shape = f"{list(frame.pixels.shape)}".encode()
        return hashlib.sha256(shape + np.ascontiguousarray(frame.pixels).tobytes()).hexdigest()
    return hashlib.sha256(frame.data).hexdigest() if frame.data or frame.error is None else ""


class Preparer:
    """Decodes frames, checks the picture and cuts it into model inputs.

    Args:
        infer: the model that will be asked: its pack says how a frame is cut.
        limits: checked before decoding.
    """

    def __init__(self, infer: Infer, limits: Limits | None = None) -> None:
        self._infer = infer
        self._limits = limits or Limits()
        self._frozen: OrderedDict[str, FrozenDetector] = OrderedDict()  # the camera seen last is last
        self._read: dict[Partition, int] = {}  # offset of the last frame that was looked at
        self._passed: dict[str, deque[Frame]] = {}

    def passed_over(self, frame: Frame) -> None:
        """A readable frame that is not prepared because its result is known: a frozen camera is noticed across it too.

        Only the last few of a camera are held, undecoded; those of a video are let go when the next begins.
        """
        self._passed = {
            camera: held for camera, held in self._passed.items() if camera in ("", frame.camera_id)
        }
        self._passed.setdefault(frame.camera_id, deque(maxlen=FROZEN_AFTER)).append(frame)

    def prepare(self, frame: Frame, sha256: str | None = None) -> Prepared:
        """Decode and cut one frame. Never raises for what is wrong with the frame."""
        for earlier in self._passed.pop(frame.camera_id, ()):
            self._frozen_check(earlier, self._decode(earlier).pixels)
        prepared = Prepared(frame, content_hash(frame) if sha256 is None else sha256, datetime.now(UTC))
        begun = time.perf_counter()
        if frame.error is not None:
            prepared.error = ("read", *frame.error)
            return prepared
        try:
            image = self._decode(frame)
            prepared.pixels = image.pixels
            prepared.picture = self._frozen_check(frame, image.pixels) or defects_of_picture(image.pixels)
            cut_for(self._infer.pack, prepared)
        except FrameError as error:
            prepared.error = ("decode", error.code, str(error))
        prepared.decode_ms = (time.perf_counter() - begun) * 1000
        return prepared

    def _decode(self, frame: Frame) -> DecodedImage:
        if frame.pixels is None:
            return decode(frame.data, self._limits)
        height, width = frame.pixels.shape[:2]
        check_pixels(width, height, self._limits)
        return DecodedImage(frame.pixels, width, height, "")

    def _frozen_check(self, frame: Frame, pixels: NDArray[np.uint8]) -> tuple[str, str] | None:
        detector = self._frozen.setdefault(frame.camera_id, FrozenDetector())
        self._frozen.move_to_end(frame.camera_id)
        if len(self._frozen) > _MAX_CAMERAS:
            self._frozen.popitem(last=False)
        if self._read_again(frame):
            # Asked, but not told: the frame was counted when it was read first.
            detector = copy.copy(detector)
        return detector.check(pixels)

    def _read_again(self, frame: Frame) -> bool:
        if frame.record is None:
            return False
        at = (frame.record.topic, frame.record.partition)
        last = self._read.get(at, -1)
        self._read[at] = max(last, frame.record.offset)
        return frame.record.offset <= last


@dataclass(slots=True)
class Inferred:
    """A frame and what the model said of each of its inputs.

    Attributes:
        pack: that all predictions come from; of a frame without inputs, the one in force; None before that is known.
        infer_ms: its share of the model's time.
    """

    prepared: Prepared
    predictions: list[Prediction] = field(default_factory=list)
    pack: Pack | None = None
    infer_ms: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether all of its inputs are answered."""
        return len(self.predictions) == len(self.prepared.inputs)


class Inspector:
    """Infers full batches over the borders of frames, judges, and gives results in the order frames came.

    `take` and `rest` infer, `judge` judges: who has a thread for each keeps the model busy. `add` and `flush` do both.

    Args:
        infer: the model; each frame is judged by the pack that its predictions come from.
        batch: model inputs per call.
        live: answer each frame at once instead of waiting for a full batch.
        pack_name: what rows call the pack; none: by its hash.

    Example:
        for prepared in frames:
            yield from inspector.add(prepared)
        yield from inspector.flush()
    """

    def __init__(self, infer: Infer, *, batch: int = 8, live: bool = False, pack_name: str = "") -> None:
        self._infer = infer
        self._pack = infer.pack  # of the last answer
        self._batch = batch
        self._live = live
        self._pack_name = pack_name
        self._waiting: deque[Inferred] = deque()
        self._inputs: deque[tuple[NDArray[np.uint8], Inferred]] = deque()

    def add(self, prepared: Prepared) -> Iterator[Result]:
        """Take one frame; give the results that are ready."""
        yield from map(self.judge, self.take(prepared))

    def flush(self) -> Iterator[Result]:
        """Give all results that are left."""
        yield from map(self.judge, self.rest())

    def take(self, prepared: Prepared) -> Iterator[Inferred]:
        """Take one frame; give those that can be judged."""
        cut_for(self._pack, prepared)  # it may have been cut before the pack changed
        waiting = Inferred(prepared)
        self._waiting.append(waiting)
        self._inputs.extend((one, waiting) for one in prepared.inputs)
        while len(self._inputs) >= self._batch:
            self._run()
            yield from self._ready()
        # Many failed frames behind one that waits for its batch, or very large ones, must not pile up.
        if (
            self._live
            or len(self._waiting) > 4 * self._batch
            or sum(one.prepared.weight for one in self._waiting) > _MAX_WAITING_BYTES
        ):
            yield from self.rest()
        else:
            yield from self._ready()

    def rest(self) -> Iterator[Inferred]:
        """Infer what waits for a full batch; give all frames that are left."""
        while self._inputs:
            self._run()
            yield from self._ready()
        yield from self._ready()

    def _run(self) -> None:
        """Ask for the inputs that have waited longest, a batch at most."""
        count = min(self._batch, len(self._inputs))
        taken = [self._inputs.popleft() for _ in range(count)]
        begun = time.perf_counter()
        products = [waiting.prepared.frame.product_id for _, waiting in taken]
        predictions = self._infer.infer(np.stack([one for one, _ in taken]), products)
        each = (time.perf_counter() - begun) * 1000 / count
        for (_, waiting), prediction in zip(taken, predictions, strict=True):
            waiting.predictions.append(prediction)
            waiting.pack = waiting.pack or self._infer.pack
            waiting.infer_ms += each
        if self._infer.pack is not self._pack:
            self._pack = self._infer.pack
            self._start_over()

    def _start_over(self) -> None:
        """Another pack has answered: what was cut for or answered under the one before is asked again, all of it."""
        for waiting in self._waiting:
            if cut_for(self._pack, waiting.prepared) or waiting.pack is not self._pack:
                waiting.predictions.clear()
                waiting.pack = None
        self._inputs = deque(
            (one, waiting)
            for waiting in self._waiting
            for one in waiting.prepared.inputs[len(waiting.predictions) :]
        )

    def _ready(self) -> Iterator[Inferred]:
        while self._waiting and self._waiting[0].complete:
            one = self._waiting.popleft()
            one.pack = one.pack or self._pack
            yield one

    def judge(self, inferred: Inferred) -> Result:
        """The result of one frame; may run in another thread than the model does."""
        prepared, pack = inferred.prepared, inferred.pack
        assert pack is not None  # a frame that can be judged has one
        begun = time.perf_counter()
        verdict, error = None, prepared.error
        if error is None:
            try:
                verdict = _verdict(prepared, inferred.predictions, pack)
            except Exception as problem:  # one frame must not stop a shift: it goes to the dead letters
                _LOG.exception("frame %s can't be judged", prepared.frame.frame_id)
                text = f"The frame can't be judged ({type(problem).__name__}: {problem}). Report this with the frame."
                error = ("judge", "internal", text)
        height, width = (0, 0) if prepared.pixels is None else prepared.pixels.shape[:2]
        return Result(
            frame=prepared.frame,
            verdict=verdict,
            error=error,
            image_width=width,
            image_height=height,
            image_sha256=prepared.sha256,
            pixels=prepared.pixels,
            started_at=prepared.started_at,
            finished_at=datetime.now(UTC),
            decode_ms=prepared.decode_ms,
            infer_ms=inferred.infer_ms,
            judge_ms=(time.perf_counter() - begun) * 1000,
            configuration=Configuration.of(pack, self._pack_name),
        )


def _verdict(prepared: Prepared, predictions: list[Prediction], pack: Pack) -> Verdict:
    product = pack.product(prepared.frame.product_id)
    if prepared.picture is not None:
        code, reason = prepared.picture
        limits = (product.threshold_ok, product.threshold_notok)
        return Verdict(Evaluation.NOT_DECIDABLE, code, reason, float("nan"), *limits, ())
    assert prepared.pixels is not None
    height, width = prepared.pixels.shape[:2]
    return judge(merge(predictions, prepared.parts, width, height), product, width, height)
