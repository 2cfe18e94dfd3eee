"""The first word with a broker: is it one that we trust, and does it take us?

kafka-python tries a refused certificate or password again and again, and says in the end that it timed out. So before a
client is made one connection is opened as it would open it, and what comes of it is told in the user's words.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from dapo.errors import DapoError, LogRefused, SettingsError

_GREETING_S = 5.0  # a broker answers in milliseconds; one that is away is waited for elsewhere
_MISMATCH = (kafka_errors.UnsupportedSaslMechanismError, kafka_errors.IllegalSaslStateError)
# OpenSSL's words for a peer that does not speak TLS at all.
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}


def greet(arguments: Mapping[str, Any]) -> None:
    """Return when one of the brokers takes us, or when none can be asked now.

    Args:
        arguments: of a Kafka client; `ssl_context` where it speaks TLS.

    Raises:
        SettingsError: no broker's certificate is trusted, or its encryption or mechanism is another one.
        LogRefused: user or password are not taken.
    """
    problem: DapoError | None = None
    net = NetworkSelector(client_id=arguments["client_id"])
    manager = _Greeter(net, **arguments)
    try:
        for broker in manager.cluster.bootstrap_brokers():
            try:
                _shake_hands(broker.host, broker.port, arguments.get("ssl_context"))
                if "sasl_mechanism" in arguments:
                    manager.run(_log_in, manager, broker.node_id)
                return
            except (OSError, kafka_errors.KafkaError) as error:
                problem = problem or _told(f"{broker.host}:{broker.port}", arguments, error)
    finally:
        manager.close()
        net.close()
    if problem is not None:
        raise problem


def _shake_hands(host: str, port: int, context: ssl.SSLContext | None) -> None:
    if context is None:
        return
    with (
        socket.create_connection((host, port), _GREETING_S) as plain,
        context.wrap_socket(plain, server_hostname=host),
    ):
        return


class _Greeter(KafkaConnectionManager):  # type: ignore[misc]
    """Reads an answer also where the broker closes the connection right behind it, as it does after a wrong password.

    kafka-python drops what came together with the end of a connection, mostly that very answer.
    """

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        transport = await super()._build_transport(node, timeout_at=timeout_at)
        receive = transport._sock_recv

        def answer_first() -> tuple[bytes, Exception | None]:
            data, error = receive()
            return data, None if data else error  # the end is met again by the next reading

        transport._sock_recv = answer_first
        return transport


async def _log_in(manager: KafkaConnectionManager, node: str) -> None:
    await manager.get_connection(node, timeout_ms=_GREETING_S * 1000, refresh_metadata_on_err=False)


def _told(where: str, arguments: Mapping[str, Any], error: Exception) -> DapoError | None:
    """The error in the user's words; None where trying again may help."""
    if isinstance(error, kafka_errors.SaslAuthenticationFailedError):
        return LogRefused(
            f"the broker at {where} does not take user '{arguments['sasl_plain_username']}' with this password"
            f" ({arguments['sasl_mechanism']}). Check kafka.username and kafka.password."
        )
    if isinstance(error, _MISMATCH):
        return SettingsError(
            f"kafka.sasl_mechanism: the broker at {where} has no {arguments['sasl_mechanism']} on this port"
            f" ({type(error).__name__}). Set kafka.sasl_mechanism and kafka.security_protocol as the broker has them."
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return SettingsError(
            f"kafka.ssl_cafile: the certificate of the broker at {where} is not trusted ({error.verify_message}). "
            "Name the authority that signed it, and the broker as its certificate does (kafka.bootstrap)."
        )
    if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
        return SettingsError(
            f"kafka.security_protocol: {arguments['security_protocol']}, but the broker at {where} does not speak TLS"
            " on this port."
        )
    return None
