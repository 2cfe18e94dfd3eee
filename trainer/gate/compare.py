"""Champion and challenger on the same frames, as production judges them: tiles, regions and thresholds of each pack."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dapo.errors import ServiceUnavailable, SourceError
from dapo.inspection import Verdict
from dapo.model import ImageFeatures
from dapo.pack import Pack
from dapo.packing import load_pack_encoder
from dapo.predictor import Predictor
from pipeline.infer import InProcessInfer
from pipeline.inspect import Inspector, Preparer
from pipeline.ports import Frame, Result
from pipeline.settings import ModelSettings
from trainer.data.sample import Sample

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compared:
    """One frame under both packs.

    Attributes:
        embedding: float32 [D], its image feature under the champion, mean over its tiles; None where its picture can't be
            used (black, blurred, ...), whoever looks at it: then both verdicts are NotDecidable, without a score.
    """

    sample: Sample
    champion: Verdict
    challenger: Verdict
    embedding: NDArray[np.float32] | None

    @property
    def changed(self) -> bool:
        """Whether the challenger says something else."""
        return self.champion.evaluation is not self.challenger.evaluation


class Pair:
    """Both packs, ready to inspect. Packs with one image side run it once.

    Args:
        model: where and how the encoder runs.
        batch: model inputs per call.

    Raises:
        EncoderMismatch, WeightsNotFound, SettingsError: see `Predictor`.
    """

    def __init__(self, champion: Pack, challenger: Pack, model: ModelSettings, batch: int = 8) -> None:
        options: dict[str, Any] = {
            "device": model.device,
            "threads": model.threads,
            "runtime": model.runtime,
            "batch": batch,
        }
        encoder = load_pack_encoder(champion, model.weights)
        self._first = _Watched(champion, encoder=encoder, **options)
        twin = self._first if champion.features_hash == challenger.features_hash else None
        if challenger.encoder != champion.encoder:
            encoder = load_pack_encoder(challenger, model.weights)
        second = _Watched(challenger, twin=twin, encoder=encoder, **options)
        second.seen = deque(maxlen=0)  # nobody takes them
        self._infers = [
            InProcessInfer(pack, batch=batch, predictor=predictor)
            for pack, predictor in ((champion, self._first), (challenger, second))
        ]
        self._batch = batch

    def frames(
        self, samples: Iterable[Sample], skip: Callable[[Sample, SourceError], None] | None = None
    ) -> Iterator[Compared]:
        """Inspect frames, in order. One call at a time; memory does not grow with their number.

        Args:
            skip: told of a frame that can't be read or decoded, which is left out; None: it is an error.

        Raises:
            SourceError: a frame can't be read, decoded or judged.
        """
        sides = [_Side(infer, self._batch) for infer in self._infers]
        self._first.seen.clear()
        waiting: deque[Sample] = deque()
        for sample in samples:
            try:
                pixels = sample.image()
            except SourceError as error:
                if skip is None:
                    raise
                skip(sample, error)
                continue
            waiting.append(sample)
            frame = Frame(
                frame_id=sample.key,
                source="gate",
                captured_at=datetime.now(UTC),
                pixels=pixels,
                product_id=sample.product,
            )
            for side in sides:
                side.take(frame)
            yield from self._ready(waiting, *sides)
        for side in sides:
            side.finish()
        yield from self._ready(waiting, *sides)

    def _ready(self, waiting: deque[Sample], first: _Side, second: _Side) -> Iterator[Compared]:
        while first.results and second.results:
            sample, (champion, inputs), (challenger, _) = (
                waiting.popleft(),
                first.results.popleft(),
                second.results.popleft(),
            )
            seen = [self._first.seen.popleft() for _ in range(inputs)]
            embedding = np.mean(seen, 0) if seen else None
            yield Compared(sample, _verdict(champion), _verdict(challenger), embedding)


def left_out(sample: Sample, why: SourceError) -> None:
    """Tell of a frame that can't be read: pruned or damaged since it was listed.

    Raises:
        SourceError: it is not the frame, its store is away.
    """
    if isinstance(why.__cause__, ServiceUnavailable):
        raise why
    _LOG.warning("frame %s is left out: %s", sample.key, why)


class _Side:
    """One pack at work, as in a worker.

    Attributes:
        results: with the number of model inputs of each, in the order of the frames.
    """

    def __init__(self, infer: InProcessInfer, batch: int) -> None:
        self._preparer, self._inspector = Preparer(infer), Inspector(infer, batch=batch)
        self._inputs: deque[int] = deque()
        self.results: deque[tuple[Result, int]] = deque()

    def take(self, frame: Frame) -> None:
        """Inspect one frame; results come when a batch is full."""
        prepared = self._preparer.prepare(frame, sha256="")
        self._inputs.append(len(prepared.inputs))
        self._add(self._inspector.add(prepared))

    def finish(self) -> None:
        """Give what waits for a full batch."""
        self._add(self._inspector.flush())

    def _add(self, results: Iterator[Result]) -> None:
        self.results.extend((result, self._inputs.popleft()) for result in results)


class _Watched(Predictor):
    """A predictor whose image features are seen.

    Args:
        twin: of a pack with the same image side, which is asked for the features: it has just made them.

    Attributes:
        seen: CLS of each input that was inspected, float32 [D], until somebody takes it.
    """

    def __init__(self, pack: Pack, *, twin: _Watched | None = None, **options: Any) -> None:
        super().__init__(pack, **options)
        self._twin = twin
        self._last: tuple[NDArray[np.uint8], ImageFeatures] | None = None
        self.seen: deque[NDArray[np.float32]] = deque()

    def features(self, images: NDArray[np.uint8]) -> ImageFeatures:
        """See `Predictor.features`."""
        found = (self._twin or self)._remembered(images)
        self.seen.extend(found.cls.float().cpu().numpy())
        return found

    def _remembered(self, images: NDArray[np.uint8]) -> ImageFeatures:
        if self._last is None or not np.array_equal(self._last[0], images):
            self._last = images, super().features(images)
        return self._last[1]


def _verdict(result: Result) -> Verdict:
    if result.verdict is None:
        _, _, message = result.error or ("", "", "not inspected")
        raise SourceError(f"{result.frame.frame_id}: {message}")
    return result.verdict
