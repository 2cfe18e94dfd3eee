"""The Log port's conformance suite on a real broker, and what only a broker can do: fence, expire, delete."""

from __future__ import annotations

import threading
import time
import uuid

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from dapo.errors import Fenced, LogRefused
from pipeline.kafka.connect import reading
from pipeline.kafka.log import KafkaLog
from pipeline.kafka.outlet import KafkaOutlet
from pipeline.ports import Message
from pipeline.settings import KafkaSettings
from tests.contract.log_suite import LogSuite


class TestKafkaLog(LogSuite):
    @pytest.fixture(autouse=True)
    def _topics(self, kafka):
        mark = uuid.uuid4().hex[:8]
        self.settings = KafkaSettings(bootstrap=kafka.bootstrap)
        self.group, self.frames, self.out = f"suite-{mark}", f"{mark}.frames", f"{mark}.out"
        admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        admin.create_topics(
            {
                self.frames: {"num_partitions": 2, "replication_factor": 1},
                self.out: {"num_partitions": 1, "replication_factor": 1},
            },
            wait_for_metadata=True,
        )
        self.admin = admin
        self.producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
        yield
        self.producer.close()
        admin.close()

    def open(self, slot="a"):
        return KafkaLog(self.settings, self.frames, self.group, slot)

    def write(self, *messages):
        for one in messages:
            self.producer.send(one.topic, one.value, key=one.key, headers=list(one.headers))
        self.producer.flush()

    def committed(self):
        consumer = KafkaConsumer(bootstrap_servers=self.settings.bootstrap, isolation_level="read_committed")
        try:
            at = TopicPartition(self.out, 0)
            consumer.assign([at])
            consumer.seek_to_beginning(at)
            found, end = [], consumer.end_offsets([at])[at]
            while consumer.position(at) < end:
                found += [record.value for records in consumer.poll(500).values() for record in records]
            return found
        finally:
            consumer.close()

    @pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
    def test_frames_that_others_compressed_are_read(self, codec):
        values = [b"%d" % number * 100_000 for number in range(8)]
        self.compressed(codec, values)
        log = self.open()
        try:
            found = self.take(log, len(values))
            assert sorted(one.value for one in found) == values
            assert self.answer(log, found)
        finally:
            log.close()

    def test_a_compression_that_cannot_be_read_is_told_with_its_cure(self, monkeypatch):
        self.compressed("zstd", [b"x" * 1000])
        monkeypatch.setattr("kafka.codec.has_zstd", lambda: False)
        log = self.open()
        try:
            with pytest.raises(LogRefused, match=r"topic .*frames: can't be read: .*zstd.*gzip"):
                self.take(log, 1)
        finally:
            log.close()

    def compressed(self, codec, values):
        other = KafkaProducer(bootstrap_servers=self.settings.bootstrap, compression_type=codec)
        for number, value in enumerate(values):
            other.send(self.frames, value, key=b"%d" % number)
        other.flush()
        other.close()

    def test_the_lag_of_a_paused_log_grows_with_what_is_written(self, monkeypatch):
        monkeypatch.setattr("pipeline.kafka.log._ASK_ENDS_S", 0.0)
        log = self.open()
        try:
            self.send(4)
            self.take(log, 4)
            log.pause()
            self.send(30, first=4)
            assert log.poll(0.2, 100) == []
            assert log.lag() == 30
        finally:
            log.close()

    @pytest.mark.parametrize("turn", range(3))  # the broker finds a new group's place slowly, and then fast
    def test_a_member_joins_its_group_once(self, turn):
        self.send(4)
        log = self.open()
        try:
            settled = time.monotonic() + 1  # all metadata of the topic has come by then
            while time.monotonic() < settled or log.epoch == 0:
                log.poll(0.1, 10)
            assert log.epoch == 1, "each further assignment has what is in flight inspected again"
        finally:
            log.close()

    def test_partitions_that_are_added_are_read_however_short_the_polls(self, monkeypatch):
        given = reading(self.settings.max_message_bytes)
        monkeypatch.setattr("pipeline.kafka.log.reading", lambda _: {**given, "metadata_max_age_ms": 50})
        log = self.open()
        try:
            self.send(4)
            self.take(log, 4)
            self.admin.create_partitions({self.frames: 8})
            deadline = time.monotonic() + 60
            # Each poll ends in the middle of something: the joining of the group must go on with the next.
            while len(log._consumer.assignment()) < 8:
                assert time.monotonic() < deadline, "the member never came back into its group"
                log.poll(0.002, 10)
        finally:
            log.close()

    @staticmethod
    def by_turns(*logs):
        """Each goes on as if it were alone; every new producer fences the other's."""
        for _ in range(20):
            for log in logs:
                log.poll(0.2, 10)
                log.commit([], {})

    def test_one_slot_taken_twice_ends_one_of_the_two(self):
        first = self.open("same")
        self.send(4)
        records = self.take(first, 4)
        second = self.open("same")  # fences the first
        try:
            assert not self.answer(first, records)  # the broker's own time-out looks alike: once is forgiven
            with pytest.raises(Fenced, match="another process writes"):
                self.by_turns(first, second)
        finally:
            first.close()
            second.close()
        assert len(self.committed()) <= 4

    def test_records_deleted_before_they_were_read_are_told(self):
        log = self.open()
        self.send(20)
        records = self.take(log, 20)
        at = (records[0].topic, records[0].partition)
        mine = [one for one in records if one.partition == at[1]]
        assert log.commit([], {at: mine[0].offset + 1})
        log.close()
        self.admin.delete_records({TopicPartition(*at): mine[-1].offset})
        again = self.open()
        try:
            deadline = time.monotonic() + 30
            while not again.losses:
                assert time.monotonic() < deadline
                again.poll(0.2, 100)
            [loss] = again.losses
            assert (loss.topic, loss.partition, loss.first, loss.end) == (
                *at,
                mine[0].offset + 1,
                mine[-1].offset,
            )
        finally:
            again.close()

    def test_a_topic_that_is_missing_is_named_with_the_command_that_makes_it(self):
        with pytest.raises(LogRefused, match="dapo topics create"):
            KafkaLog(self.settings, "not.there", self.group, "a")

    def test_a_message_too_large_is_refused_and_nothing_of_it_is_seen(self):
        log = self.open()
        try:
            self.send(1)
            [record] = self.take(log, 1)
            huge = Message(self.out, b"k", b"x" * (self.settings.max_message_bytes + 2**20))
            with pytest.raises(LogRefused, match="refuses"):
                log.commit([huge], {(record.topic, record.partition): record.offset + 1})
            assert self.committed() == []
        finally:
            log.close()

    def test_an_outlet_finds_position_and_mark_again_and_writes_nothing_twice(self):
        name = f"dapo-feed-{self.group}"
        for position, mark, known in ((2, "a1", (0, "")), (5, "b2", (2, "a1")), (5, "b2", (5, "b2"))):
            outlet = KafkaOutlet(self.settings, name, self.out, threading.Event())
            try:
                assert outlet.kept() == known
                outlet._transactions.drop()  # as after an error: what was written is in doubt
                outlet.write([Message(self.out, b"k", mark.encode())], position, mark)
                assert outlet.kept() == (position, mark)
            finally:
                outlet.close()
        assert self.committed() == [b"a1", b"b2"]
