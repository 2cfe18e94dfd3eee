"""The Infer port's conformance suite on a real Triton, and its numbers beside those of the model in process."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from dapo.encoder import load_encoder
from dapo.handwritten import make_handwritten_pack
from dapo.pack import Pack
from deploy.native import TritonServer
from pipeline.infer import InProcessInfer
from pipeline.ports import Infer
from pipeline.triton.client import TritonInfer
from pipeline.triton.window import Patience
from tests.contract.infer_suite import InferSuite
from tests.integration.triton_packs import SMALL, bundled, frames
from triton_models.config import Placement
from triton_models.connection import Address
from triton_models.deploy import deploy
from triton_models.repository import write_skeleton
from triton_models.server import ModelServer

PATIENT = Patience(deadline_s=120)  # the machine may be busy with other tests


def _serve(triton: TritonServer, pack: Pack) -> Address:
    address = Address(triton.url)
    write_skeleton(triton.models)
    with ModelServer(address) as server:
        deploy(server, pack, placement=Placement(threads=torch.get_num_threads()), replace=True)
    return address


@pytest.fixture(scope="module")
def two_types() -> Pack:
    encoder = load_encoder("dapo-tiny", image_size=SMALL)
    return make_handwritten_pack(encoder, ["scratch", "hole"], products={"none": [], "one": ["hole"]})


class TestTritonInfer(InferSuite):
    @pytest.fixture(autouse=True)
    def _served(self, triton: TritonServer, two_types: Pack) -> None:
        self.pack, self.address = two_types, _serve(triton, two_types)

    def opened(self) -> Infer:
        return TritonInfer(self.pack, self.address, PATIENT)


class TestSharedMemory(TestTritonInfer):
    def opened(self) -> Infer:
        return TritonInfer(self.pack, self.address, PATIENT, shared=True)


@pytest.fixture
def infer(triton: TritonServer) -> Iterator[TritonInfer]:
    made = TritonInfer(bundled(), _serve(triton, bundled()), PATIENT)
    yield made
    made.close()


def test_its_numbers_are_those_of_the_model_in_process(infer: TritonInfer) -> None:
    """64 frames that mix products, under the same threads: the promise is 1e-4, what is found is no difference."""
    images = frames(64, infer.image_size)
    names = ["*", "one", "none", "few", "sample", "never heard of"] * 11
    here = InProcessInfer(bundled(), batch=1).infer(images, names[:64])
    there = infer.infer(images, names[:64])
    for one, other in zip(here, there, strict=True):
        assert abs(one.score - other.score) <= 1e-4
        assert np.abs(one.map.astype(np.float64) - other.map).max() <= 1e-4
        assert one.type_scores.shape == other.type_scores.shape
        if len(one.type_scores):
            assert np.abs(one.type_scores - other.type_scores).max() <= 1e-4
        assert np.array_equal(one.type_map, other.type_map)
