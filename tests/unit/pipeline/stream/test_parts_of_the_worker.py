"""Slots, health, metrics and the ledger."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from dapo.errors import SettingsError
from pipeline.rows import Configuration
from pipeline.stream.health import HealthServer
from pipeline.stream.ledger import Ledger
from pipeline.stream.metrics import Metrics
from pipeline.stream.slots import Slot
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import Teller
from pipeline.testing import small_pack
from tests.unit.pipeline.stream.test_verdicts import result

DOCUMENT = Path(__file__).parents[4] / "docs" / "metrics.md"


def test_the_lowest_free_slot_is_taken_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Slot("g") as first:
        with Slot("g") as second:
            assert first.name != second.name
        with Slot("g") as again:
            assert again.name == second.name
    with Slot("g") as again:
        assert again.name == first.name


def test_a_given_slot_is_not_shared(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with (
        Slot("g", "pod-1"),
        Slot("other", "pod-1"),
        pytest.raises(SettingsError, match="held by another worker"),
    ):
        Slot("g", "pod-1")


def get(url):
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_health_says_what_is_missing():
    missing: dict[str, str] = {}
    metrics = Metrics()
    server = HealthServer(0, metrics.registry, lambda: missing)
    try:
        base = f"http://127.0.0.1:{server.port}"
        assert get(f"{base}/readyz")[0] == 200
        missing["model"] = "away"
        status, body = get(f"{base}/readyz")
        assert status == 503
        assert json.loads(body)["missing"] == {"model": "away"}
        assert get(f"{base}/healthz")[0] == 200
        assert "dapo_frames_read_total" in get(f"{base}/metrics")[1]
        assert get(f"{base}/")[0] == 404
    finally:
        server.close()


def test_a_port_that_is_taken_is_named():
    server = HealthServer(0, Metrics().registry, dict)
    try:
        with pytest.raises(SettingsError, match=r"worker\.metrics_port"):
            HealthServer(server.port, Metrics().registry, dict)
    finally:
        server.close()


def test_every_metric_is_documented_with_its_labels():
    text = DOCUMENT.read_text()
    for family in Metrics().registry.collect():
        assert f"`{family.name}" in text, family.name
    for name in ("camera", "result_state", "evaluation", "type", "reason_code", "what", "stage"):
        assert f"`{name}`" in text


def told(**headers):
    teller = Teller(Topics("t"), Configuration.of(small_pack(), "p"))
    return teller.tell(result(**headers))


def test_the_ledger_balances_and_tells_lines_apart():
    beats = []
    ledger = Ledger(Metrics(), worker_id="w", configuration_hash="h", beat=beats.append)
    for camera, line, sequence, error in [
        ("a", "l1", 1, None),
        ("a", "l1", 2, None),
        ("a", "l1", 5, ("decode", "damaged", "x")),
        ("b", "l2", 1, ("drop", "overload", "x")),
        ("a", "l1", 0, None),
    ]:
        ledger.published(told(camera=camera, line=line, sequence=sequence, error=error))
    a, b = ledger.cameras["a"], ledger.cameras["b"]
    assert (a.frames, a.completed, a.failed, a.aborted, a.gaps) == (4, 3, 1, 0, 2)
    assert (b.frames, b.completed, b.failed, b.aborted, b.gaps) == (1, 0, 0, 1, 0)
    ledger.lost(3)
    ledger.beat(2, 10.0, 5, False)
    assert {(one.line_id, one.frames_in, one.gaps, one.lost) for one in beats} == {
        ("l1", 4, 2, 3),
        ("l2", 1, 0, 3),
    }


def test_a_thousand_cameras_share_one_count():
    ledger = Ledger(Metrics(), worker_id="w", configuration_hash="h")
    for number in range(1500):
        ledger.published(told(camera=f"c{number}", sequence=0))
    assert len(ledger.cameras) <= 1001
    assert sum(count.frames for count in ledger.cameras.values()) == 1500
