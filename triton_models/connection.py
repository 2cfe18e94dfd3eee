"""A connection to a model server, and its errors in the program's own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from dapo.errors import DapoError, ServiceUnavailable, SettingsError

# Statuses after which the same call may succeed later.
TRANSIENT = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
# Statuses of a server that is not as it should be: a model is not loaded, its process died, its GPU ran out of memory.
_SERVER_FAULT = frozenset({"NOT_FOUND", "INTERNAL", "UNKNOWN", "CANCELLED", "ABORTED"})
_MAX_MESSAGE = 2**31 - 1  # gRPC's own limit: a push carries several packs
# gRPC waits up to two minutes between attempts to reconnect, longer than a restarted server takes to serve again.
_MAX_RECONNECT_MS = 1000


class RequestRefused(DapoError):
    """The model server will never answer this, with what it serves now: the same request fails again."""


@dataclass(frozen=True)
class Address:
    """A model server's gRPC endpoint.

    Attributes:
        url: host:port.
        tls: speak TLS; also where a file is given.
        ca: PEM file of the authority that signed the server's certificate; None: those the system trusts.
        certificate, key: PEM files of this client, where the server wants to know it.
    """

    url: str
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def connect(self) -> InferenceServerClient:
        """A client; nothing is sent yet.

        Raises:
            SettingsError: a PEM file can't be read, or only one of certificate and key is given.
        """
        if (self.certificate is None) != (self.key is None):
            raise SettingsError(
                f"{self.url}: a client certificate needs its key, and the key its certificate."
            )
        creds = None
        if self.tls or self.ca or self.certificate:
            creds = grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.certificate))
        return InferenceServerClient(
            self.url,
            creds=creds,
            channel_args=[
                ("grpc.max_send_message_length", _MAX_MESSAGE),
                ("grpc.max_receive_message_length", _MAX_MESSAGE),
                ("grpc.max_reconnect_backoff_ms", _MAX_RECONNECT_MS),
                ("grpc.initial_reconnect_backoff_ms", _MAX_RECONNECT_MS // 10),
                # Otherwise a new client takes over the old one's socket, also one whose host went silent.
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: can't be read: {error.strerror}.") from error


def status(error: InferenceServerException) -> str:
    """gRPC status of a failed call ("UNAVAILABLE")."""
    return str(error.status()).removeprefix("StatusCode.")


def translated(url: str, error: InferenceServerException) -> DapoError:
    """The program's error for a failed call.

    | gRPC status                                           | becomes            | because                         |
    |-------------------------------------------------------|--------------------|---------------------------------|
    | UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED    | ServiceUnavailable | away, too slow or full          |
    | NOT_FOUND, INTERNAL, UNKNOWN, CANCELLED, ABORTED      | ServiceUnavailable | ill, whatever the frame         |
    | all others (INVALID_ARGUMENT, UNAUTHENTICATED, ...)   | RequestRefused     | the same request fails again    |
    """
    code = status(error)
    text = f"model server {url}: {error.message()} ({code})."
    return ServiceUnavailable(text) if code in TRANSIENT | _SERVER_FAULT else RequestRefused(text)


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn errors of the client library into ServiceUnavailable or RequestRefused."""
    try:
        yield
    except InferenceServerException as error:
        raise translated(url, error) from error
