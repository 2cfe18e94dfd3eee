"""From settings to the arguments that every Kafka client of ours is made with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dapo.errors import SettingsError
from pipeline.settings import KafkaSettings

Arguments = dict[str, Any]


def connection(settings: KafkaSettings, client: str) -> Arguments:
    """Address, encryption and credentials, for consumer, producer and admin alike.

    Args:
        client: name of this client in the broker's logs and quotas.

    Raises:
        SettingsError: a file is missing, or credentials are incomplete.
    """
    protocol = settings.security_protocol
    arguments: Arguments = {
        "bootstrap_servers": [part.strip() for part in settings.bootstrap.split(",") if part.strip()],
        "client_id": client,
        "security_protocol": protocol,
        # A broker that comes back is noticed within a second, not within the half minute of the default.
        "reconnect_backoff_max_ms": 1000,
    }
    if protocol.endswith("SSL"):
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            path: Path | None = getattr(settings, name)
            if path is None:
                continue
            if not path.is_file():
                raise SettingsError(f"kafka.{name}: {path} is not there. Name the PEM file.")
            arguments[name] = str(path)
    if protocol.startswith("SASL"):
        if not settings.username or settings.password is None:
            raise SettingsError(
                f"kafka.security_protocol: {protocol} needs kafka.username and kafka.password."
            )
        arguments |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.username,
            "sasl_plain_password": settings.password.get_secret_value(),
        }
    return arguments


def producing(max_request_bytes: int) -> Arguments:
    """How everything of ours is written: all replicas, idempotent, gzip (every Kafka client decodes it)."""
    return {
        # Said aloud: with a conflicting option kafka-python would switch it off and say nothing.
        "enable_idempotence": True,
        "acks": "all",
        "max_request_size": max_request_bytes,
    }


def reading(max_partition_bytes: int) -> Arguments:
    """How everything of ours is read: committed messages only, offsets committed by us alone."""
    return {
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "allow_auto_create_topics": False,
        "max_partition_fetch_bytes": max_partition_bytes,
    }
