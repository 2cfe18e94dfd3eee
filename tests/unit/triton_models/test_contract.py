"""The contract, versions, configurations and documents."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb

from dapo.pack import Product
from dapo.pack_changes import add_type
from pipeline.testing import small_pack
from tests.unit.triton_models.packs import calibrated, pack
from triton_models import document
from triton_models.config import (
    Placement,
    as_json,
    as_text,
    encoder_config,
    ensemble_config,
    essence,
    head_config,
    parameter,
)
from triton_models.contract import HEAD, TAPS, ContractError, Sizes, check, max_types, product_names
from triton_models.versions import Versions

FOLDER = Path(document.__file__).parent
SIZES = Sizes(256, 16, 192)


def test_products_are_numbered_by_their_sorted_names() -> None:
    made = small_pack(products={"b": Product(), "Ä": Product(), "a": Product(), "!": Product()})
    assert product_names(made) == ["!", "*", "a", "b", "Ä"]


def test_k_max_is_the_most_types_of_one_product_and_never_none() -> None:
    assert max_types(pack()) == 3
    assert max_types(replace(pack(), products={"*": Product()})) == 1


def test_more_types_than_type_map_can_name_are_refused() -> None:
    made = small_pack(*(f"type-{number}" for number in range(255)))
    check(made)
    vector = np.eye(1, made.encoder.joint_width, dtype=np.float32)[0]
    with pytest.raises(ContractError, match=r"product \*: 256 types, .* at most 255"):
        check(add_type(made, "one more", vector))


def test_a_pack_of_other_words_or_thresholds_shares_the_encoder() -> None:
    old = Versions.of(pack())
    word = add_type(pack(), "crack", pack().tensors["text.normal"])
    for new in (calibrated(), word):
        assert Versions.of(new).encoder == old.encoder
        assert Versions.of(new).head != old.head
    assert Versions.of(pack(1)).encoder != old.encoder


@pytest.mark.parametrize("name", ["prompt.visual", "adapter.0.weight", "adapter.0.bias"])
def test_whatever_moves_features_moves_their_hash(name: str) -> None:
    moved = pack().tensors[name].copy()
    moved.flat[-1] += 1e-6
    assert replace(pack(), tensors={**pack().tensors, name: moved}).features_hash != pack().features_hash
    for field in ({"alpha": 0.5}, {"mean": (0.5, 0.5, 0.5)}, {"std": (0.5, 0.5, 0.5)}):
        assert replace(pack(), **field).features_hash != pack().features_hash


def test_versions_are_what_triton_takes() -> None:
    for made in (pack(), calibrated()):
        for version in vars(Versions.of(made)).values():
            assert 0 < version <= 2**32


def test_both_models_keep_all_versions_and_queue_without_a_policy() -> None:
    for config in (encoder_config(SIZES, Placement()), head_config(SIZES, Placement(instances=3))):
        assert config.version_policy.WhichOneof("policy_choice") == "all"
        assert config.HasField("dynamic_batching")
        assert "queue_policy" not in as_text(config)
        assert len(config.model_warmup) == 1
        assert set(config.model_warmup[0].inputs) == {tensor.name for tensor in config.input}
    head = head_config(SIZES, Placement(instances=3, threads=4))
    assert (head.instance_group[0].count, parameter(head, "threads")) == (1, "1")


@pytest.mark.parametrize(
    ("placement", "kind", "gpus"),
    [
        (Placement(), "KIND_AUTO", []),
        (Placement("cpu", instances=2), "KIND_CPU", []),
        (Placement("gpu", (0, 3), 2), "KIND_GPU", [0, 3]),
    ],
)
def test_instances_are_placed(placement: Placement, kind: str, gpus: list[int]) -> None:
    [group] = encoder_config(SIZES, placement).instance_group
    assert (pb.ModelInstanceGroup.Kind.Name(group.kind), list(group.gpus)) == (kind, gpus)
    assert group.count == placement.instances


def test_a_placement_reaches_the_model_as_parameters() -> None:
    config = encoder_config(SIZES, Placement("gpu", (0, 1), 2, 4, "torch", "/weights"))
    found = {name: parameter(config, name) for name in config.parameters}
    assert found == {
        "placement": "gpu 0,1 x2",
        "threads": "4",
        "runtime": "torch",
        "weights_folder": "/weights",
    }
    assert parameter(config, "no such") == ""


def test_an_ensemble_pins_both_steps_and_passes_every_tensor_on() -> None:
    config = ensemble_config(SIZES, Versions(7, 9), "abc", "dapo")
    steps = {step.model_name: step for step in config.ensemble_scheduling.step}
    assert {name: step.model_version for name, step in steps.items()} == {"clip_encoder": 7, "dapo_head": 9}
    fed = {tensor.name for tensor in config.input}.union(
        *(step.output_map.values() for step in steps.values())
    )
    for step in steps.values():
        assert set(step.input_map.values()) <= fed
    assert {tensor.name for tensor in config.output} <= set(steps["dapo_head"].output_map.values())


def test_sizes_that_versions_may_differ_in_are_open() -> None:
    assert SIZES.dims(TAPS) == [-1, 256, 192]
    assert [SIZES.dims(tensor) for tensor in HEAD.outputs] == [[1], [16, 16], [16, 16], [-1], [32]]


def test_text_and_json_say_the_same() -> None:
    config = ensemble_config(SIZES, Versions(2**32, 9), "abc", "dapo")
    assert text_format.Parse(as_text(config), pb.ModelConfig()) == config
    assert json_format.Parse(as_json(config), pb.ModelConfig()) == config
    assert json.loads(as_json(config))["max_batch_size"] == 8


def test_what_a_server_fills_in_is_no_difference() -> None:
    mine = head_config(SIZES, Placement())
    theirs = pb.ModelConfig()
    theirs.CopyFrom(mine)
    theirs.instance_group[0].name = "dapo_head_0"
    theirs.optimization.input_pinned_memory.enable = True
    assert essence(theirs) == essence(mine)
    for other in (head_config(Sizes(512, 32, 192), Placement()), head_config(SIZES, Placement("cpu"))):
        assert essence(other) != essence(mine)


def test_generated_files_are_current() -> None:
    hint = "run 'python -m triton_models'"
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == document.document(), hint
    configurations = document.configurations()
    assert set(configurations) == {path.parent.name for path in FOLDER.glob("*/config.pbtxt")}
    for name, text in configurations.items():
        assert (FOLDER / name / "config.pbtxt").read_text(encoding="utf-8") == text, hint


def test_writing_the_documents_writes_what_is_current(tmp_path: Path) -> None:
    for name in document.configurations():
        (tmp_path / name).mkdir()
    document.write(tmp_path)
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert path.read_bytes() == (FOLDER / path.relative_to(tmp_path)).read_bytes()
