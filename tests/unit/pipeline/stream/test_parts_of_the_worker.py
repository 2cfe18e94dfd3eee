"""Slots, health, metrics and the ledger."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from dapo.errors import SettingsError
from pipeline.ports import Record
from pipeline.stream.archiving import ArchiveMetrics
from pipeline.stream.health import HealthServer
from pipeline.stream.label_sync import LabelMetrics
from pipeline.stream.ledger import Ledger
from pipeline.stream.metrics import Metrics
from pipeline.stream.parts import PartMetrics
from pipeline.stream.slots import Slot
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import Teller
from pipeline.testing import DAY, frame
from tests.unit.pipeline.stream.test_verdicts import result

DOCUMENT = Path(__file__).parents[4] / "docs" / "metrics.md"


def test_the_lowest_free_slot_is_taken_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with Slot("g") as first:
        with Slot("g") as second:
            assert first.name != second.name
        with Slot("g") as again:
            assert again.name == second.name
    with Slot("g") as again:
        assert again.name == first.name


def test_a_given_slot_is_not_shared(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with (
        Slot("g", "pod-1"),
        Slot("other", "pod-1"),
        pytest.raises(SettingsError, match="held by another worker"),
    ):
        Slot("g", "pod-1")


def test_slots_do_not_depend_on_the_temporary_folder_which_a_service_has_for_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    names = []
    for unit in ("a", "b"):
        (tmp_path / unit).mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / unit))
        names.append(Slot("g"))
    try:
        assert names[0].name != names[1].name
    finally:
        for slot in names:
            slot.close()


def test_a_lock_that_was_removed_between_opening_and_locking_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    lock, cleaned = fcntl.flock, []

    def cleaner(file, how):
        lock(file, how)
        if not cleaned:
            cleaned.append(file.name)
            Path(file.name).unlink()

    monkeypatch.setattr("pipeline.stream.slots.fcntl.flock", cleaner)
    with Slot("g", "pod"), pytest.raises(SettingsError, match="held by another worker"):
        Slot("g", "pod")
    assert len(cleaned) == 1


def test_a_state_folder_that_can_not_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(SettingsError, match="XDG_STATE_HOME"):
        Slot("g")


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


def test_a_client_that_says_nothing_blocks_nobody(capfd, monkeypatch):
    monkeypatch.setattr("pipeline.stream.health._Quiet.timeout", 0.2)
    server = HealthServer(0, Metrics().registry, dict)
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as silent:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz", timeout=10) as answer:
                assert answer.status == 200
            assert silent.recv(1) == b""  # hung up on
    finally:
        server.close()
    assert capfd.readouterr().err == ""


def test_a_port_that_is_taken_is_named():
    server = HealthServer(0, Metrics().registry, dict)
    try:
        with pytest.raises(SettingsError, match="metrics port"):
            HealthServer(server.port, Metrics().registry, dict)
    finally:
        server.close()


@pytest.mark.parametrize("made", [Metrics, PartMetrics, ArchiveMetrics, LabelMetrics])
def test_every_metric_is_documented_with_its_labels(made):
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    for name, metric in vars(made()).items():
        if name != "registry":
            ends = tuple(f"| `{metric._name}{ending}` |" for ending in ("", "_total", "_info"))
            [row] = [row for row in rows if row.startswith(ends)]
            assert all(f"`{label}`" in row for label in metric._labelnames), row


def told(**headers):
    teller = Teller(Topics("t"))
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


def test_numbers_that_another_worker_published_meanwhile_are_no_gap():
    ledger = Ledger(Metrics(), worker_id="w", configuration_hash="h")
    for sequence in (1, 2):
        ledger.published(told(camera="a", sequence=sequence))
    ledger.undone(0)  # the partition went to another worker, and came back
    for sequence in (5000, 5003):
        ledger.published(told(camera="a", sequence=sequence))
    assert ledger.cameras["a"].gaps == 2


def test_a_frame_with_a_broken_header_has_a_row_and_is_no_gap():
    teller = Teller(Topics("t"))
    ledger = Ledger(Metrics(), worker_id="w", configuration_hash="h")
    ledger.published(told(camera="a", sequence=1))
    for key in (b"a", b"\xff", None):
        record = Record("t.frames", 0, 2, key, b"x", (("ce_id", b"\xff"),), DAY)
        broken = frame("0/2", b"x", error=("broken-header", "x"), record=record)
        ledger.published(
            teller.tell(dataclasses.replace(result(error=("read", "broken-header", "x")), frame=broken))
        )
    assert set(ledger.cameras) == {"a", ""}
    for sequence in (3, 6):
        ledger.published(told(camera="a", sequence=sequence))
    assert ledger.cameras["a"].gaps == 2


def test_a_thousand_cameras_share_one_count():
    ledger = Ledger(Metrics(), worker_id="w", configuration_hash="h")
    for number in range(1500):
        ledger.published(told(camera=f"c{number}", sequence=0))
    assert len(ledger.cameras) <= 1001
    assert sum(count.frames for count in ledger.cameras.values()) == 1500
