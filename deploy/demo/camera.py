"""A simulated camera on the frames topic, until SIGTERM: python -m deploy.demo.camera --camera cam-1 --product steel-sheet

It behaves like a real one: it has no past, so after a restart it goes on with the surface of the moment, and its
`sequence` goes on too. Its frames are marked as simulated.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import cv2
import numpy as np

from dapo.errors import DapoError
from deploy.demo.products import PRODUCTS, Product, draw
from pipeline.cli import terminal
from pipeline.cli.worker import stopped_by_signals
from pipeline.kafka.outlet import KafkaOutlet
from pipeline.ports import Frame
from pipeline.settings import load
from pipeline.stream.feed import Feeder, Tags
from pipeline.stream.topics import Topics

_STOP_S = 10.0


class SimulatedCamera:
    """Procedural surfaces of a product without end; see `pipeline.ports.Source`.

    Args:
        defective: share of frames with a defect.
        seed: None: other surfaces with each start.
    """

    total: int | None = None

    def __init__(self, camera: str, product: Product, defective: float, seed: int | None = None) -> None:
        self.uri = f"simulated:{camera}"
        self._product, self._defective = product, defective
        self._rng = np.random.default_rng(seed)
        self._run = uuid.uuid4().hex[:12]  # frames of an earlier start are other frames
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        for index in itertools.count():
            if self._closed.is_set():
                return
            defective = bool(self._rng.random() < self._defective)
            picture = draw(self._product, self._rng, defective=defective)
            encoded = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
            name = f"{self._run}-{index:08d}.png"
            yield Frame(name, self.uri, datetime.now(UTC), encoded, content_type="image/png")

    def close(self) -> None:
        """End after the surface that is being drawn."""
        self._closed.set()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--camera", required=True)
    parser.add_argument("--product", choices=sorted(PRODUCTS), required=True)
    parser.add_argument("--line", default="demo")
    parser.add_argument("--rate", type=float, default=2.0, help="frames per second")
    parser.add_argument("--defective", type=float, default=0.2, help="share of frames with a defect")
    options = parser.parse_args()
    try:
        feed(options.camera, PRODUCTS[options.product], options.line, options.rate, options.defective)
    except DapoError as error:
        sys.exit(f"error: {error}")


def feed(camera: str, product: Product, line: str, rate: float, defective: float) -> None:
    """Feed until SIGTERM; a broker that is away is waited for.

    Raises:
        SettingsError, LogRefused: what can't be mended by waiting.
    """
    settings, stop = load().settings, threading.Event()
    topics = Topics(settings.kafka.prefix)
    with stopped_by_signals(stop, _STOP_S):
        outlet = KafkaOutlet(settings.kafka, f"dapo-feed-{camera}", topics.frames, stop)
        try:
            terminal.errors().print(f"{camera}: {product.name}, {rate:g} frames/s")
            feeder = Feeder(
                outlet, topics.frames, Tags(camera, product.name, line, simulated=True), rate=rate
            )
            fed = feeder.run(SimulatedCamera(camera, product, defective), stop, live=True)
        finally:
            outlet.close()
    print(f"{fed.frames} frames fed to {topics.frames}")


if __name__ == "__main__":
    main()
