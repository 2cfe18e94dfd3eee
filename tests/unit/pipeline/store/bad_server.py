"""A server that answers whatever a test wants: what real ones do on their bad days."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None  # what Content-Length claims
    hang: bool = False  # say nothing until the server is closed


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class BadServer:
    """Answers by `answer`; keeps what it was asked in `asked`."""

    def __init__(self) -> None:
        self.answer: Callable[[Asked], Answer] = lambda _: Answer()
        self.asked: list[Asked] = []
        self._closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                named = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, named, body)
                outer.asked.append(asked)
                answer = outer.answer(asked)
                if answer.hang:
                    outer._closing.wait()
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header(
                    "Content-Length", str(len(answer.body) if answer.length is None else answer.length)
                )
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)
                self.close_connection = answer.length is not None

            do_GET = do_PUT = do_HEAD = do_DELETE = handle_any  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
