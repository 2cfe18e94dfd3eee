"""A plant in which nobody trusts anybody: its broker, its certificates, its users and their rights."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
)

from deploy.native import KafkaServer
from pipeline.kafka.read import TopicReader
from pipeline.settings import KafkaSettings
from pipeline.stream.topics import Topics
from pipeline.testing import small_pack
from tests.integration.certificates import Authority

ROOT = Path(__file__).parents[3]
ACLS = ROOT / "deploy" / "acl"
ROLES = sorted(path.stem for path in ACLS.glob("*.sh"))
OPERATOR = "operator"
TOPICS = Topics()
PACK = small_pack()
DAPO = str(Path(sys.executable).with_name("dapo"))
SECRET = "s3cret-"  # every secret here begins so, and nothing else does
BROKER = {
    "listener.security.protocol.map": "CLIENT:SASL_SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "listener.name.client.sasl.enabled.mechanisms": "SCRAM-SHA-512",
    "listener.name.client.scram-sha-512.sasl.jaas.config": (
        "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    ),
    "listener.name.client.ssl.keystore.type": "PEM",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": f"User:ANONYMOUS;User:{OPERATOR}",  # ANONYMOUS: of INTERNAL, where this test sets up
}


def password(user: str) -> str:
    return f"{SECRET}{user}"


@dataclass(frozen=True)
class Plant:
    """A broker that trusts nobody, and those that signed its certificate or did not."""

    broker: KafkaServer
    authority: Authority
    stranger: Authority

    def settings(self, user: str, **other: Any) -> KafkaSettings:
        usual = {
            "bootstrap": self.broker.bootstrap,
            "security_protocol": "SASL_SSL",
            "ssl_cafile": self.authority.file,
            "username": user,
            "password": password(user),
        }
        return KafkaSettings(**{**usual, **other})

    def environment(self, user: str, **other: str) -> dict[str, str]:
        given = self.settings(user).model_dump(
            include={"bootstrap", "security_protocol", "ssl_cafile", "username"}
        )
        named = {f"DAPO_KAFKA__{name.upper()}": str(value) for name, value in given.items()}
        return os.environ | named | {"DAPO_KAFKA__PASSWORD": password(user)} | other


_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional_id": ResourceType.TRANSACTIONAL_ID,
}


def acls(role: str) -> list[ACL]:
    """What the file of a role grants."""
    told = subprocess.run(
        ["sh", str(ACLS / f"{role}.sh")],
        env=os.environ | {"ACLS": "echo"},
        capture_output=True,
        text=True,
        check=True,
    )
    parser = argparse.ArgumentParser(exit_on_error=True, allow_abbrev=False)
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--allow-principal", required=True)
    parser.add_argument("--operation", action="append", required=True)
    parser.add_argument("--resource-pattern-type", default="literal", choices=["literal", "prefixed"])
    for kind in _RESOURCES:
        parser.add_argument(f"--{kind.replace('_', '-')}", action="append", default=[])
    found = []
    for line in told.stdout.splitlines():
        given = parser.parse_args(line.split())
        pattern = ACLResourcePatternType[given.resource_pattern_type.upper()]
        found += [
            ACL(
                given.allow_principal,
                "*",
                ACLOperation[{"DescribeConfigs": "DESCRIBE_CONFIGS"}.get(operation, operation.upper())],
                ACLPermissionType.ALLOW,
                ResourcePattern(resource, name, pattern),
            )
            for kind, resource in _RESOURCES.items()
            for name in getattr(given, kind)
            for operation in given.operation
        ]
    return found


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def records(reader: TopicReader, topic: str) -> int:
    return sum(1 for _ in reader.read(reader.span(topic)))
