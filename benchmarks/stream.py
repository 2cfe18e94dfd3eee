"""What the stream costs: the whole path beside a bare loop, in turns, in one run.

python -m benchmarks.stream --model null    Kafka path against a bare consume-produce loop of kafka-python: frames of
                                            200 KB, no decoding on either side, acks=all, gzip, the same Arrow bytes
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from kafka import KafkaConsumer, KafkaProducer
from rich.console import Console
from rich.table import Table

from dapo.inspection import Evaluation, Verdict
from deploy.native.kafka import KafkaServer
from pipeline.kafka.connect import connection, producing, reading
from pipeline.kafka.log import KafkaLog
from pipeline.kafka.topics import TopicAdmin
from pipeline.ports import Frame, Message, Record, Result
from pipeline.rows import Configuration
from pipeline.settings import KafkaSettings
from pipeline.stream.frames import write_frame
from pipeline.stream.inbox import Inbox
from pipeline.stream.ledger import Ledger
from pipeline.stream.metrics import Metrics
from pipeline.stream.retention import Needs, plan
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import Teller
from pipeline.stream.worker import Limits, Worker
from pipeline.testing import small_pack

FRAME_BYTES = 200_000
CAMERAS = 8
PARTITIONS = 4
BATCH = 100  # results of one transaction, and of one flush and commit of the bare loop
_OK = Verdict(Evaluation.OK, "", "", 0.1, 0.3, 0.6, ())
_WAIT_S = 120.0


def null_stages(inbox: Inbox) -> Iterator[tuple[int, Result]]:
    """Stages that look at nothing: every frame is OK."""
    while (waiting := inbox.get(wait=True)) is not None:
        now = datetime.now(UTC)
        yield waiting.epoch, Result(waiting.frame, _OK, None, 0, 0, "", None, now, now, 0.0, 0.0, 0.0)


def fill(settings: KafkaSettings, topics: Topics, count: int) -> None:
    """Put frames of random bytes on the topic; random, so that no compression helps either side."""
    producer = KafkaProducer(
        **connection(settings, "fill"),
        **producing(settings.max_message_bytes),
        batch_size=1 << 20,
        linger_ms=5,
    )
    for number in range(count):
        frame = Frame(
            f"{number}",
            "bench",
            datetime.now(UTC),
            os.urandom(FRAME_BYTES),
            camera_id=f"camera-{number % CAMERAS}",
        )
        message = write_frame(frame, topics.frames)
        producer.send(message.topic, message.value, key=message.key, headers=list(message.headers))
    producer.flush()
    producer.close()


def bare(settings: KafkaSettings, topics: Topics, count: int, row: Message) -> float:
    """Frames per second of the shortest program that does it: poll, send, and for every hundred flush and commit."""
    group = f"bare-{uuid.uuid4().hex[:8]}"
    consumer = KafkaConsumer(
        topics.frames,
        **connection(settings, group),
        **{**reading(settings.max_message_bytes), "auto_offset_reset": "earliest"},
        group_id=group,
        fetch_max_bytes=32 * 2**20,
    )
    producer = KafkaProducer(
        **connection(settings, group),
        **producing(settings.max_message_bytes),
        compression_type="gzip",
        linger_ms=5,
        batch_size=256 * 1024,
    )
    consumer.poll(1)
    seen, begun = 0, 0.0
    while seen < count:
        for records in consumer.poll(200, max_records=100).values():
            begun = begun or time.perf_counter()
            for record in records:
                producer.send(row.topic, row.value, key=record.key, headers=list(row.headers))
                seen += 1
                if seen % BATCH == 0:
                    producer.flush()
                    consumer.commit()
    producer.flush()
    consumer.commit()
    took = time.perf_counter() - begun
    consumer.close()
    producer.close()
    return count / took


def streamed(settings: KafkaSettings, topics: Topics, count: int) -> float:
    """Frames per second of the worker as it is, but for the model: exactly once, with ledger and metrics."""
    group, stop = f"worker-{uuid.uuid4().hex[:8]}", threading.Event()
    watcher = _Watch(count, stop)
    pack = small_pack()
    teller = Teller(topics, Configuration.of(pack, "null"))
    log = KafkaLog(settings, topics.frames, group, "0")
    limits = Limits(max_frames=2 * BATCH, transaction_frames=BATCH)
    worker = Worker(log, null_stages, teller.tell, watcher, limits=limits, stop=stop)
    threading.Timer(_WAIT_S, stop.set).start()
    worker.run()
    if watcher.done < count:
        raise SystemExit(f"only {watcher.done} of {count} frames in {_WAIT_S:.0f} s")
    return count / (watcher.ended - watcher.begun)


class _Watch(Ledger):
    """The worker's own ledger, which also stops it after the last frame."""

    def __init__(self, count: int, stop: threading.Event) -> None:
        super().__init__(Metrics(), worker_id="bench", configuration_hash="")
        self.done, self.begun, self.ended = 0, 0.0, 0.0
        self._count, self._stop = count, stop

    def read(self, record: Record) -> None:
        self.begun = self.begun or time.perf_counter()
        super().read(record)

    def published(self, told) -> None:  # type: ignore[no-untyped-def]
        super().published(told)
        self.done += 1
        if self.done == self._count:
            self.ended = time.perf_counter()
            self._stop.set()


def null(count: int, rounds: int) -> dict[str, object]:
    """Both sides in turns on one broker."""
    with tempfile.TemporaryDirectory() as folder, KafkaServer(Path(folder) / "kafka") as kafka:
        settings, topics = KafkaSettings(bootstrap=kafka.bootstrap), Topics("bench")
        admin = TopicAdmin(settings)
        admin.create(plan(topics, small_pack(), Needs(partitions=PARTITIONS, single_broker=True)))
        admin.close()
        fill(settings, topics, count)
        now = datetime.now(UTC)
        frame = replace(_frame_of(), camera_id="camera-0")
        result = Result(frame, _OK, None, 0, 0, "", None, now, now, 0.0, 0.0, 0.0)
        row = Teller(topics, Configuration.of(small_pack(), "null")).tell(result).messages[0]
        pairs = []
        for _ in range(rounds):
            pairs.append((bare(settings, topics, count, row), streamed(settings, topics, count)))
    ratios = [ours / theirs for theirs, ours in pairs]
    table = Table("round", "bare loop, frames/s", "worker, frames/s", "ratio", box=None)
    for number, (theirs, ours) in enumerate(pairs, 1):
        table.add_row(str(number), f"{theirs:.0f}", f"{ours:.0f}", f"{ours / theirs:.2f}")
    Console().print(table)
    return {
        "model": "null",
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(one, 3) for one in ratios],
        "bare_per_s": round(statistics.median(theirs for theirs, _ in pairs), 1),
        "worker_per_s": round(statistics.median(ours for _, ours in pairs), 1),
        "frames": count,
        "frame_bytes": FRAME_BYTES,
    }


def _frame_of() -> Frame:
    record = Record("bench.frames", 0, 0, b"camera-0", b"", (), datetime.now(UTC))
    return Frame("0", "bench", datetime.now(UTC), record=record)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["null"], default="null")
    parser.add_argument("--frames", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(json.dumps(null(options.frames, options.rounds)))


if __name__ == "__main__":
    main()
