"""A real network camera, as far as one fits into a test: MJPEG over HTTP, through OpenCV's FFmpeg."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from pipeline.sources.camera import CameraSource
from pipeline.testing import encoded, surface

FRAMES_PER_CONNECTION = 40
PICTURE = surface(1, defect=True)


@pytest.fixture
def camera() -> Iterator[tuple[str, list[int]]]:
    """Address of a camera that drops each connection after some frames, and the connections it got."""
    connections: list[int] = []
    body = encoded(PICTURE, "JPEG")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            connections.append(1)
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=cut")
            self.end_headers()
            head = b"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body)
            for _ in range(FRAMES_PER_CONNECTION):
                self.wfile.write(head + body + b"\r\n")

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/live.mjpg", connections
    server.shutdown()
    server.server_close()


def test_frames_of_a_network_camera_across_lost_connections(camera: tuple[str, list[int]]) -> None:
    address, connections = camera
    source = CameraSource(address, pause_s=0.01)
    seen = []
    for frame in source:
        assert frame.pixels is not None
        assert np.abs(frame.pixels.astype(int) - PICTURE).mean() < 10
        seen.append(frame.sequence)
        if source.reconnects == 2:
            break
    source.close()
    assert len(connections) >= 2
    assert seen == sorted(set(seen))
