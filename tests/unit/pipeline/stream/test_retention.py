"""Topics that would lose data are refused, and the message says why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dapo.errors import SettingsError
from pipeline.stream.durations import hours
from pipeline.stream.retention import HOUR_MS, ROOM_BYTES, Found, Needs, Plan, faults, offset_faults, plan
from pipeline.stream.topics import Topics
from pipeline.testing import small_pack

TOPICS = Topics("plant")


def plans(**needs):
    return {one.name: one for one in plan(TOPICS, small_pack(), Needs(**needs))}


def as_made(one: Plan, **other) -> Found:
    return Found(one.partitions, one.replication, {**one.config, **other})


def test_every_topic_as_planned_is_good():
    for one in plans().values():
        assert faults(one, as_made(one)) == []


def test_there_is_a_topic_for_each_type_and_for_no_type():
    assert {f"plant.defects.{slug}" for slug in ("scratch", "hole", "unknown")} <= set(plans())


@given(st.floats(0.1, 1000), st.floats(0.1, 500), st.integers(1_000, 5_000_000), st.integers(1, 64))
def test_frames_outlive_the_outage_by_time_and_by_bytes(outage, rate, size, partitions):
    frames = plans(outage_h=outage, rate=rate, frame_bytes=size, partitions=partitions)[TOPICS.frames]
    assert int(frames.config["retention.ms"]) >= outage * HOUR_MS
    assert frames.bytes >= rate * size * outage * 3600


def test_a_dead_letter_has_room_for_its_headers():
    made = plans(max_message_bytes=1_000_000)
    frames, letters = made[TOPICS.frames], made[TOPICS.dead_letters]
    room = int(letters.config["max.message.bytes"]) - int(frames.config["max.message.bytes"])
    assert room >= ROOM_BYTES


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"retention.ms": "3600000"}, "retention.ms 3600000"),
        ({"retention.bytes": "1000"}, "retention.bytes 1000"),
        ({"cleanup.policy": "compact"}, "compaction keeps one row"),
        ({"cleanup.policy": "compact,delete"}, "compaction keeps one row"),
        ({"min.insync.replicas": "1"}, "only one broker has"),
        ({"unclean.leader.election.enable": "true"}, "what it lacks is gone"),
        ({"max.message.bytes": "1048588"}, "the line would stop"),
        ({"message.timestamp.type": "CreateTime"}, "clocks of cameras"),
    ],
)
def test_what_would_lose_data_is_named_with_its_cure(change, word):
    frames = plans()[TOPICS.frames]
    [said] = faults(frames, as_made(frames, **change))
    assert said.startswith("plant.frames: ")
    assert word in said


def test_one_broker_is_declared_never_assumed():
    frames = plans()[TOPICS.frames]
    single = plans(single_broker=True)[TOPICS.frames]
    assert any("copies" in said for said in faults(frames, as_made(single)))
    assert faults(single, as_made(single)) == []


def test_unlimited_retention_is_enough_and_labels_need_it():
    frames, labels = plans()[TOPICS.frames], plans()[TOPICS.labels]
    assert faults(frames, as_made(frames, **{"retention.ms": "-1", "retention.bytes": "-1"})) == []
    assert "without end" in faults(labels, as_made(labels, **{"retention.ms": "604800000"}))[0]


def test_a_missing_topic_names_the_command():
    [said] = faults(plans()[TOPICS.results], None)
    assert "dapo topics create" in said


def test_what_groups_have_read_is_remembered_for_as_long_as_it_is_kept():
    wanted = list(plans(outage_h=24).values())
    fortnight = 14 * 24 * 60  # dead letters are kept that long
    assert offset_faults(wanted, {}, fortnight) == []
    [said] = offset_faults(wanted, {}, 7 * 24 * 60)
    for words in ("offsets.retention.minutes 10080", "plant.deadletter", f"Set it to {fortnight}"):
        assert words in said


def test_it_goes_by_what_the_broker_keeps_where_that_is_longer():
    made = plans()
    month = as_made(made[TOPICS.frames], **{"retention.ms": str(30 * 24 * HOUR_MS)})
    [said] = offset_faults(list(made.values()), {TOPICS.frames: month}, 20160)
    assert "plant.frames" in said
    assert "Set it to 43200" in said
    always = as_made(made[TOPICS.frames], **{"retention.ms": "-1"})
    assert "Set it to 2147483647" in offset_faults([made[TOPICS.frames]], {TOPICS.frames: always}, 20160)[0]
    labels = made[TOPICS.labels]
    assert offset_faults([labels], {TOPICS.labels: as_made(labels)}, 1) == [], "read whole, without a group"


def test_durations_as_people_write_them():
    assert hours("90m") == 1.5
    assert hours("2w") == 336
    for wrong in ("", "3", "-3h", "0h", "3 days", "1e9h"):
        with pytest.raises(SettingsError, match="24h"):
            hours(wrong)


def test_a_prefix_that_kafka_would_refuse_is_refused_here():
    with pytest.raises(SettingsError, match=r"kafka\.prefix"):
        Topics("plant 2")
