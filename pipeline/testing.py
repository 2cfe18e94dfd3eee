"""Fakes of the ports, for tests here and elsewhere: nobody patches.

FakeSource   frames from memory
FakeInfer    anomaly where a cell differs from its image's median: finds bright and dark spots, needs no weights
MemorySink   results in a list
MemoryLog    a group member over a `MemoryBroker`, with commits that fail on demand
MemoryStore  a bucket that can go away, fill up and damage what it gets
FakeServer   a model server that packs are promoted on, which can refuse to load or to switch
"""

from __future__ import annotations

import io
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dapo.errors import DapoError
from dapo.inspection import Prediction
from dapo.pack import EncoderRef, Pack, Product, Scoring, TypeWord
from pipeline.ports import Configuration, Frame, Loss, Message, Partition, Record, Result
from pipeline.store.memory import MemoryStore as MemoryStore

GRID = 8
SIZE = 64
DAY = datetime(2026, 1, 1, tzinfo=UTC)


def surface(seed: int = 0, *, defect: bool = False, width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """A grey surface with grain, uint8 [height, width, 3]; with a dark blot right of its middle."""
    random = np.random.default_rng(seed)
    grey = random.normal(150, 8, (height, width))
    if defect:
        rows, columns = np.ogrid[:height, :width]
        grey[(rows - height / 2) ** 2 + (columns - width * 0.7) ** 2 < (min(height, width) / 6) ** 2] = 20
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def encoded(pixels: NDArray[np.uint8], form: str = "PNG") -> bytes:
    """An image file in memory."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def frame(frame_id: str = "a.png", data: bytes | None = None, **fields: Any) -> Frame:
    """A frame from memory: a good surface unless `data` is given; `fields` are others of `Frame`."""
    body = encoded(surface()) if data is None else data
    return replace(Frame(frame_id, "memory://test", DAY, body), **fields)


def small_pack(*types: str, products: dict[str, Product] | None = None) -> Pack:
    """A pack whose vectors are unit vectors: for `FakeInfer`, which looks at none of them."""
    words = types or ("scratch", "hole")
    width = 4 + len(words)
    rows = np.eye(width, dtype=np.float32)
    own = {"*": Product(types=words), **(products or {})}
    return Pack(
        kind="handwritten",
        encoder=EncoderRef("fake", "none", "0" * 64, SIZE, GRID, width),
        scoring=Scoring(),
        temperature=0.01,
        alpha=0.0,
        readout="eot",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        types=tuple(TypeWord(word, word) for word in words),
        generic_words=("defect",),
        products=own,
        provenance={},
        tensors={"text.normal": rows[0], "text.generic": rows[1], "text.types": rows[2 : 2 + len(words)]},
    )


CONFIGURATION = Configuration.of(small_pack(), "small")


class FakeSource:
    """Gives frames from memory.

    Args:
        frames: any number; may be endless.
        total: number of frames where it is known.
    """

    def __init__(self, frames: Iterable[Frame], total: int | None = None) -> None:
        self._frames = frames
        self._closed = False
        self.total = len(frames) if total is None and isinstance(frames, Sequence) else total

    def __iter__(self) -> Iterator[Frame]:
        for one in self._frames:
            if self._closed:
                return
            yield one

    def close(self) -> None:
        """End the iteration."""
        self._closed = True


class FakeInfer:
    """Anomaly per cell: difference of the cell's mean from the image's median, 0 at 0 and 1 at 60 grey levels.

    Type 0 where the cell is darker, type 1 (where the product has one) where it is brighter. Deterministic.

    Attributes:
        pack: may be set to another one, as a server that is given one: the next call answers with it.
        calls: number of images of each call.
    """

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        self.image_size = pack.encoder.image_size
        self.calls: list[int] = []

    def infer(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]:
        """See `pipeline.ports.Infer`."""
        if len(images) != len(products):
            raise ValueError(f"{len(images)} images for {len(products)} products")
        self.calls.append(len(images))
        return [self._one(image, product) for image, product in zip(images, products, strict=True)]

    def close(self) -> None:
        """Nothing to release."""

    def _one(self, image: NDArray[np.uint8], product: str) -> Prediction:
        side = self.image_size // GRID
        cells = image.mean(axis=2).reshape(GRID, side, GRID, side).mean(axis=(1, 3))
        difference = cells - np.median(cells)
        anomaly = np.clip(np.abs(difference) / 60, 0, 1).astype(np.float16)
        count = len(self.pack.product(product).types)
        types = np.where(difference > 0, min(1, max(0, count - 1)), 0).astype(np.uint16)
        weights = np.bincount(types.ravel(), anomaly.ravel().astype(np.float64), count)[:count] + 1e-6
        return Prediction(
            score=float(anomaly.max()),
            map=anomaly,
            type_map=types,
            type_scores=(weights / weights.sum()).astype(np.float32) if count else np.empty(0, np.float32),
        )


class FakeServer:
    """See `pipeline.registry.servers.Server`.

    Attributes:
        packs: configuration hashes of what is loaded.
        serving: of what it answers with; None: nothing.
        broken: of packs that it can't load.
        stuck: of packs that it can't be pointed to.
        asked: (verb, hash) of each call that changed something.
    """

    def __init__(self, name: str = "server", serving: Pack | None = None) -> None:
        self.name = name
        self.serving = None if serving is None else serving.configuration_hash
        self.packs: set[str] = set() if self.serving is None else {self.serving}
        self.broken: set[str] = set()
        self.stuck: set[str] = set()
        self.asked: list[tuple[str, str]] = []

    def served(self) -> set[str]:
        """See the port."""
        return set() if self.serving is None else {self.serving}

    def load(self, pack: Pack, keep: Sequence[Pack]) -> None:
        """See the port."""
        digest = pack.configuration_hash
        if digest in self.broken:
            raise DapoError(f"can't load {digest}.")
        if digest not in self.packs:
            self.asked.append(("load", digest))
            self.packs = {digest, *(one.configuration_hash for one in keep)}

    def serve(self, pack: Pack, keep: Sequence[Pack]) -> None:
        """See the port."""
        digest = pack.configuration_hash
        if digest in self.stuck or digest not in self.packs:
            raise DapoError(f"can't be pointed to {digest}.")
        self.asked.append(("serve", digest))
        self.serving = digest


class MemorySink:
    """Keeps results; pixels are dropped, as every sink must.

    Attributes:
        written: in order.
        durable: number of results that survive a crash.
        closed: `close` was called.
    """

    def __init__(self) -> None:
        self.written: list[Result] = []
        self.durable = 0
        self.closed = False

    def write(self, result: Result) -> None:
        """See `pipeline.ports.Sink`."""
        self.written.append(_without_pixels(result))

    def flush(self) -> None:
        """All written results count as durable."""
        self.durable = len(self.written)

    def close(self) -> None:
        """Flush, and take no more."""
        self.flush()
        self.closed = True


def _without_pixels(result: Result) -> Result:
    return replace(result, pixels=None, frame=replace(result.frame, pixels=None))


class MemoryBroker:
    """Topics in memory, for any number of `MemoryLog`s.

    Attributes:
        topics: name -> partitions, each a list of records that are committed.
        deleted: partition -> first offset that retention has left.
        offsets: (group, partition) -> next offset to read.
    """

    def __init__(self, **partitions: int) -> None:
        self._partitions = {name.replace("_", "."): count for name, count in partitions.items()}
        self.topics: dict[Partition, list[Record]] = {}
        self.deleted: dict[Partition, int] = {}
        self.offsets: dict[tuple[str, Partition], int] = {}
        self.members: dict[str, list[MemoryLog]] = {}
        self.lock = threading.RLock()

    def partitions(self, topic: str) -> list[Partition]:
        return [(topic, number) for number in range(self._partitions.get(topic, 1))]

    def write(self, message: Message) -> None:
        """Append one message; a key always lands in the same partition."""
        with self.lock:
            places = self.partitions(message.topic)
            at = places[zlib.crc32(message.key or b"") % len(places)]
            records = self.topics.setdefault(at, [])
            records.append(Record(*at, len(records), message.key, message.value, message.headers, DAY))

    def read(self, topic: str) -> list[Record]:
        """All committed records of a topic, partition by partition."""
        with self.lock:
            return [record for at in self.partitions(topic) for record in self.topics.get(at, [])]

    def share(self, group: str) -> None:
        """Deal the partitions out anew, as a rebalance does."""
        members = self.members.get(group, [])
        for number, member in enumerate(members):
            member.assigned(self.partitions(member.topic)[number :: len(members)])


class MemoryLog:
    """The Log port over a `MemoryBroker`.

    Attributes:
        failing: this many next commits are undone, as by a broker that went away.
        moving: while this many next commits are carried out the group moves, and gives the same partitions again.
    """

    def __init__(self, broker: MemoryBroker, topic: str, group: str = "test") -> None:
        self.epoch = 0
        self.losses: list[Loss] = []
        self.topic = topic
        self.failing = 0
        self.moving = 0
        self._broker, self._group = broker, group
        self._positions: dict[Partition, int] = {}
        self._paused = False
        with broker.lock:
            broker.members.setdefault(group, []).append(self)
            broker.share(group)

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """The group gave this member other partitions."""
        self.epoch += 1
        self._start_over(partitions)

    def _start_over(self, partitions: Iterable[Partition]) -> None:
        self._positions = {at: self._broker.offsets.get((self._group, at), 0) for at in partitions}

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        """See `pipeline.ports.Log`."""
        found: list[Record] = []
        with self._broker.lock:
            for at, position in list(self._positions.items()):
                start = self._broker.deleted.get(at, 0)
                if position < start:
                    self.losses.append(Loss(*at, position, start))
                    self._positions[at] = position = start
                if not self._paused:
                    taken = self._broker.topics.get(at, [])[position : position + max_records - len(found)]
                    self._positions[at] += len(taken)
                    found += taken
        if not found:
            time.sleep(min(timeout_s, 0.005))
        return found

    def commit(self, messages: Sequence[Message], consumed: Mapping[Partition, int]) -> bool:
        """See `pipeline.ports.Log`."""
        with self._broker.lock:
            if self.failing or not set(consumed) <= set(self._positions):
                self.failing = max(0, self.failing - 1)
                self.epoch += 1
                self._start_over(list(self._positions))
                return False
            for message in messages:
                self._broker.write(message)
            for at, offset in consumed.items():
                self._broker.offsets[(self._group, at)] = offset
            if self.moving:
                self.moving -= 1
                self.assigned(list(self._positions))
            return True

    def pause(self) -> None:
        """See `pipeline.ports.Log`."""
        self._paused = True

    def resume(self) -> None:
        """See `pipeline.ports.Log`."""
        self._paused = False

    def lag(self) -> int | None:
        """See `pipeline.ports.Log`."""
        with self._broker.lock:
            return sum(
                len(self._broker.topics.get(at, [])) - position for at, position in self._positions.items()
            )

    def close(self) -> None:
        """Leave the group."""
        with self._broker.lock:
            members = self._broker.members[self._group]
            if self in members:
                members.remove(self)
                self._positions = {}
                self._broker.share(self._group)
