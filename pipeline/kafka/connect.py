"""From settings to the arguments that every Kafka client of ours is made with."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from dapo.errors import SettingsError
from pipeline.kafka.greet import greet
from pipeline.settings import KafkaSettings

Arguments = dict[str, Any]


def connection(settings: KafkaSettings, client: str) -> Arguments:
    """Address, encryption and credentials, for consumer, producer and admin alike.

    Where brokers want to be trusted or want to know us, one of them is asked first: see `greet`.

    Args:
        client: name of this client in the broker's logs and quotas.

    Raises:
        SettingsError: a file can't be used, credentials are incomplete, or the brokers' certificate is not trusted.
        LogRefused: the credentials are not taken.
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
        arguments["ssl_context"] = _context(settings)
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
    if protocol != "PLAINTEXT":
        greet(arguments)
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


def _context(settings: KafkaSettings) -> ssl.SSLContext:
    """Certificates are verified against the named authority alone, or the system's; so is the broker's name."""
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path: Path | None = getattr(settings, name)
        if path is not None and not path.is_file():
            raise SettingsError(f"kafka.{name}: {path} is not there. Name the PEM file.")
    if settings.ssl_keyfile is not None and settings.ssl_certfile is None:
        raise SettingsError("kafka.ssl_keyfile: a key needs its certificate: set kafka.ssl_certfile.")
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
    except OSError as error:
        raise SettingsError(
            f"kafka.ssl_cafile: {settings.ssl_cafile}: no PEM file of certificates: {error}."
        ) from error
    if settings.ssl_certfile is not None:
        try:
            # Never asks at a terminal: a key under a password is refused like one that can't be read.
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password="")
        except OSError as error:
            raise SettingsError(
                f"kafka.ssl_certfile: {settings.ssl_certfile} with its key: no PEM files of a certificate and its key"
                f" without a password: {error}."
            ) from error
    return context
