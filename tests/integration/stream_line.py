"""A line of its own on the shared broker, for tests of what stands around the stream."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from kafka import KafkaProducer

from pipeline.decode import Limits as FrameLimits
from pipeline.inspect import Inspector, Preparer
from pipeline.kafka.log import KafkaLog
from pipeline.kafka.read import TopicReader
from pipeline.kafka.topics import TopicAdmin
from pipeline.ports import Message
from pipeline.settings import Settings, load
from pipeline.stream.frames import write_frame
from pipeline.stream.inspection import Inspection
from pipeline.stream.ledger import Ledger
from pipeline.stream.metrics import Metrics
from pipeline.stream.retention import Needs, plan
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import Teller
from pipeline.stream.worker import Limits, Worker
from pipeline.testing import DAY, FakeInfer, encoded, frame, small_pack, surface
from schemas.codec import decode, decode_results, encode
from schemas.ids import frame_key, result_id
from schemas.parts import PartRow
from schemas.results import ResultRow

PACK = small_pack()


def until(condition: Callable[[], bool], seconds: float = 60.0, what: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        threading.Event().wait(0.05)


class Line:
    """The topics of one deployment, and what feeds and inspects."""

    def __init__(self, bootstrap: str) -> None:
        prefix = f"t{uuid.uuid4().hex[:8]}"
        self.environment = {
            "DAPO_KAFKA__BOOTSTRAP": bootstrap,
            "DAPO_KAFKA__PREFIX": prefix,
            "DAPO_WORKER__GROUP": f"{prefix}-inspect",
        }
        self.settings: Settings = load(environment=self.environment).settings
        self.topics = Topics(prefix)
        self.prefix = prefix
        admin = TopicAdmin(self.settings.kafka)
        admin.create(plan(self.topics, PACK, Needs(partitions=3, single_broker=True)))
        admin.close()
        self.producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")

    def send(self, *messages: Message) -> None:
        sent = [self.producer.send(m.topic, m.value, key=m.key, headers=list(m.headers)) for m in messages]
        for future in sent:
            future.get(timeout=30)

    def feed(self, count: int, *, first: int = 0, camera: str = "cam-0", good: bool = True) -> None:
        frames = [
            frame(
                f"{camera}/{number}",
                encoded(surface(number, defect=number % 3 == 0)) if good else b"no image",
                camera_id=camera, sequence=number, headers={"line_id": "l1", "part_id": f"part-{number}"},
            )
            for number in range(first, first + count)
        ]  # fmt: skip
        self.send(*(write_frame(one, self.topics.frames) for one in frames))

    def work(self, rows: int) -> None:
        """Run a worker until there are so many rows."""
        stop = threading.Event()
        preparer, inspector = Preparer(FakeInfer(PACK), FrameLimits()), Inspector(FakeInfer(PACK), batch=8)
        stages = Inspection(preparer, inspector, fetch=lambda given: given.data, ahead=16, stop=stop)
        log = KafkaLog(self.settings.kafka, self.topics.frames, self.settings.worker.group, "a")
        ledger = Ledger(Metrics(), worker_id="w", configuration_hash=PACK.configuration_hash)
        teller = Teller(self.topics)
        worker = Worker(log, stages, teller.tell, ledger, limits=Limits(), stop=stop)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            until(lambda: sum(count.frames for count in ledger.cameras.values()) >= rows, what=f"{rows} rows")
        finally:
            stop.set()
            thread.join(30)
        assert not thread.is_alive()

    def records(self, topic: str):
        with TopicReader(self.settings.kafka) as reader:
            return list(reader.read(reader.span(topic)))

    def results(self) -> list[ResultRow]:
        return [row for record in self.records(self.topics.results) for row in decode_results(record.value)]

    def parts(self) -> list[PartRow]:
        return [row for record in self.records(self.topics.parts) for row in decode(record.value, PartRow)]

    def view(self, part: int, view: int, views: int = 2) -> Message:
        """A result as the worker writes it."""
        key = frame_key(f"cam-{view}", str(part))
        row = ResultRow(
            result_id=result_id(key, "c"), frame_key=key, frame_id=str(part), camera_id=f"cam-{view}", part_id=str(part),
            captured_at=DAY, started_at=DAY, finished_at=datetime.now(UTC), result_state="Completed", evaluation="OK",
        )  # fmt: skip
        return Message(
            self.topics.results, f"cam-{view}".encode(), encode([row]), (("views_expected", b"%d" % views),)
        )
