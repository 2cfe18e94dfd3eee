"""Model repositories on disk, the files of a push, weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from dapo.errors import WeightsNotFound
from dapo.pack_io import read_pack
from tests.unit.triton_models.packs import calibrated, pack
from triton_models.config import FIXED, Placement, parameter
from triton_models.contract import ContractError
from triton_models.repository import (
    PACK_FILE,
    DeployError,
    ensemble_files,
    model_files,
    write_repository,
    write_skeleton,
)
from triton_models.versions import Versions
from triton_models.weights import find_weights


def _config(path: Path) -> pb.ModelConfig:
    return text_format.Parse(path.read_text(), pb.ModelConfig())


def test_packs_of_one_image_side_share_an_encoder_version() -> None:
    encoder, head = model_files([pack(), calibrated()], Placement())
    assert encoder.versions == {Versions.of(pack()).encoder}
    assert head.versions == {Versions.of(pack()).head, Versions.of(calibrated()).head}
    encoder, _ = model_files([pack(), pack(1)], Placement())
    assert len(encoder.versions) == 2
    assert set(encoder.files) == {f"{v}/{name}" for v in encoder.versions for name in ("model.py", PACK_FILE)}


def test_the_same_pack_twice_is_one_version() -> None:
    assert model_files([pack(), pack()], Placement()) == model_files([pack()], Placement())


def test_packs_of_other_sizes_are_not_kept_side_by_side() -> None:
    larger = replace(pack(), encoder=replace(pack().encoder, image_size=96, patch_grid=6))
    with pytest.raises(DeployError, match="different sizes") as caught:
        model_files([pack(), larger], Placement())
    assert larger.configuration_hash[:12] in str(caught.value)


def test_a_skeleton_has_no_versions_and_may_be_written_again(tmp_path: Path) -> None:
    write_skeleton(tmp_path / "models")
    found = {path.relative_to(tmp_path / "models").as_posix() for path in (tmp_path / "models").rglob("*.*")}
    assert found == {"clip_encoder/config.pbtxt", "dapo_head/config.pbtxt"}
    assert _config(tmp_path / "models/clip_encoder/config.pbtxt").backend == "python"
    write_skeleton(tmp_path / "models")


def test_a_skeleton_that_cannot_be_written_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(DeployError, match="can't be written"):
        write_skeleton(tmp_path / "models")


def test_a_fixed_repository_holds_all_packs_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    write_repository(folder, calibrated(), [pack()], Placement(threads=1))
    for one in (pack(), calibrated()):
        path = folder / "dapo_head" / str(Versions.of(one).head) / PACK_FILE
        assert read_pack(path).configuration_hash == one.configuration_hash
    ensemble = _config(folder / "dapo" / "config.pbtxt")
    assert [step.model_version for step in ensemble.ensemble_scheduling.step] == [
        Versions.of(calibrated()).encoder,
        Versions.of(calibrated()).head,
    ]
    assert parameter(ensemble, FIXED)
    assert not parameter(ensemble_files(pack()).config, FIXED)
    assert (folder / "dapo" / "1").is_dir()
    assert folder.stat().st_mode & 0o055 == 0o055
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DeployError, match="not an empty folder"):
        write_repository(tmp_path, pack())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_pack_that_the_contract_cannot_carry_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triton_models.contract.MAX_TYPES", 2)
    with pytest.raises(ContractError, match="at most 2"):
        write_repository(tmp_path / "models", pack())
    assert not list(tmp_path.iterdir())


def test_weights_are_found_by_their_hash(tmp_path: Path) -> None:
    encoder = replace(pack().encoder, weights="openai")
    with pytest.raises(WeightsNotFound, match=rf"{encoder.sha256}\.safetensors in {tmp_path}"):
        find_weights(encoder, str(tmp_path))
    with pytest.raises(WeightsNotFound, match="--weights-folder"):
        find_weights(encoder, "")
    (tmp_path / f"{encoder.sha256}.pt").write_bytes(b"")
    assert find_weights(encoder, str(tmp_path)) == tmp_path / f"{encoder.sha256}.pt"


@pytest.mark.parametrize("weights", ["bundled", "random:3"])
def test_weights_that_the_program_has_need_no_file(weights: str) -> None:
    assert find_weights(replace(pack().encoder, weights=weights), "") is None
