"""A worker's small web server: /metrics for Prometheus, /healthz (alive) and /readyz (broker, model and pack known)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from dapo.errors import SettingsError

Ready = Callable[[], dict[str, str]]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a client that holds its connection holds up neither the next one nor the end


class _Quiet(WSGIRequestHandler):
    timeout = 5  # s without a byte from the client: a probe has long given up by then

    def handle(self) -> None:
        """Answer one request; a client that says nothing, or goes away, is no news."""
        with suppress(TimeoutError, ConnectionError):
            super().handle()

    def log_message(self, format: str, *arguments: Any) -> None:
        """A probe every few seconds is no news."""


class HealthServer:
    """Serves until `close`.

    Args:
        port: 0 takes a free one; `port` then says which.
        host: loopback unless the worker runs in a container.
        ready: what is missing, by name with a reason; empty: ready.

    Raises:
        SettingsError: the port is taken.
    """

    def __init__(self, port: int, registry: CollectorRegistry, ready: Ready, host: str = "127.0.0.1") -> None:
        metrics = make_wsgi_app(registry)

        def serve(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            path = environ.get("PATH_INFO", "")
            if path == "/metrics":
                found: Iterable[bytes] = metrics(environ, start)
                return found
            if path not in ("/healthz", "/readyz"):
                start("404 Not Found", [("Content-Type", "text/plain")])
                return [b"/metrics, /healthz, /readyz\n"]
            missing = ready() if path == "/readyz" else {}
            status = "503 Service Unavailable" if missing else "200 OK"
            start(status, [("Content-Type", "application/json")])
            return [
                json.dumps(
                    {"ready" if path == "/readyz" else "alive": not missing, "missing": missing}
                ).encode()
            ]

        try:
            self._server: WSGIServer = make_server(host, port, serve, _Server, _Quiet)
        except OSError as error:
            raise SettingsError(
                f"metrics port: {port} can't be taken: {error.strerror}. Give another."
            ) from error
        self.port: int = self._server.server_port
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def serve(
    held: ExitStack,
    port: int | None,
    host: str,
    registry: CollectorRegistry,
    ready: Ready,
    say: Callable[[str], None],
) -> None:
    """Serve for as long as `held` holds, and say where. Nothing where `port` is None.

    Raises:
        SettingsError: the port is taken.
    """
    if port is not None:
        server = HealthServer(port, registry, ready, host)
        held.callback(server.close)
        say(f"metrics, /healthz and /readyz: http://{host}:{server.port}/")
