"""A worker says what it waits for, from its first moment on."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import numpy as np
import pytest

from dapo.errors import FrameError, ServiceUnavailable
from pipeline.settings import load
from pipeline.stream import compose
from pipeline.stream.ledger import Ledger
from pipeline.stream.metrics import Metrics
from pipeline.stream.standing import NotedInfer, Standing
from pipeline.testing import FakeInfer, small_pack
from pipeline.triton.client import UnexpectedPack

PACK = small_pack()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def get(url: str) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_who_is_waited_for_is_named_until_it_answers():
    said: list[str] = []
    standing = Standing(threading.Event(), said.append)
    seen: list[dict[str, str]] = []

    def call() -> str:
        seen.append(standing.missing())
        if len(seen) == 1:
            raise ServiceUnavailable("no broker answers")
        return "opened"

    assert standing.until("broker", call) == "opened"
    assert list(seen[0]) == ["broker"]  # also while it is asked for the first time, which may take long
    assert seen[1] == {"broker": "no broker answers"}
    assert said == ["waiting: no broker answers"]
    assert standing.waiting_for() == ""


def test_an_error_of_one_frame_is_an_answer():
    standing = Standing(threading.Event(), lambda text: None)
    with pytest.raises(ServiceUnavailable), standing.asking("store"):
        raise ServiceUnavailable("away")
    assert standing.waiting_for() == "store"
    with pytest.raises(FrameError), standing.asking("store"):
        raise FrameError("not-found", "gone")
    assert standing.missing() == {}


def test_a_model_server_with_another_pack_is_told_from_one_that_is_away():
    class Server(FakeInfer):
        error: ServiceUnavailable | None = ServiceUnavailable("away")

        def infer(self, images, products):
            if self.error is not None:
                raise self.error
            return super().infer(images, products)

    named = compose.named(load({"triton.url": "127.0.0.1:8001"}, environment={}).settings)
    server = Server(PACK)
    standing = Standing(threading.Event(), lambda text: None, named)
    infer = NotedInfer(server, standing)
    images = np.zeros((1, infer.image_size, infer.image_size, 3), np.uint8)
    for server.error, what in (
        (ServiceUnavailable("away"), "model"),
        (UnexpectedPack("answers under pack 0"), "pack"),
        (ServiceUnavailable("away"), "model"),
        (UnexpectedPack("answers under pack 0"), "pack"),
    ):
        with pytest.raises(ServiceUnavailable):
            infer.infer(images, ["*"])
        assert list(standing.missing()) == [what]
    server.error = None
    assert len(infer.infer(images, ["*"])) == 1
    assert standing.waiting_for() == ""


def test_a_worker_beats_while_it_waits_for_its_model():
    stop, back, beats = threading.Event(), threading.Event(), []
    metrics = Metrics()
    standing = Standing(stop, lambda text: None)
    ledger = Ledger(metrics, worker_id="w", configuration_hash="h", waiting_for=standing.waiting_for)
    ledger.send = beats.append

    def model() -> str:
        until(lambda: any(one.waiting_for == "model" for one in beats))
        if not back.is_set():
            back.set()
            raise ServiceUnavailable("loading")
        return "model"

    assert not ledger.beating
    with standing.beating(lambda: ledger.beat(0, None, None, False)):
        assert standing.until("model", model) == "model"
        assert metrics.registry.get_sample_value("dapo_waiting", {"what": "model"}) == 1
    assert ledger.beating
    assert {(one.line_id, one.state) for one in beats if one.waiting_for} == {(None, "waiting")}


def test_a_worker_that_waits_for_its_broker_is_alive_and_says_why_it_is_not_ready(tmp_path, monkeypatch):
    def away(*_) -> None:  # at once; the client itself tries for half a minute
        raise ServiceUnavailable("no broker answers at 127.0.0.1:1")

    monkeypatch.setattr("pipeline.stream.compose.check_topics", away)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings = load({"kafka.bootstrap": "127.0.0.1:1", "worker.metrics_port": 0}, environment={}).settings
    stop, said, ended = threading.Event(), [], []

    def start() -> None:
        try:
            with compose.worker(settings, stop, said.append):
                ended.append("opened")
        except ServiceUnavailable as error:
            ended.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    try:
        until(lambda: any("waiting" in text for text in said))
        base = next(text for text in said if "http://" in text).rsplit(" ", 1)[1]
        assert get(f"{base}healthz") == (200, {"alive": True, "missing": {}})
        status, body = get(f"{base}readyz")
        assert status == 503
        assert list(body["missing"]) == ["broker"]
        assert "no broker answers" in body["missing"]["broker"]
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert ended
    assert ended != ["opened"]
