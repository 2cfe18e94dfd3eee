"""`dapo triton` against a model server in this process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dapo.pack_io import write_pack
from pipeline.cli import invoke
from tests.unit.pipeline.triton.test_client import ENCODER, PACK
from tests.unit.pipeline.triton.test_reconcile import OTHER
from triton_models.config import parameter
from triton_models.testing import FakeTriton


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with FakeTriton(ENCODER) as server:
        yield server


@pytest.fixture
def packs(tmp_path: Path) -> tuple[str, str]:
    for name, pack in (("a.pack", PACK), ("b.pack", OTHER)):
        write_pack(pack, tmp_path / name)
    return str(tmp_path / "a.pack"), str(tmp_path / "b.pack")


def test_deploy_and_status(
    triton: FakeTriton, packs: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = packs
    with FakeTriton(ENCODER) as replica:
        urls = ["--url", triton.url, "--url", replica.url]
        assert invoke(["triton", "status", first, *urls]) == 1
        assert capsys.readouterr().out.count("serves nothing") == 2
        assert invoke(["triton", "deploy", first, *urls]) == 0
        assert f"{replica.url}: dapo serves {PACK.configuration_hash}" in capsys.readouterr().out
        assert invoke(["triton", "deploy", first, *urls]) == 0
        assert capsys.readouterr().out.count("(had it already)") == 2
        assert invoke(["triton", "status", first, *urls]) == 0
    assert invoke(["triton", "deploy", second, *urls, "--keep", first]) == 1
    said = capsys.readouterr()
    assert f"{triton.url}: dapo serves {OTHER.configuration_hash}" in said.out
    assert f"error: model server {replica.url}" in said.err


def test_where_the_models_run_is_said_to_the_server(triton: FakeTriton, packs: tuple[str, str]) -> None:
    placed = ["--device", "gpu", "--gpus", "0,2", "--instances", "2", "--weights-folder", "/weights"]
    assert invoke(["triton", "deploy", packs[0], "--url", triton.url, *placed]) == 0
    config = triton.configs["clip_encoder"]
    assert (list(config.instance_group[0].gpus), config.instance_group[0].count) == ([0, 2], 2)
    assert parameter(config, "weights_folder") == "/weights"


def test_where_the_models_run_may_come_from_the_settings(
    triton: FakeTriton, packs: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As for a worker, which pushes by them too: what one of both pushed is no other model to the other."""
    config = tmp_path / "plant.toml"
    config.write_text('[triton]\ndevice = "gpu"\ngpus = ["1"]\nthreads = 3\nweights_folder = "/weights"\n')
    monkeypatch.setenv("DAPO_TRITON__INSTANCES", "2")
    given = ["--config", str(config)]
    assert invoke(["triton", "deploy", packs[0], "--url", triton.url, *given, "--threads", "4"]) == 0
    group = triton.configs["clip_encoder"].instance_group[0]
    assert (list(group.gpus), group.count) == ([1], 2)
    assert parameter(triton.configs["clip_encoder"], "weights_folder") == "/weights"
    assert parameter(triton.configs["clip_encoder"], "threads") == "4", "an option goes before a setting"
    assert invoke(["triton", "repository", str(tmp_path / "m"), "--pack", packs[0], *given]) == 0
    assert "count: 2" in (tmp_path / "m" / "clip_encoder" / "config.pbtxt").read_text()


def test_the_server_may_come_from_the_settings(
    triton: FakeTriton, packs: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAPO_TRITON__URL", triton.url)
    assert invoke(["triton", "deploy", packs[0], "--ensemble", "dapo_challenger"]) == 0
    assert "dapo_challenger" in triton.models


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status"], "give --url HOST:PORT"),
        (["deploy", "--url", "a:1", "--gpus", "all"], "triton.gpus: 'all' is no number"),
        (["deploy", "no.pack", "--url", "a:1"], "no.pack: can't be read"),
        (["repository", "FILE"], "can't be written"),
    ],
)
def test_mistakes_are_messages(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("")
    assert invoke(["triton", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_repositories_are_written(tmp_path: Path, packs: tuple[str, str]) -> None:
    assert invoke(["triton", "repository", str(tmp_path / "skeleton")]) == 0
    assert not list((tmp_path / "skeleton").rglob("model.py"))
    assert invoke(["triton", "repository", str(tmp_path / "fixed"), "--pack", packs[0]]) == 0
    assert len(list((tmp_path / "fixed").rglob("model.py"))) == 2


def test_reconcile_goes_on_until_it_is_stopped(
    triton: FakeTriton, packs: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    def stop_when_served() -> None:
        tick = threading.Event()
        for _ in range(1000):
            if "dapo" in triton.models or tick.wait(0.02):
                break
        tick.wait(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_when_served)
    stopper.start()
    assert invoke(["triton", "reconcile", packs[0], "--url", triton.url, "--period", "0.1"]) == 0
    stopper.join()
    assert f"{triton.url} serves the pack" in capsys.readouterr().out
