"""`dapo topics` on a real broker."""

from __future__ import annotations

import uuid

import pytest
from kafka import KafkaAdminClient

from deploy.native import KafkaServer
from pipeline.cli import invoke
from pipeline.kafka.topics import TopicAdmin
from pipeline.settings import KafkaSettings

YEAR_MINUTES = 365 * 24 * 60


@pytest.fixture
def prefix(monkeypatch: pytest.MonkeyPatch) -> str:
    made = f"t{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("DAPO_KAFKA__PREFIX", made)
    return made


def test_topics_are_missing_then_made_then_good(
    kafka: KafkaServer, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plant = ["--single-broker", "--bootstrap", kafka.bootstrap]
    assert invoke(["topics", "check", *plant]) == 1
    assert f"{prefix}.frames: is missing" in capsys.readouterr().err
    assert invoke(["topics", "create", *plant]) == 0
    assert "topics made, 0 were there" in capsys.readouterr().out
    assert invoke(["topics", "check", *plant]) == 0


def test_a_topic_that_outlives_what_groups_have_read_is_refused(
    kafka: KafkaServer, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plant = ["--single-broker", "--bootstrap", kafka.bootstrap]
    two_years = {"retention.ms": str(2 * YEAR_MINUTES * 60_000)}
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    frames = {"num_partitions": 6, "replication_factor": 1, "configs": two_years}
    admin.create_topics({f"{prefix}.frames": frames}, wait_for_metadata=True)
    admin.close()
    assert invoke(["topics", "create", *plant]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"offsets.retention.minutes {YEAR_MINUTES}" in said
    assert f"Set it to {2 * YEAR_MINUTES}" in said


def test_a_broker_of_ours_remembers_what_was_read_for_a_year(kafka: KafkaServer) -> None:
    admin = TopicAdmin(KafkaSettings(bootstrap=kafka.bootstrap))
    try:
        assert admin.offsets_kept() == YEAR_MINUTES
    finally:
        admin.close()
