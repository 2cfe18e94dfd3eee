"""Deployments on a model server in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tritonclient.utils import InferenceServerException

from dapo.errors import ServiceUnavailable, SettingsError
from tests.unit.triton_models.packs import calibrated, encoder, pack
from triton_models.config import Placement
from triton_models.connection import Address, RequestRefused, explained, translated
from triton_models.contract import CHALLENGER, ENCODER, HEAD
from triton_models.deploy import deploy
from triton_models.probe import probe
from triton_models.repository import DeployError, ModelFiles, ensemble_files, model_files
from triton_models.server import ModelServer, Served
from triton_models.testing import FakeTriton
from triton_models.versions import Versions


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with FakeTriton(encoder()) as server:
        yield server


@pytest.fixture
def server(triton: FakeTriton) -> Iterator[ModelServer]:
    with ModelServer(Address(triton.url)) as opened:
        yield opened


def _served(server: ModelServer) -> str | None:
    found = server.served()
    return found.configuration_hash if found else None


def test_a_deployment_is_models_first_and_the_ensemble_last(triton: FakeTriton, server: ModelServer) -> None:
    assert server.served() is None
    assert deploy(server, pack()).pushed == ("clip_encoder", "dapo_head", "dapo")
    assert set(triton.pushes[:2]) == {"clip_encoder", "dapo_head"}, "at once, so in either order"
    assert triton.pushes[2:] == ["dapo"]
    assert server.served() == Served(pack().configuration_hash, Versions.of(pack()), fixed=False)


def test_deploying_again_pushes_nothing(server: ModelServer) -> None:
    deploy(server, pack())
    assert deploy(server, pack()).pushed == ()
    assert deploy(server, pack(), placement=Placement(threads=1)).pushed == ("clip_encoder",)
    assert deploy(server, pack(), placement=Placement("cpu")).pushed == ("clip_encoder", "dapo_head")


def test_a_second_pack_keeps_the_first_and_there_is_a_way_back(server: ModelServer) -> None:
    deploy(server, pack())
    assert deploy(server, calibrated(), [pack()]).pushed == ("dapo_head", "dapo")
    assert _served(server) == calibrated().configuration_hash
    assert server.ready(HEAD.name) == {Versions.of(pack()).head, Versions.of(calibrated()).head}
    assert deploy(server, pack(), [calibrated()]).pushed == ("dapo",)
    assert _served(server) == pack().configuration_hash


def test_what_is_served_is_not_taken_away_by_accident(triton: FakeTriton, server: ModelServer) -> None:
    deploy(server, pack())
    with pytest.raises(DeployError, match=rf"serves pack {pack().configuration_hash}.*--keep"):
        deploy(server, calibrated())
    assert set(triton.pushes[:2]) == {"clip_encoder", "dapo_head"}, "at once, so in either order"
    assert triton.pushes[2:] == ["dapo"]
    deploy(server, calibrated(), replace=True)
    assert _served(server) == calibrated().configuration_hash
    assert server.ready(HEAD.name) == {Versions.of(calibrated()).head}


def test_a_challenger_is_served_beside_the_champion(server: ModelServer) -> None:
    deploy(server, pack())
    deploy(server, pack(1), [pack()], ensemble=CHALLENGER)
    found = {name: one.configuration_hash for name, one in server.ensembles().items()}
    assert found == {"dapo": pack().configuration_hash, CHALLENGER: pack(1).configuration_hash}
    with pytest.raises(DeployError, match="ensemble dapo_challenger"):
        deploy(server, pack(), replace=True)


def test_a_version_that_cannot_be_loaded_leaves_everything_as_it_was(server: ModelServer) -> None:
    deploy(server, pack())
    _, head = model_files([pack(), calibrated()], Placement())
    version = Versions.of(calibrated()).head
    broken = ModelFiles(HEAD.name, head.config, {**head.files, f"{version}/prompts.pack": b"broken"})
    with pytest.raises(DeployError, match=r"can't load dapo_head: .*not a prompt pack"):
        server.push(broken)
    assert server.ready(HEAD.name) == {Versions.of(pack()).head}
    assert _served(server) == pack().configuration_hash


def test_an_ensemble_that_cannot_be_pointed_points_back(
    triton: FakeTriton, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(server, pack())
    deploy(server, pack(), [calibrated()])
    wrong = ensemble_files(calibrated())
    wrong.config.ensemble_scheduling.step[1].model_version = 77
    right = ensemble_files(pack())
    monkeypatch.setattr(
        "triton_models.deploy.ensemble_files",
        lambda one, name: wrong if one.configuration_hash == calibrated().configuration_hash else right,
    )
    with pytest.raises(DeployError, match="version 77 is not loaded"):
        deploy(server, calibrated(), [pack()])
    assert _served(server) == pack().configuration_hash


def test_a_server_on_fixed_versions_takes_no_pushes(triton: FakeTriton, server: ModelServer) -> None:
    for model in (*model_files([pack()], Placement()), ensemble_files(pack(), fixed=True)):
        server.push(model)
    pushed = list(triton.pushes)
    with pytest.raises(DeployError, match="fixed versions"):
        deploy(server, calibrated(), [pack()])
    assert triton.pushes == pushed


def test_a_server_without_the_skeleton_says_what_it_lacks(triton: FakeTriton, server: ModelServer) -> None:
    triton.repository = {HEAD.name}
    with pytest.raises(DeployError, match=r"lacks clip_encoder\. Start it on"):
        deploy(server, pack())
    assert not triton.pushes


@pytest.mark.parametrize("kind", ["default", "paper"])
def test_a_right_server_passes_the_probe(server: ModelServer, kind: str) -> None:
    made = replace(pack(), scoring=replace(pack().scoring, kind=kind))
    deploy(server, made)


@pytest.mark.parametrize(
    ("model", "tensor", "message"),
    [
        (HEAD.name, "score", "a score that must be"),
        (HEAD.name, "pack_hash", "pack_hash: the server answers 0000"),
        (ENCODER.name, "features_hash", "features_hash: the server answers 0000"),
        (ENCODER.name, "cls", "features of a black and a striped image"),
    ],
)
def test_a_server_that_reads_tensors_wrongly_is_found_out(
    triton: FakeTriton, server: ModelServer, model: str, tensor: str, message: str
) -> None:
    deploy(server, pack())
    for version, run in list(triton.models[model].items()):

        def garbled(inputs: dict[str, torch.Tensor], run: object = run) -> dict[str, torch.Tensor]:
            answer = run(inputs)  # type: ignore[operator]
            return {**answer, tensor: torch.zeros_like(answer[tensor])}

        triton.models[model][version] = garbled
    with pytest.raises(DeployError, match=message):
        probe(server, pack())
    before = list(triton.pushes)
    triton.models.pop("dapo")
    with pytest.raises(DeployError, match=message):
        deploy(server, pack())
    assert triton.pushes == before


def test_a_server_that_is_away_is_worth_another_try(triton: FakeTriton, server: ModelServer) -> None:
    triton.stop()
    with pytest.raises(ServiceUnavailable, match=rf"model server {triton.url}"):
        deploy(server, pack())
    with pytest.raises(ServiceUnavailable):
        server.push(ensemble_files(pack()))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("UNAVAILABLE", ServiceUnavailable),
        ("DEADLINE_EXCEEDED", ServiceUnavailable),
        ("RESOURCE_EXHAUSTED", ServiceUnavailable),
        ("NOT_FOUND", ServiceUnavailable),
        ("INTERNAL", ServiceUnavailable),
        ("INVALID_ARGUMENT", RequestRefused),
        ("UNAUTHENTICATED", RequestRefused),
    ],
)
def test_statuses_are_of_two_kinds(status: str, error: type[Exception]) -> None:
    failure = InferenceServerException("it says why", f"StatusCode.{status}")
    assert type(translated("host:1", failure)) is error
    with pytest.raises(error, match=rf"host:1: it says why \({status}\)"), explained("host:1"):
        raise failure


def test_files_of_an_address_are_checked() -> None:
    with pytest.raises(SettingsError, match=r"/no/such\.pem: can't be read"):
        Address("host:1", ca=Path("/no/such.pem")).connect()
    with pytest.raises(SettingsError, match="needs its key"):
        Address("host:1", certificate=Path("/no/such.pem")).connect()


def test_the_fake_refuses_what_triton_refuses(server: ModelServer) -> None:
    with pytest.raises(DeployError, match="is not loaded"):
        server.push(ensemble_files(pack()))
    assert server.served() is None
