"""Memory of a worker at full rate for half an hour: python -m benchmarks.soak --minutes 30

A worker process with a model that looks at nothing takes frames as fast as it can from a real broker; this process keeps
some in front of it. Its resident memory is sampled; printed are the median of each tenth, and the slope of a line fitted
through the second half. Look at both: memory that is taken in steps shows in the tenths, steady growth in the slope.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import CoordinatorNotAvailableError
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.common import report
from benchmarks.memory import resident_mb
from benchmarks.stream import BATCH, CAMERAS, null_stages
from deploy.native import KafkaServer
from pipeline.kafka.connect import connection, producing
from pipeline.kafka.log import KafkaLog
from pipeline.kafka.topics import TopicAdmin
from pipeline.ports import Frame
from pipeline.settings import KafkaSettings
from pipeline.stream.frames import write_frame
from pipeline.stream.ledger import Ledger
from pipeline.stream.metrics import Metrics
from pipeline.stream.retention import Needs, plan
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import Teller
from pipeline.stream.worker import Limits, Worker
from pipeline.testing import small_pack

_GROUP = "soak"
_AHEAD = 4000  # frames kept in front of the worker
_BROKER = {"log.retention.check.interval.ms": 5000, "log.segment.delete.delay.ms": 1000}
_KEPT = {
    "retention.bytes": str(256 * 2**20),
    "segment.bytes": str(64 * 2**20),
}  # of a partition: hours would fill a disk


def work(bootstrap: str) -> None:
    """The worker; ends with SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings, topics = KafkaSettings(bootstrap=bootstrap, prefix=_GROUP), Topics(_GROUP)
    teller = Teller(topics)
    log = KafkaLog(settings, topics.frames, _GROUP, "0")
    ledger = Ledger(Metrics(), worker_id="soak", configuration_hash="")
    limits = Limits(max_frames=2 * BATCH, transaction_frames=BATCH)
    Worker(log, null_stages, teller.tell, ledger, limits=limits, stop=stop).run()


class Progressed:
    """How far the group is."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._admin = KafkaAdminClient(**connection(settings, "soak-backlog"))
        self._done = 0

    def done(self) -> int:
        """Frames that the group has committed."""
        with suppress(CoordinatorNotAvailableError):  # of a group that has just begun
            offsets = self._admin.list_group_offsets(_GROUP)
            self._done = sum(max(0, one.offset) for one in offsets[_GROUP].values())
        return self._done

    def close(self) -> None:
        self._admin.close()


def soak(minutes: float, frame_bytes: int) -> dict[str, object]:
    """Run it; what the last line prints."""
    with (
        tempfile.TemporaryDirectory() as folder,
        KafkaServer(Path(folder) / "kafka", settings=_BROKER) as kafka,
    ):
        settings, topics = KafkaSettings(bootstrap=kafka.bootstrap, prefix=_GROUP), Topics(_GROUP)
        admin = TopicAdmin(settings)
        wanted = plan(topics, small_pack(), Needs(partitions=4, single_broker=True))
        admin.create([replace(one, config={**one.config, **_KEPT}) for one in wanted])
        admin.close()
        worker = multiprocessing.get_context("spawn").Process(target=work, args=(kafka.bootstrap,))
        worker.start()
        try:
            return _watched(worker, settings, topics, minutes, frame_bytes)
        finally:
            worker.terminate()
            worker.join(30)


def _watched(
    worker: multiprocessing.process.BaseProcess,
    settings: KafkaSettings,
    topics: Topics,
    minutes: float,
    size: int,
) -> dict[str, object]:
    producer = KafkaProducer(
        **connection(settings, "soak-fill"),
        **producing(settings.max_message_bytes),
        batch_size=2**20,
        linger_ms=5,
    )
    backlog, picture = Progressed(settings), os.urandom(size)
    sent, samples, begun = 0, list[tuple[float, float]](), time.monotonic()
    columns = (TextColumn("soak {task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("", total=minutes * 60)
        while (now := time.monotonic() - begun) < minutes * 60:
            memory = resident_mb(worker.pid or 0)
            if memory is None or not worker.is_alive():
                raise SystemExit(f"the worker ended after {now:.0f} s")
            done = backlog.done()
            samples.append((now, memory))
            progress.update(task, completed=now, description=f"{done} frames, {memory:.0f} MB")
            for _ in range(max(0, done + _AHEAD - sent)):
                frame = Frame(
                    f"{sent}", "soak", datetime.now(UTC), picture, camera_id=f"camera-{sent % CAMERAS}"
                )
                message = write_frame(frame, topics.frames)
                producer.send(message.topic, message.value, key=message.key, headers=list(message.headers))
                sent += 1
            producer.flush()
            time.sleep(0.2)
        done = backlog.done()
    producer.close()
    backlog.close()
    times, memories = np.array(samples).T
    later = times > times[-1] / 2
    tenths = [float(np.median(part)) for part in np.array_split(memories, 10)]
    slope = float(np.polyfit(times[later], memories[later], 1)[0]) * 3600
    found: dict[str, object] = {
        "minutes": round(float(times[-1]) / 60, 1),
        "frames": done,
        "frames_per_s": round(done / float(times[-1]), 1),
        "frame_bytes": size,
        "mb_by_tenths": [round(one) for one in tenths],
        "peak_mb": round(float(memories.max()), 1),
        "slope_mb_per_hour": round(slope, 2),
    }
    report([found], found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--frame-bytes", type=int, default=20_000)
    options = parser.parse_args()
    soak(options.minutes, options.frame_bytes)


if __name__ == "__main__":
    main()
