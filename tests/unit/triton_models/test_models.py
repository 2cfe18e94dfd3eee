"""The model code as Triton runs it: the same numbers as in process, and what it refuses."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from dapo.errors import PackError, WeightsNotFound
from dapo.pack import Product
from dapo.pack_io import write_pack
from dapo.predictor import Head, ImageSide, Predictor
from dapo.tiny import bundled_weights
from tests.unit.triton_models.packs import calibrated, encoder, images, pack
from triton_models.contract import ENCODER, HEAD, product_names
from triton_models.document import bundled_pack
from triton_models.encode import Encode
from triton_models.predict import Predict
from triton_models.repository import PACK_FILE
from triton_models.settings import Settings, Tensors, Unanswerable
from triton_models.testing import stub

NAMES = ["plate", "blank", "*", "tube", "plate"]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return _backend(monkeypatch, stub())


def _backend(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> ModuleType:
    """`triton_models.runtime` over a stub; its attribute `pb_utils` is the stub."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    monkeypatch.delitem(sys.modules, "triton_models.runtime", raising=False)
    runtime = importlib.import_module("triton_models.runtime")
    monkeypatch.setattr(sys.modules["triton_models"], "runtime", runtime)
    return runtime


def _encode() -> Encode:
    return Encode(ImageSide(pack(), encoder=encoder()), pack().features_hash)


def _features(count: int) -> Tensors:
    return _encode()({"image": torch.from_numpy(images(count))})


def _indices(names: list[str]) -> torch.Tensor:
    return torch.tensor([[product_names(pack()).index(name)] for name in names])


def test_both_models_together_say_what_the_predictor_says() -> None:
    found = Predict(Head(pack()))({**_features(5), "product": _indices(NAMES)})
    known = Predictor(pack(), encoder=encoder()).predict(images(5), NAMES)
    for row, one in enumerate(known):
        count = len(one.type_scores)
        assert found["score"][row].item() == np.float32(one.score)
        assert np.array_equal(found["map"][row].numpy(), one.map)
        assert np.array_equal(found["type_map"][row].numpy(), one.type_map)
        assert np.array_equal(found["type_scores"][row, :count].numpy(), one.type_scores)
        assert (found["type_scores"][row, count:] == -torch.inf).all()
        assert bytes(found["pack_hash"][row].tolist()).hex() == pack().configuration_hash
    kinds = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in found.items()}
    assert kinds == {
        "score": "float32",
        "map": "float16",
        "type_map": "uint8",
        "type_scores": "float32",
        "pack_hash": "uint8",
    }


def test_a_pack_without_types_still_answers() -> None:
    bare = replace(pack(), products={"*": Product()})
    found = Predict(Head(bare))({**_features(2), "product": torch.zeros(2, 1, dtype=torch.int64)})
    assert found["type_scores"].shape == (2, 1)
    assert (found["type_scores"] == -torch.inf).all()


def test_features_of_another_image_side_are_not_signed() -> None:
    given = {**_features(2), "product": _indices(["*", "*"])}
    given["features_hash"] = given["features_hash"].clone()
    given["features_hash"][1, 5] ^= 1
    found = Predict(Head(pack()))(given)["pack_hash"]
    assert bytes(found[0].tolist()).hex() == pack().configuration_hash
    assert not found[1].any()
    again = Predict(Head(calibrated()))({**_features(2), "product": _indices(["*", "*"])})["pack_hash"]
    assert bytes(again[1].tolist()).hex() == calibrated().configuration_hash


def test_a_model_process_keeps_the_memory_it_frees() -> None:
    program = """
import resource, numpy as np
from dapo.memory import keep_freed_memory
assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        a, b = np.ones(2**20), np.ones(2**21)  # 8 and 16 MB: 6,000 pages
        del a, b
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert int(said) < 6000  # 120,000 otherwise


@pytest.mark.parametrize("index", [-1, 4])
def test_a_product_that_the_pack_has_not_is_refused(index: int) -> None:
    with pytest.raises(Unanswerable, match=rf"product {index}: .* products 0 to 3"):
        Predict(Head(pack()))({**_features(1), "product": torch.tensor([[index]])})


def test_requests_are_answered_together_and_apart_again(backend: ModuleType) -> None:
    calls = []

    def run(inputs: Tensors) -> Tensors:
        calls.append(len(inputs["image"]))
        return _encode()(inputs)

    requests = [_request(backend, {"image": torch.from_numpy(images(count, count))}) for count in (1, 3)]
    first, second = backend.answer(ENCODER, requests, run)
    assert calls == [4]
    alone = _encode()({"image": torch.from_numpy(images(3, 3))})
    for tensor in second.output_tensors:
        assert torch.equal(torch.from_dlpack(tensor.to_dlpack()), alone[tensor.name()])
    assert len(first.output_tensors) == 3


def test_one_refused_request_does_not_take_the_others_with_it(backend: ModuleType) -> None:
    requests = [
        _request(backend, {**_features(1), "product": torch.tensor([[index]])}) for index in (0, 99, 1)
    ]
    first, refused, last = backend.answer(HEAD, requests, Predict(Head(pack())))
    assert refused.error.code == "INVALID_ARGUMENT"
    assert "product 99" in refused.error.message
    for answered in (first, last):
        assert answered.error is None
        assert [tensor.name() for tensor in answered.output_tensors] == [t.name for t in HEAD.outputs]


def test_an_error_of_the_program_itself_is_not_hidden(backend: ModuleType) -> None:
    def run(inputs: Tensors) -> Tensors:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        backend.answer(ENCODER, [_request(backend, {"image": torch.from_numpy(images(1))})], run)


def _request(backend: ModuleType, tensors: Tensors) -> Any:
    made = [backend.pb_utils.Tensor(name, tensor.contiguous()) for name, tensor in tensors.items()]
    return backend.pb_utils.Request(made)


@pytest.mark.parametrize("model", [ENCODER, HEAD], ids=["encoder", "head"])
def test_a_stub_that_changes_values_keeps_a_model_from_loading(
    monkeypatch: pytest.MonkeyPatch, model: Any
) -> None:
    _backend(monkeypatch, stub()).check_dlpack(model)
    broken = _backend(monkeypatch, stub(broken=True))
    with pytest.raises(broken.DlpackBroken, match="came back from Triton's Python stub as"):
        broken.check_dlpack(model)


def _arguments(folder: Path, kind: str = "CPU", **parameters: str) -> dict[str, str]:
    config = {"parameters": {name: {"string_value": value} for name, value in parameters.items()}}
    return {
        "model_config": json.dumps(config),
        "model_repository": str(folder),
        "model_version": "7",
        "model_instance_kind": kind,
        "model_instance_device_id": "1",
    }


def test_a_version_learns_where_it_runs(tmp_path: Path) -> None:
    found = Settings.of(_arguments(tmp_path, threads="3"))
    assert (found.device, found.folder, found.parameters) == ("cpu", tmp_path / "7", {"threads": "3"})
    assert Settings.of(_arguments(tmp_path, "GPU")).device == "cuda:1"


def test_weights_are_taken_from_the_servers_folder(tmp_path: Path) -> None:
    tiny = bundled_pack()
    own = replace(tiny, encoder=replace(tiny.encoder, weights="file"))
    (tmp_path / "7").mkdir()
    write_pack(own, tmp_path / "7" / PACK_FILE)
    arguments = _arguments(tmp_path, weights_folder=str(tmp_path))
    with pytest.raises(WeightsNotFound, match=own.encoder.sha256):
        Encode.load(Settings.of(arguments))
    shutil.copy(bundled_weights(), tmp_path / f"{own.encoder.sha256}.safetensors")
    size = own.encoder.image_size
    found = Encode.load(Settings.of(arguments))({"image": torch.zeros(1, size, size, 3, dtype=torch.uint8)})
    assert bytes(found["features_hash"][0].tolist()).hex() == own.features_hash


@pytest.mark.parametrize("name", ["clip_encoder", "dapo_head"])
def test_a_version_loads_its_pack_or_none(
    name: str, tmp_path: Path, backend: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dapo.packing.load_encoder", lambda *_: encoder())
    model = importlib.import_module(f"triton_models.{name}.model").TritonPythonModel()
    (tmp_path / "7").mkdir()
    with pytest.raises(PackError, match=PACK_FILE):
        model.initialize(_arguments(tmp_path))
    write_pack(pack(), tmp_path / "7" / PACK_FILE)
    threads = torch.get_num_threads()
    model.initialize(_arguments(tmp_path, threads=str(threads)))
    contract = ENCODER if name == "clip_encoder" else HEAD
    given = {"image": torch.from_numpy(images(2))} if contract is ENCODER else {
        **_features(2),
        "product": _indices(["*", "tube"]),
    }  # fmt: skip
    [answer] = model.execute([_request(backend, given)])
    assert [tensor.name() for tensor in answer.output_tensors] == [tensor.name for tensor in contract.outputs]
