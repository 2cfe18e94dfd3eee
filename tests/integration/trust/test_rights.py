"""Who may what on the broker, by the files of deploy/acl."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import (
    ACLOperation,
)

from dapo.errors import LogRefused
from pipeline.kafka.connect import connection
from pipeline.kafka.frames import FrameReader
from pipeline.kafka.log import KafkaLog
from pipeline.kafka.outlet import KafkaOutlet
from pipeline.kafka.read import TopicReader
from pipeline.kafka.topics import TopicAdmin
from pipeline.kafka.transactions import Transactions
from pipeline.kafka.whole import WholeKafkaLog, open_whole
from pipeline.ports import Message
from pipeline.settings import load
from pipeline.stream.retention import Plan
from pipeline.testing import small_pack
from schemas.codec import decode_results
from tests.integration.trust.plant import PACK, ROLES, TOPICS, Plant, acls, records, until


@pytest.mark.parametrize("role", ROLES)
def test_a_file_grants_its_own_role_and_nothing_to_everybody(role: str) -> None:
    granted = acls(role)
    assert granted
    for one in granted:
        assert one.principal == f"User:{role}"
        assert one.operation not in (ACLOperation.ALL, ACLOperation.ALTER, ACLOperation.DELETE)
        assert "*" not in one.resource_pattern.resource_name


def test_feeder_and_worker_do_their_work_and_the_mes_reads_it(inspected: int, fed: int) -> None:
    assert inspected == fed


def test_the_worker_finds_all_topics_as_it_does_at_its_start(plant: Plant) -> None:
    admin = TopicAdmin(plant.settings("worker"))
    try:
        assert set(admin.find(TOPICS.all(PACK))) == set(TOPICS.all(PACK))
    finally:
        admin.close()


def test_the_archiver_reads_results_with_their_frames_and_keeps_its_place(
    plant: Plant, inspected: int
) -> None:
    settings = plant.settings("archiver")
    log, frames = KafkaLog(settings, TOPICS.results, "archive", "a"), FrameReader(settings, TOPICS.frames)
    try:
        found: list[Any] = []
        until(lambda: bool(found.extend(log.poll(0.2, 100)) or len(found) >= inspected))
        [row] = decode_results(found[0].value)
        assert frames.read(row.frames_partition, row.frames_offset).value  # type: ignore[union-attr]
        assert log.commit([], {(one.topic, one.partition): one.offset + 1 for one in found})
    finally:
        log.close()
        frames.close()


def test_parts_are_read_back_and_written(plant: Plant, inspected: int) -> None:
    settings = plant.settings("parts")
    log = WholeKafkaLog(settings, TOPICS.results, "parts", "whole")
    try:
        found: list[Any] = []
        until(lambda: bool(found.extend(log.poll(0.2, 100)) or found))
        at = {(found[0].topic, found[0].partition): found[0].offset + 1}
        assert log.commit([Message(TOPICS.parts, b"p", b"a part")], at)
    finally:
        log.close()
    with TopicReader(settings, "parts-read-back") as reader:
        assert records(reader, TOPICS.parts) == 1


def test_the_mes_keeps_its_place_in_a_group_of_its_own(plant: Plant, inspected: int) -> None:
    consumer = KafkaConsumer(
        **connection(plant.settings("mes"), "mes"),
        group_id="mes-line-1",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    try:
        # kafka-python may join before it knows the topic, and is then given nothing for minutes: so it looks first.
        assert TOPICS.results in consumer.topics()
        consumer.subscribe([TOPICS.results])
        found: list[Any] = []
        until(lambda: bool(found.extend(consumer.poll(200).values()) or found))
        consumer.commit()
        places = [TopicPartition(TOPICS.results, number) for number in (0, 1)]
        assert any(consumer.committed(at) for at in places)
    finally:
        consumer.close()


def test_labels_are_written_under_a_position(plant: Plant) -> None:
    one = KafkaOutlet(plant.settings("labels"), "dapo-label-1", TOPICS.labels, threading.Event())
    try:
        one.write([Message(TOPICS.labels, b"r", b"good")], 1)
        assert one.position() == 1
    finally:
        one.close()


def test_labels_are_copied_to_the_store_by_who_writes_them(plant: Plant) -> None:
    settings = plant.settings("labels")
    one = KafkaOutlet(settings, "dapo-label-2", TOPICS.labels, threading.Event())
    one.write([Message(TOPICS.labels, b"r", b"good")], 1)
    one.close()
    with TopicReader(settings) as reader:
        ends = reader.span(TOPICS.labels).end
    log = open_whole(settings, TOPICS.labels, load(environment={}).settings.archive.labels_group, "a")
    try:
        found: list[Any] = []
        until(lambda: bool(found.extend(log.poll(0.2, 100)) or log.past(ends)))
        assert found
        assert log.commit([], {(one.topic, one.partition): one.offset + 1 for one in found})
    finally:
        log.close()


# role: (transactional id, group, topic that it reads, topics that it may not write to)
WRITERS = {
    "worker": ("inspect-z", "inspect", TOPICS.frames, (TOPICS.labels, TOPICS.frames, TOPICS.parts)),
    "archiver": ("archive-z", "archive", TOPICS.results, (TOPICS.results, TOPICS.frames)),
    "feeder": ("dapo-feed-z", "dapo-feed-z", TOPICS.frames, (TOPICS.results, TOPICS.labels)),
    "parts": ("parts-z", "parts", TOPICS.results, (TOPICS.results, TOPICS.frames)),
    "labels": ("dapo-label-z", "dapo-label-z", TOPICS.labels, (TOPICS.results, TOPICS.frames)),
}


@pytest.mark.parametrize(("role", "topic"), [(role, topic) for role in WRITERS for topic in WRITERS[role][3]])
def test_nobody_writes_where_another_does(plant: Plant, role: str, topic: str) -> None:
    name, group, read, _ = WRITERS[role]
    writing = Transactions(plant.settings(role), name)
    try:
        writing.open()
        with pytest.raises(LogRefused, match="TopicAuthorizationFailed"):
            writing.commit([Message(topic, b"k", b"x")], {(read, 0): 0}, group)
    finally:
        writing.drop()


@pytest.mark.parametrize("role", ROLES)
def test_nobody_takes_the_transactional_id_of_another(plant: Plant, role: str) -> None:
    for other, (name, *_) in WRITERS.items():
        if other != role:
            with pytest.raises(LogRefused, match="TransactionalIdAuthorizationFailed"):
                Transactions(plant.settings(role), name).open()


def test_the_promoter_makes_topics_of_types_and_no_others(plant: Plant) -> None:
    admin = TopicAdmin(plant.settings("promoter"))
    try:
        assert admin.create_types(TOPICS, small_pack("scratch", "hole", "dent")) == [TOPICS.defects("dent")]
        assert admin.create_types(TOPICS, small_pack("scratch", "hole", "dent")) == []
        with pytest.raises(LogRefused, match="TopicAuthorizationFailed"):
            admin.create([Plan("inspection.other", 1, 1)])
    finally:
        admin.close()


def test_the_mes_writes_nowhere(plant: Plant) -> None:
    producer = KafkaProducer(**connection(plant.settings("mes"), "mes"), max_block_ms=5000)
    try:
        for topic in (TOPICS.results, TOPICS.parts):
            with pytest.raises(kafka_errors.KafkaError, match="AuthorizationFailed"):
                producer.send(topic, b"x").get(timeout=10)
    finally:
        producer.close(timeout=1)


@pytest.mark.parametrize(
    ("role", "topic"),
    [
        ("mes", TOPICS.frames),
        ("mes", TOPICS.labels),
        ("feeder", TOPICS.results),
        ("worker", TOPICS.results),
        ("archiver", TOPICS.labels),
        ("parts", TOPICS.frames),
        ("labels", TOPICS.results),
        ("promoter", TOPICS.labels),
    ],
)
def test_nobody_reads_what_is_not_its_own(plant: Plant, fed: int, role: str, topic: str) -> None:
    with TopicReader(plant.settings(role)) as reader, pytest.raises(LogRefused, match="ACL"):
        list(reader.read(reader.span(topic)))


@pytest.mark.parametrize("role", [role for role in ROLES if role != "worker"])
def test_nobody_sees_the_place_of_the_workers(plant: Plant, role: str) -> None:
    with TopicReader(plant.settings(role)) as reader, pytest.raises(LogRefused, match="ACL"):
        reader.committed("inspect", TOPICS.frames)
