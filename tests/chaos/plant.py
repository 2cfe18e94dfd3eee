"""A small plant that can be hurt: real servers, a worker and an archiver as processes, a feeder that never stops, and a
reader of committed verdicts that notices every gap."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from dapo.pack_io import read_pack
from deploy.native import KafkaServer, MinioServer, TritonServer
from pipeline.bundled import default_pack_path
from pipeline.kafka.outlet import KafkaOutlet
from pipeline.kafka.topics import TopicAdmin
from pipeline.ports import Frame
from pipeline.settings import KafkaSettings, StoreSettings
from pipeline.store.open import open_store
from pipeline.stream.feed import Feeder, Tags
from pipeline.stream.retention import Needs, plan
from pipeline.stream.topics import Topics
from pipeline.testing import FakeSource, encoded, frame
from schemas.codec import decode_results
from schemas.ids import frame_key
from schemas.results import ResultRow
from triton_models.repository import write_skeleton

PARTITIONS = 3
RATE = 5.0  # frames per second: a gap is seen to a fifth of a second, and two cores keep up
BUCKET = "inspection"
_TIMEOUT_S = 180.0  # a shared machine may be slow; what is slow is reported, what is lost fails
_FULL_MIB = 1024  # of the store's disk where it can be filled: two hundred blows archive some 7,000 images


class Process:
    """A `dapo` command that is started again whenever it ends, as a supervisor does."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str], folder: Path) -> None:
        self.name, self.starts = name, 0
        self._command = [str(Path(sys.executable).with_name("dapo")), *arguments]
        self._environment, self._log = environment, folder / f"{name}.log"
        self._closing = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    def signal(self, number: int) -> None:
        """Send a signal to the process that runs now."""
        if self._child is not None:
            with suppress(ProcessLookupError):
                self._child.send_signal(number)

    def close(self) -> None:
        """End it, and do not start it again."""
        self._closing.set()
        child = self._child
        if child is not None:
            child.terminate()
            try:
                child.wait(40)
            except subprocess.TimeoutExpired:
                child.kill()
        self._thread.join(10)

    def log(self) -> str:
        """Its output."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _supervise(self) -> None:
        while not self._closing.is_set():
            with open(self._log, "ab") as log:
                self._child = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
            self.starts += 1
            self._child.wait()
            self._closing.wait(0.2)


class Supervised:
    """A server that is started again whenever it ends, as a plant's supervisor does.

    Triton needs it more than others: its Python backend takes models that stood still for dead, and crashes over them.
    """

    def __init__(self, server: TritonServer) -> None:
        self.server, self.starts = server, 1
        self._closing, self._turn = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """SIGKILL; it comes back by itself."""
        with self._turn:
            self.server.kill()

    def close(self) -> None:
        """Do not start it again."""
        self._closing.set()
        self._thread.join(60)

    def _supervise(self) -> None:
        while not self._closing.wait(0.2):
            with self._turn:
                if not self.server.running:
                    self.server.restart()
                    self.starts += 1


class Reader:
    """Reads committed verdicts as an MES does, and remembers when each came."""

    def __init__(self, settings: KafkaSettings, topics: Topics) -> None:
        self.rows: dict[str, ResultRow] = {}
        self.seen: Counter[str] = Counter()
        self.longest_gap = 0.0
        self._last = 0.0
        self._settings, self._topics = settings, topics
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(20)

    def rest(self) -> None:
        """Nothing is fed for a while: the time until the next verdict is no gap."""
        self._last = 0.0

    def _read(self) -> None:
        places = [TopicPartition(self._topics.results, number) for number in range(PARTITIONS)]
        at = dict.fromkeys(places, 0)
        while not self._stop.is_set():
            try:
                consumer = KafkaConsumer(
                    bootstrap_servers=self._settings.bootstrap,
                    isolation_level="read_committed",
                    reconnect_backoff_max_ms=1000,
                )
                consumer.assign(places)
                for place, offset in at.items():
                    consumer.seek(place, offset)
                while not self._stop.is_set():
                    for place, records in consumer.poll(100).items():
                        for record in records:
                            self._take(decode_results(record.value))
                            at[place] = record.offset + 1
                consumer.close()
            except KafkaError:
                time.sleep(0.2)

    def _take(self, rows: list[ResultRow]) -> None:
        now = time.monotonic()
        if self._last:
            self.longest_gap = max(self.longest_gap, now - self._last)
        self._last = now
        for row in rows:
            self.seen[row.frame_key] += 1
            self.rows[row.frame_key] = row


class Pictures:
    """Pictures for ever: grey surfaces, every fourth with a dark blot, numbered, at a steady rate."""

    total = None

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        plain = np.clip(rng.normal(140, 4, (4, 128, 128, 3)), 0, 255).astype(np.uint8)
        plain[0, 40:60, 50:80] = 10
        self._pictures = [encoded(one) for one in plain]
        self.given = 0
        self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        for number in range(10**9):
            if self._closed:
                return
            # A picture of its own each, or the camera would count as frozen: PNG readers pass over what follows the end.
            data = self._pictures[number % 4] + number.to_bytes(8, "big")
            self.given = number + 1
            yield frame(f"{number:08d}", data, source="chaos", camera_id="chaos")

    def close(self) -> None:
        self._closed = True


class Plant:
    """Everything, running. `hurt` by the harness."""

    def __init__(self, folder: Path, seed: int, *, full_disk: bool) -> None:
        self.folder, self.topics = folder, Topics("chaos")
        self._held = ExitStack()
        self.kafka = self._held.enter_context(
            KafkaServer(folder / "kafka", settings={"log.flush.interval.messages": 1000})
        )
        self.store_folder = folder / "minio"
        if full_disk:
            self._held.enter_context(small_disk(self.store_folder))
        self.minio = self._held.enter_context(MinioServer(self.store_folder))
        self.settings = KafkaSettings(bootstrap=self.kafka.bootstrap, prefix=self.topics.prefix)
        self.pack = read_pack(default_pack_path())
        admin = TopicAdmin(self.settings)
        admin.create(plan(self.topics, self.pack, Needs(partitions=PARTITIONS, single_broker=True)))
        admin.close()
        self.minio.client().make_bucket(BUCKET)
        write_skeleton(folder / "models")
        self.triton = self._held.enter_context(TritonServer(folder / "triton", folder / "models"))
        self.triton_supervisor = Supervised(self.triton)
        self._held.callback(self.triton_supervisor.close)
        self.store_settings = StoreSettings(
            endpoint=self.minio.endpoint, access_key=self.minio.access_key, secret_key=self.minio.secret_key, bucket=BUCKET
        )  # fmt: skip
        self.store = open_store(self.store_settings)
        self._held.callback(self.store.close)
        self._start(seed)

    def _start(self, seed: int) -> None:
        environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("DAPO_")},
            "DAPO_KAFKA__BOOTSTRAP": self.settings.bootstrap,
            "DAPO_KAFKA__PREFIX": self.topics.prefix,
            "DAPO_STORE__ENDPOINT": self.minio.endpoint,
            "DAPO_STORE__ACCESS_KEY": self.minio.access_key,
            "DAPO_STORE__SECRET_KEY": self.minio.secret_key,
            "DAPO_STORE__BUCKET": BUCKET,
            "DAPO_TRITON__URL": self.triton.url,
            "DAPO_TRITON__THREADS": "1",
            "DAPO_RUN__BATCH": "4",
            "DAPO_ARCHIVE__BATCH_S": "1",
            "DAPO_ARCHIVE__AUDIT_RATE": "0.2",
            "OMP_NUM_THREADS": "1",
        }
        self.worker = self._process("worker", ["worker", "--slot", "chaos"], environment)
        self.archiver = self._process("archiver", ["archive", "--slot", "chaos"], environment)
        self.reader = Reader(self.settings, self.topics)
        self._held.callback(self.reader.close)
        self._stop = threading.Event()
        self.pictures = Pictures(seed)
        self._feeding = threading.Thread(target=self._feed, daemon=True)
        self._feeding.start()
        self._held.callback(self._end_feeding)

    def _process(self, name: str, arguments: list[str], environment: dict[str, str]) -> Process:
        process = Process(name, arguments, environment, self.folder)
        self._held.callback(process.close)
        return process

    def _feed(self) -> None:
        outlet = KafkaOutlet(self.settings, "chaos-feeder", self.topics.frames, self._stop)
        Feeder(outlet, self.topics.frames, Tags("chaos", "sample", line_id="l1"), rate=RATE).run(
            self.pictures, self._stop
        )
        self.fed = outlet.position()
        outlet.close()

    def _end_feeding(self) -> None:
        self.pictures.close()
        self._stop.set()
        self._feeding.join(60)

    fed = 0

    def drain(self) -> None:
        """Stop feeding and wait until every frame that was fed has its verdict."""
        self.pictures.close()
        self._feeding.join(_TIMEOUT_S)
        self.until(lambda: len(self.reader.seen) >= self.fed, "verdicts of all frames")

    def until(self, condition: Callable[[], bool], what: str, seconds: float = _TIMEOUT_S) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                tail = "\n".join(
                    f"--- {one.name}\n" + "\n".join(one.log().splitlines()[-15:])
                    for one in (self.worker, self.archiver)
                )
                raise AssertionError(f"after {seconds:.0f} s still no {what}\n{tail}")
            time.sleep(0.05)

    def missing(self, count: int) -> int:
        """Of the first `count` frames, how many have no verdict."""
        return sum(frame_key("chaos", f"{number:08d}") not in self.reader.seen for number in range(count))

    def doubled(self) -> int:
        """Verdicts beyond the first of a frame."""
        return sum(self.reader.seen.values()) - len(self.reader.seen)

    def close(self) -> None:
        self._held.close()


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own for the store, small enough to be filled."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_FULL_MIB}m,nr_inodes=0", "tmpfs", str(folder)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Take all that is left of a file system."""
    ballast = folder / "ballast"
    try:
        with suppress(OSError), open(ballast, "wb") as file:
            while True:
                file.write(bytes(2**20))
        yield
    finally:
        ballast.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


__all__ = ["BUCKET", "FakeSource", "Plant", "filled", "remove"]
