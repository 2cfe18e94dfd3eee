"""How long brokers remember what was read, as they say it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from pipeline.cli import invoke
from pipeline.kafka.topics import TopicAdmin
from pipeline.settings import KafkaSettings
from pipeline.stream.retention import Found, Needs, plan
from pipeline.stream.topics import Topics
from pipeline.testing import small_pack

OFFSETS = "offsets.retention.minutes"


class Admin:
    """A client of two brokers and a fenced one that does not answer; each says what `says` holds for it."""

    says: dict[str, dict[str, Any]]

    def __init__(self, **arguments: Any) -> None: ...

    def describe_cluster(self) -> dict[str, Any]:
        brokers = [{"broker_id": one, "is_fenced": one == 3} for one in (1, 2, 3)]
        return {"brokers": brokers}

    def describe_configs(self, resources: list[Any], config_filter: str) -> dict[str, Any]:
        assert all(list(one.configs) == [OFFSETS] for one in resources)
        return {"broker": {one.name: self.says[one.name] for one in resources}}


@pytest.mark.parametrize(
    ("says", "minutes"),
    [
        ({"1": {OFFSETS: {"value": "10080"}}, "2": {OFFSETS: {"value": "20160"}}}, 10080),
        ({"1": {}, "2": {}}, None),  # as to a user without DescribeConfigs on the cluster
    ],
)
def test_the_broker_that_forgets_first_decides(
    monkeypatch: pytest.MonkeyPatch, says: dict[str, Any], minutes: int | None
) -> None:
    monkeypatch.setattr("pipeline.kafka.topics.KafkaAdminClient", Admin)
    monkeypatch.setattr(Admin, "says", says, raising=False)
    assert TopicAdmin(KafkaSettings()).offsets_kept() == minutes


@pytest.mark.parametrize(
    ("minutes", "status", "words"),
    [
        (20160, 0, ""),
        (10080, 1, "Set it to 20160 on every broker"),
        (None, 0, "this user may not see it"),
    ],
)
def test_check_says_what_would_be_forgotten(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Any,
    minutes: int | None,
    status: int,
    words: str,
) -> None:
    class Made:
        """A broker whose topics are as planned."""

        def __init__(self, settings: KafkaSettings) -> None: ...

        def find(self, names: Iterable[str]) -> dict[str, Found]:
            wanted = {one.name: one for one in plan(Topics(), small_pack(), Needs())}
            spare = wanted["inspection.defects.unknown"]
            return {
                name: Found(one.partitions, one.replication, one.config)
                for name in names
                for one in [wanted.get(name, spare)]
            }

        def offsets_kept(self) -> int | None:
            return minutes

        def close(self) -> None: ...

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.cli.topics.TopicAdmin", Made)
    assert invoke(["topics", "check"]) == status
    assert words in " ".join(capsys.readouterr().err.split())
