"""What all servers have in common, on one that starts in a moment, with real processes."""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from deploy.native.cache import Package
from deploy.native.ports import HOST, PortTaken
from deploy.native.process import Process, wait_until
from deploy.native.progress import Progress
from deploy.native.record import FILE
from deploy.native.server import Server, ServerError

# A child process in the same group sleeps, as model servers have them.
_PROGRAM = """
import subprocess, sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("child", child.pid, flush=True)
if "--fail" in sys.argv:
    child.kill()
    sys.exit("the disk is on fire")
HTTPServer(("127.0.0.1", int(sys.argv[1])), SimpleHTTPRequestHandler).serve_forever()
"""
WAIT_S = 20.0


def _build(folder: Path, _progress: Progress) -> None:
    (folder / "program.py").write_text(_PROGRAM, encoding="utf-8")


class WebServer(Server):
    """An HTTP server; `extra` are further arguments."""

    NAME = "web"
    PORTS = ("http",)
    STOP_S = 10.0
    extra: tuple[str, ...] = ()
    cleaned = 0

    @classmethod
    def package(cls) -> Package:
        return Package("web", "1", _build, ("program.py",), "nothing")

    @property
    def address(self) -> str:
        return f"{HOST}:{self.ports['http']}"

    def client_environment(self) -> dict[str, str]:
        return {"DAPO_WEB__URL": self.address}

    def prepare(self, installed: Path) -> None:
        (self.folder / "prepared").touch()

    def command(self, installed: Path) -> Sequence[str]:
        return [sys.executable, str(installed / "program.py"), str(self.ports["http"]), *self.extra]

    def healthy(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.ports["http"], timeout=1.0)
        try:
            connection.request("HEAD", "/")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def cleanup(self) -> None:
        self.cleaned += 1


class DeafServer(WebServer):
    """Never healthy."""

    START_S = 0.5

    def healthy(self) -> bool:
        return False


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def child(server: Server) -> Process | None:
    """The process that the server started, if it lives."""
    pids = re.findall(r"child (\d+)", server.log.read_text())
    try:
        return Process.of(int(pids[-1]))
    except ProcessLookupError:
        return None


def test_it_answers_when_started_and_is_gone_when_left(tmp_path):
    with WebServer(tmp_path / "web") as server:
        assert server.running
        assert server.healthy()
        assert server.pid == json.loads((server.folder / FILE).read_text())["process"]["pid"]
        assert (server.folder / "prepared").exists()
    assert not server.running
    assert not server.healthy()
    assert server.cleaned == 1


def test_started_twice_is_started_once(tmp_path):
    with WebServer(tmp_path / "web") as server:
        pid = server.pid
        assert server.start() is server
        assert server.pid == pid


def test_a_kill_takes_the_whole_group_and_it_comes_back_under_its_address(tmp_path):
    with WebServer(tmp_path / "web") as server:
        address, first = server.address, child(server)
        assert first is not None
        assert first.alive()
        server.kill()
        assert not server.running
        assert first.wait(WAIT_S)
        server.restart()
        assert server.healthy()
        assert server.address == address
        assert server.log.read_text().count("child") == 2


def test_a_paused_one_does_not_answer_and_is_stopped_all_the_same(tmp_path):
    with WebServer(tmp_path / "web") as server:
        server.pause()
        assert server.running
        assert not server.healthy()
        server.resume()
        assert wait_until(server.healthy, WAIT_S)
        server.pause()
    assert not server.running
    with pytest.raises(ServerError, match=r"web can't be paused: its process \d+ has ended"):
        server.pause()


def test_one_that_ends_while_starting_says_why(tmp_path):
    server = WebServer(tmp_path / "web")
    server.extra = ("--fail",)
    with pytest.raises(ServerError, match=r"(?s)web ended while starting.*web\.log:.*the disk is on fire"):
        server.start()
    assert not server.running


def test_one_that_does_not_answer_is_not_left_behind(tmp_path):
    server = DeafServer(tmp_path / "web")
    with pytest.raises(ServerError, match=r"web did not answer within 0 s"):
        server.start()
    assert not server.running


def test_a_port_that_another_program_has_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("deploy.native.server._FREED_S", 0.1)
    server = WebServer(tmp_path / "web")
    with socket.socket() as other:
        other.bind((HOST, server.ports["http"]))
        other.listen()
        with pytest.raises(PortTaken, match=rf"web: port {server.ports['http']} \(http\) is in use"):
            server.start()
    assert not server.running


def test_ports_can_be_given_and_a_wrong_name_is_refused(tmp_path):
    assert WebServer(tmp_path, {"http": 15123}).address == "127.0.0.1:15123"
    with pytest.raises(ServerError, match="web has no port 'grpc', only http"):
        WebServer(tmp_path, {"grpc": 1})


def test_what_was_not_started_has_no_process(tmp_path):
    server = WebServer(tmp_path / "web")
    server.stop()
    server.kill()
    for action in (lambda: server.pid, server.pause, server.resume):
        with pytest.raises(ServerError, match="was not started"):
            action()


def test_another_object_takes_it_over_by_its_folder(tmp_path):
    with WebServer(tmp_path / "web") as server:
        other = WebServer(tmp_path / "web")
        assert other.attach()
        assert (other.pid, other.ports) == (server.pid, server.ports)
        other.stop()
        assert not server.running
        assert not WebServer(tmp_path / "web").attach()


def test_a_record_whose_number_was_given_to_another_process_is_not_taken_over(tmp_path):
    with WebServer(tmp_path / "web") as server:
        record = json.loads((server.folder / FILE).read_text())
        record["process"]["started"] -= 1
        (server.folder / FILE).write_text(json.dumps(record))
        other = WebServer(tmp_path / "web")
        assert not other.attach()
        other.stop()
        assert server.running


@pytest.mark.parametrize(
    "text", ["", "[]", '{"process": {"pid": 1}, "ports": {}}', '{"process": 3, "ports": 4}']
)
def test_a_broken_record_is_no_record(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    assert not WebServer(tmp_path).attach()
