"""What the stream costs: the whole path beside a bare loop, in turns, in one run.

python -m benchmarks.stream --model null    Kafka path against a bare consume-produce loop of kafka-python: frames of
                                            200 KB, no decoding on either side, acks=all, gzip, the same Arrow bytes
python -m benchmarks.stream --model tiny    the whole line (Kafka, Triton, archiver, object store) against decode, encoder and
                                            head in one process, the same runtime and threads; latency at 70 % load
python -m benchmarks.stream --model ViT-B-16  the same with random weights
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from rich.console import Console
from rich.table import Table

from dapo.encoder import load_encoder
from dapo.handwritten import make_handwritten_pack
from dapo.inspection import Evaluation, Verdict
from dapo.pack import Pack
from dapo.pack_io import read_pack, write_pack
from deploy.native import KafkaServer, MinioServer, TritonServer
from pipeline.bundled import default_pack_path
from pipeline.infer import InProcessInfer
from pipeline.inspect import Inspector, Preparer
from pipeline.kafka.connect import connection, producing, reading
from pipeline.kafka.log import KafkaLog
from pipeline.kafka.topics import TopicAdmin
from pipeline.ports import Frame, Message, Record, Result
from pipeline.prefetch import prefetch
from pipeline.settings import KafkaSettings
from pipeline.stream.frames import write_frame
from pipeline.stream.inbox import Inbox
from pipeline.stream.ledger import Ledger
from pipeline.stream.metrics import Metrics
from pipeline.stream.retention import Needs, plan
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import Teller, Told
from pipeline.stream.worker import SWITCH_INTERVAL_S, Limits, Worker
from pipeline.testing import CONFIGURATION, encoded, small_pack
from schemas.codec import decode_results
from schemas.results import ResultRow
from triton_models.repository import write_skeleton

FRAME_BYTES = 200_000
CAMERAS = 8
PARTITIONS = 4
BATCH = 100  # results of one transaction, and of one flush and commit of the bare loop
_OK = Verdict(Evaluation.OK, "", "", 0.1, 0.3, 0.6, ())
_WAIT_S = 120.0


def null_stages(inbox: Inbox) -> Iterator[tuple[int, Result]]:
    """Stages that look at nothing: every frame is OK."""
    while (waiting := inbox.get(wait=True)) is not None:
        yield waiting.epoch, _ok(waiting.frame)


def _ok(frame: Frame) -> Result:
    now = datetime.now(UTC)
    return Result(frame, _OK, None, 0, 0, "", None, now, now, 0.0, 0.0, 0.0, CONFIGURATION)


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
    teller = Teller(topics)
    log = KafkaLog(settings, topics.frames, group, "0")
    limits = Limits(max_frames=2 * BATCH, transaction_frames=BATCH)
    worker = Worker(log, null_stages, teller.tell, watcher, limits=limits, stop=stop)
    timer = threading.Timer(_WAIT_S, stop.set)
    timer.start()
    worker.run()
    timer.cancel()  # else the process would outlive its answer
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

    def published(self, told: Told) -> None:
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
        row = Teller(topics).tell(_ok(replace(_frame_of(), camera_id="camera-0"))).messages[0]
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


def photographs(count: int) -> list[bytes]:
    """JPEG photographs of 640 x 480, all different."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(count):
        grain = np.repeat(np.repeat(rng.normal(140, 18, (60, 80, 3)), 8, 0), 8, 1)
        found.append(encoded(np.clip(grain, 0, 255).astype(np.uint8), "JPEG"))
    return found


def pack_of(model: str, folder: Path) -> Path:
    """The bundled pack, or one of hand-written words for an encoder with random weights."""
    if model == "tiny":
        return default_pack_path()
    path = folder / f"{model}.pack"
    write_pack(make_handwritten_pack(load_encoder(model, "random", 224), ["scratch", "hole", "dent"]), path)
    return path


def in_one_process(pack: Pack, infer: InProcessInfer, images: list[bytes], batch: int) -> float:
    """Frames per second of decode, encoder, head and judge, without Kafka or Triton: the stages of `dapo run`."""
    preparer, inspector = Preparer(infer), Inspector(infer, batch=batch)
    frames = [Frame(f"{n}", "bench", datetime.now(UTC), data, camera_id="c") for n, data in enumerate(images)]
    for frame in frames[:batch]:
        list(inspector.add(preparer.prepare(frame)))
    begun, done = time.perf_counter(), 0
    # Decoding runs in a thread of its own beside the model, as in `dapo run`.
    for prepared in prefetch(
        map(preparer.prepare, frames), lambda one: one.weight, max_items=16, max_bytes=2**28
    ):
        done += sum(1 for _ in inspector.add(prepared))
    done += sum(1 for _ in inspector.flush())
    return done / (time.perf_counter() - begun)


class Line:
    """Real servers, an archiver process, and workers one after the other."""

    def __init__(self, folder: Path, held: ExitStack, pack: Path, batch: int, threads: int) -> None:
        self.topics = Topics("bench")
        self.kafka = held.enter_context(KafkaServer(folder / "kafka"))
        models = folder / "models"
        write_skeleton(models)
        self.triton = held.enter_context(TritonServer(folder / "triton", models))
        self.minio = held.enter_context(MinioServer(folder / "minio"))
        self.minio.client().make_bucket("inspection")
        self.settings = KafkaSettings(bootstrap=self.kafka.bootstrap, prefix=self.topics.prefix)
        admin = TopicAdmin(self.settings)
        admin.create(plan(self.topics, read_pack(pack), Needs(partitions=2, single_broker=True)))
        admin.close()
        self.environment = {
            **os.environ,
            "DAPO_KAFKA__BOOTSTRAP": self.kafka.bootstrap,
            "DAPO_KAFKA__PREFIX": self.topics.prefix,
            "DAPO_PACK__PATH": str(pack),
            "DAPO_TRITON__URL": self.triton.url,
            "DAPO_TRITON__THREADS": str(threads),
            "DAPO_STORE__ENDPOINT": self.minio.endpoint,
            "DAPO_STORE__ACCESS_KEY": self.minio.access_key,
            "DAPO_STORE__SECRET_KEY": self.minio.secret_key,
            "DAPO_RUN__BATCH": str(batch),
        }
        self._spawn(held, "archive")
        self._spawn(held, "worker")
        places = [TopicPartition(self.topics.results, number) for number in range(2)]
        self.reader = KafkaConsumer(bootstrap_servers=self.kafka.bootstrap, isolation_level="read_committed")
        self.reader.assign(places)
        self.reader.seek_to_beginning(*places)
        held.callback(self.reader.close)
        self._sent = 0

    def _spawn(self, held: ExitStack, command: str) -> None:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("dapo")), command],
            env=self.environment,
            stderr=subprocess.DEVNULL,
        )
        held.callback(process.wait)
        held.callback(process.terminate)

    def send(self, images: list[bytes], rate: float | None = None) -> None:
        """Put frames on the topic; `rate` per second, or at once."""
        producer = KafkaProducer(
            **connection(self.settings, "fill"), **producing(self.settings.max_message_bytes)
        )
        begun = time.perf_counter()
        for number, data in enumerate(images):
            if rate is not None:
                time.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            frame = Frame(f"{self._sent}", "bench", datetime.now(UTC), data, camera_id=f"c{number % 4}")
            message = write_frame(frame, self.topics.frames)
            producer.send(message.topic, message.value, key=message.key, headers=list(message.headers))
            self._sent += 1
        producer.flush()
        producer.close()

    def verdicts(self, count: int) -> list[tuple[float, ResultRow]]:
        """(when it was seen, row) of the next so many."""
        found: list[tuple[float, ResultRow]] = []
        deadline = time.monotonic() + _WAIT_S * 4
        while len(found) < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {len(found)} of {count} verdicts")
            for records in self.reader.poll(100).values():
                now = time.time()
                found += [(now, row) for record in records for row in decode_results(record.value)]
        return found

    def rate(self, images: list[bytes]) -> float:
        """Frames per second through everything, from the first frame's inspection to the last verdict."""
        self.send(images)
        rows = self.verdicts(len(images))
        begun = min(row.started_at for _, row in rows).timestamp()
        return len(rows) / (max(when for when, _ in rows) - begun)

    def latency_ms(self, images: list[bytes], rate: float) -> tuple[float, float]:
        """p50 and p99 from capture to a committed verdict, frames coming at `rate`."""
        thread = threading.Thread(target=self.send, args=(images, rate))
        thread.start()
        rows = self.verdicts(len(images))
        thread.join()
        taken = [(when - row.captured_at.timestamp()) * 1000 for when, row in rows if row.captured_at]
        return float(np.percentile(taken, 50)), float(np.percentile(taken, 99))


def whole(model: str, count: int, rounds: int, batch: int, threads: int) -> dict[str, object]:
    """The whole line and the bare loop in turns, then the line's latency at 70 % of its rate."""
    images = photographs(count)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        path = pack_of(model, Path(folder))
        pack = read_pack(path)
        infer = InProcessInfer(pack, batch=batch, threads=threads)
        line = Line(Path(folder), held, path, batch, threads)
        line.rate(images[: 4 * batch])  # warm
        pairs = [(in_one_process(pack, infer, images, batch), line.rate(images)) for _ in range(rounds)]
        through = statistics.median(ours for _, ours in pairs)
        p50, p99 = line.latency_ms(images, 0.7 * through)
    ratios = [ours / theirs for theirs, ours in pairs]
    table = Table("round", "one process, frames/s", "line, frames/s", "ratio", box=None)
    for number, (theirs, ours) in enumerate(pairs, 1):
        table.add_row(str(number), f"{theirs:.1f}", f"{ours:.1f}", f"{ours / theirs:.2f}")
    Console().print(table)
    return {
        "model": model,
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(one, 3) for one in ratios],
        "one_process_per_s": round(statistics.median(theirs for theirs, _ in pairs), 1),
        "line_per_s": round(through, 1),
        "latency_at_70_percent_ms": {"p50": round(p50, 1), "p99": round(p99, 1)},
        "frames": count,
        "batch": batch,
        "threads": threads,
    }


def _frame_of() -> Frame:
    record = Record("bench.frames", 0, 0, b"camera-0", b"", (), datetime.now(UTC))
    return Frame("0", "bench", datetime.now(UTC), record=record)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["null", "tiny", "ViT-B-16"], default="null")
    parser.add_argument(
        "--frames", type=int, help="of one round; 4000 for null, 600 for tiny, 240 for ViT-B-16"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16, help="frames given to the model at once")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the model on both sides")
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)  # as the worker's process does; here it holds for both sides
    if options.model == "null":
        found = null(options.frames or 4000, options.rounds)
    else:
        count = options.frames or (600 if options.model == "tiny" else 240)
        found = whole(options.model, count, options.rounds, options.batch, options.threads)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
