"""Who the broker is, who we are, and what is said where one of both is not as it should be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from dapo.errors import LogRefused, SettingsError
from pipeline.kafka.beats import Beats
from pipeline.kafka.connect import connection
from pipeline.kafka.frames import FrameReader
from pipeline.kafka.log import KafkaLog
from pipeline.kafka.outlet import KafkaOutlet
from pipeline.kafka.read import TopicReader
from pipeline.kafka.topics import TopicAdmin
from pipeline.settings import KafkaSettings
from tests.integration.trust.plant import OPERATOR, SECRET, TOPICS, Plant


def outlet(settings: KafkaSettings) -> None:
    one = KafkaOutlet(settings, "dapo-feed-probe", TOPICS.frames, threading.Event())
    try:
        one.position()
    finally:
        one.close()


CLIENTS: dict[str, Callable[[KafkaSettings], Any]] = {
    "log": lambda settings: KafkaLog(settings, TOPICS.frames, "probe", "a").close(),
    "outlet": outlet,
    "topics": lambda settings: TopicAdmin(settings).close(),
    "reader": lambda settings: TopicReader(settings).close(),
    "frames": lambda settings: FrameReader(settings, TOPICS.frames).read(0, 0),
    "beats": lambda settings: Beats(settings, TOPICS.status, "probe").close(),
}
WRONG: dict[str, tuple[type[Exception], str, Callable[[Plant], dict[str, Any]]]] = {
    "password": (LogRefused, "does not take user 'operator'", lambda plant: {"password": f"{SECRET}wrong"}),
    "user": (LogRefused, "does not take user 'ghost'", lambda plant: {"username": "ghost"}),
    "mechanism": (SettingsError, "sasl_mechanism", lambda plant: {"sasl_mechanism": "SCRAM-SHA-256"}),
    "authority": (SettingsError, "not trusted", lambda plant: {"ssl_cafile": plant.stranger.file}),
    "no authority": (SettingsError, "ssl_cafile.*not trusted", lambda plant: {"ssl_cafile": None}),
    "name": (
        SettingsError,
        "ostname mismatch",
        lambda plant: {"bootstrap": f"localhost:{plant.broker.ports['client']}"},
    ),
    "file": (SettingsError, "no PEM file", lambda plant: {"ssl_cafile": plant.broker.properties}),
    "key": (SettingsError, "ssl_certfile", lambda plant: {"ssl_keyfile": plant.authority.file}),
}


@pytest.mark.parametrize("client", sorted(CLIENTS.keys() - {"frames"}))  # which has nothing to read yet
def test_who_trusts_and_is_trusted_gets_in(plant: Plant, client: str) -> None:
    CLIENTS[client](plant.settings(OPERATOR))


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_wrong_is_said_at_once_and_without_the_password(
    plant: Plant, client: str, wrong: str
) -> None:
    kind, words, other = WRONG[wrong]
    before = time.monotonic()
    with pytest.raises(kind, match=words) as told:
        CLIENTS[client](plant.settings(OPERATOR, **other(plant)))
    assert time.monotonic() - before < 5
    assert SECRET not in str(told.value)


def test_a_broker_that_is_away_is_waited_for_and_not_blamed(plant: Plant) -> None:
    assert connection(plant.settings(OPERATOR, bootstrap="127.0.0.1:1"), "probe")
    some = f"127.0.0.1:1,{plant.broker.bootstrap}"
    assert connection(plant.settings(OPERATOR, bootstrap=some), "probe")  # one that takes us is enough
    with pytest.raises(LogRefused, match="does not take user"):
        connection(plant.settings(OPERATOR, bootstrap=some, password=f"{SECRET}wrong"), "probe")
