"""The Triton client against a model server in this process: the port's suite, and trouble."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import grpc
import numpy as np
import pytest
import torch

from dapo.encoder import Encoder
from dapo.errors import ServiceUnavailable, SettingsError
from dapo.handwritten import make_handwritten_pack
from dapo.pack import Pack
from dapo.predictor import Predictor
from dapo.testing import small_encoder
from pipeline.infer import InProcessInfer
from pipeline.ports import Infer
from pipeline.settings import TritonSettings
from pipeline.triton.breaker import CircuitBreaker
from pipeline.triton.client import NotReady, TritonInfer, UnexpectedPack
from pipeline.triton.open import address_of, open_triton, placement_of
from pipeline.triton.window import Patience
from tests.contract.infer_suite import InferSuite
from triton_models.config import Placement
from triton_models.connection import Address, RequestRefused
from triton_models.contract import ContractError
from triton_models.deploy import deploy
from triton_models.server import ModelServer
from triton_models.testing import FakeTriton

ENCODER: Encoder = small_encoder()
PACK: Pack = make_handwritten_pack(ENCODER, ["scratch", "hole"], products={"none": [], "one": ["hole"]})


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with FakeTriton(ENCODER) as server:
        with ModelServer(Address(server.url)) as control:
            deploy(control, PACK)
        yield server


@pytest.fixture
def infer(triton: FakeTriton) -> Iterator[TritonInfer]:
    made = TritonInfer(PACK, Address(triton.url), Patience(deadline_s=10, window=3))
    yield made
    made.close()


class TestTritonInfer(InferSuite):
    @pytest.fixture(autouse=True)
    def _served(self, triton: FakeTriton) -> None:
        self.url = triton.url

    def opened(self) -> Infer:
        return TritonInfer(PACK, Address(self.url))


def test_it_says_what_the_model_in_process_says(infer: TritonInfer) -> None:
    names = ["*", "one", "none", "new", "one"] * 4
    local = InProcessInfer(PACK, batch=1, predictor=Predictor(PACK, encoder=ENCODER))
    for here, there in zip(local.infer(images(20), names), infer.infer(images(20), names), strict=True):
        assert np.float32(here.score) == there.score
        for name in ("map", "type_map", "type_scores"):
            assert np.array_equal(getattr(here, name), getattr(there, name))


def test_frames_in_shared_memory_are_the_same_frames(triton: FakeTriton, infer: TritonInfer) -> None:
    shared = TritonInfer(PACK, Address(triton.url), Patience(window=2), shared=True)
    names = ["*", "one", "none", "new"] * 9
    for one, other in zip(infer.infer(images(36), names), shared.infer(images(36), names), strict=True):
        assert one.map.tobytes() == other.map.tobytes()
    [region] = triton.regions.values()
    assert region.stat().st_size == 2 * 8 * 64 * 64 * 3
    shared.close()
    assert not triton.regions
    assert not region.exists()


def test_a_server_that_forgot_the_shared_memory_is_told_again(triton: FakeTriton) -> None:
    shared = TritonInfer(PACK, Address(triton.url), shared=True)
    assert len(shared.infer(images(3), ["*"] * 3)) == 3
    triton.regions.clear()
    assert len(shared.infer(images(3), ["*"] * 3)) == 3
    assert len(triton.regions) == 1
    shared.close()


def test_without_shared_memory_frames_travel_in_the_request(
    triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        FakeTriton,
        "SystemSharedMemoryRegister",
        lambda self, request, context: context.abort(grpc.StatusCode.INTERNAL, "another host"),
    )
    shared = TritonInfer(PACK, Address(triton.url), shared=True)
    assert len(shared.infer(images(3), ["*"] * 3)) == 3
    shared.close()


def test_frames_go_in_requests_of_a_batch_and_several_at_once(triton: FakeTriton, infer: TritonInfer) -> None:
    triton.hold.clear()
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(len(infer.infer(images(50), ["*"] * 50))))
    thread.start()
    assert _eventually(lambda: triton.at_once == 3)
    triton.hold.set()
    thread.join(30)
    assert found == [50]
    assert sorted(triton.asked, reverse=True) == [8] * 6 + [2]
    assert triton.at_once == 3


def _eventually(condition, seconds: float = 10.0) -> bool:
    ticks = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return True
        ticks.wait(0.01)
    return False


@pytest.mark.parametrize("status", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_what_passes_is_tried_again(triton: FakeTriton, infer: TritonInfer, status: str) -> None:
    triton.refuse(status, times=2)
    assert len(infer.infer(images(1), ["*"])) == 1
    assert triton.asked == [1, 1, 1]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("INTERNAL", ServiceUnavailable),
        ("INVALID_ARGUMENT", RequestRefused),
        ("UNAUTHENTICATED", RequestRefused),
    ],
)
def test_what_does_not_pass_is_not(
    triton: FakeTriton, infer: TritonInfer, status: str, error: type[Exception]
) -> None:
    triton.refuse(status)
    with pytest.raises(error, match=status):
        infer.infer(images(1), ["*"])
    assert triton.asked == [1]


def test_a_server_that_says_nothing_is_given_up_at_the_deadline(triton: FakeTriton) -> None:
    infer = TritonInfer(PACK, Address(triton.url), Patience(deadline_s=0.4))
    triton.hold.clear()
    with pytest.raises(ServiceUnavailable, match=r"DEADLINE_EXCEEDED.*triton\.deadline_s"):
        infer.infer(images(1), ["*"])
    triton.hold.set()
    assert len(infer.infer(images(1), ["*"])) == 1
    infer.close()


def test_a_server_that_was_away_is_found_again(triton: FakeTriton) -> None:
    infer = TritonInfer(PACK, Address(triton.url), Patience(5), CircuitBreaker(failures=3, pause_s=0.05))
    assert len(infer.infer(images(1), ["*"])) == 1
    triton.stop()
    with pytest.raises(ServiceUnavailable, match="UNAVAILABLE"):
        infer.infer(images(1), ["*"])
    with pytest.raises(ServiceUnavailable):
        infer.check()
    triton.start()
    with ModelServer(Address(triton.url)) as control:
        deploy(control, PACK)

    def answers() -> bool:
        try:
            return len(infer.infer(images(1), ["*"])) == 1
        except ServiceUnavailable:
            return False

    assert _eventually(answers)
    infer.close()


def test_an_answer_under_another_pack_is_never_given(triton: FakeTriton, infer: TritonInfer) -> None:
    other = PACK.with_products({"one": replace(PACK.product("one"), mask_threshold=0.7)})
    infer.check()
    with ModelServer(Address(triton.url)) as control:
        deploy(control, other, [PACK])
    for _ in range(9):  # however long it lasts, it is no failure of the server
        with pytest.raises(UnexpectedPack) as caught:
            infer.infer(images(3), ["*"] * 3)
    for digest in (PACK.configuration_hash, other.configuration_hash):
        assert digest in str(caught.value)
    with pytest.raises(UnexpectedPack):
        infer.check()
    with ModelServer(Address(triton.url)) as control:
        deploy(control, PACK, [other])
    assert len(infer.infer(images(3), ["*"] * 3)) == 3


def test_another_pack_that_takes_other_requests_is_known_as_another_pack(
    triton: FakeTriton, infer: TritonInfer
) -> None:
    fewer = make_handwritten_pack(ENCODER, ["scratch", "hole"], products={"none": []})
    with ModelServer(Address(triton.url)) as control:
        deploy(control, fewer, [PACK])
    with pytest.raises(UnexpectedPack, match=fewer.configuration_hash):
        infer.infer(images(3), ["one"] * 3)  # a product that the other pack does not have
    triton.refuse("INVALID_ARGUMENT")  # as for frames of another size
    with pytest.raises(UnexpectedPack, match=fewer.configuration_hash):
        infer.infer(images(1), ["*"])


def test_one_wrong_hash_in_a_batch_is_enough(triton: FakeTriton, infer: TritonInfer) -> None:
    def alter(answer: dict[str, torch.Tensor]) -> None:
        answer["pack_hash"] = answer["pack_hash"].clone()
        answer["pack_hash"][-1] = 0

    triton.alter = alter
    with pytest.raises(UnexpectedPack, match="0" * 64):
        infer.infer(images(8), ["*"] * 8)


def test_an_answer_that_cannot_be_read_does_not_hang(triton: FakeTriton, infer: TritonInfer) -> None:
    triton.alter = lambda answer: answer.pop("map")
    with pytest.raises(ServiceUnavailable, match="can't be read"):
        infer.infer(images(1), ["*"])


def test_check_says_whether_the_expected_pack_is_served(triton: FakeTriton, infer: TritonInfer) -> None:
    infer.check()
    triton.forget()
    with pytest.raises(NotReady, match="serves no 'dapo'"):
        infer.check()
    with pytest.raises(ServiceUnavailable, match="NOT_FOUND"):
        infer.infer(images(1), ["*"])


def test_a_pack_that_the_contract_cannot_carry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triton_models.contract.MAX_TYPES", 1)
    with pytest.raises(ContractError, match="at most 1"):
        TritonInfer(PACK, Address("127.0.0.1:1"))


def test_opening_gives_an_empty_server_the_pack(triton: FakeTriton) -> None:
    triton.forget()
    infer = open_triton(TritonSettings(url=triton.url), PACK)
    assert (infer.image_size, infer.pack.configuration_hash) == (64, PACK.configuration_hash)
    assert len(infer.infer(images(2), ["*", "one"])) == 2
    infer.close()


def test_opening_leaves_a_server_with_another_pack_alone(triton: FakeTriton) -> None:
    other = PACK.with_products({"one": replace(PACK.product("one"), mask_threshold=0.7)})
    pushed = list(triton.pushes)
    with pytest.raises(UnexpectedPack):
        open_triton(TritonSettings(url=triton.url), other)
    assert triton.pushes == pushed


def test_opening_a_server_that_is_away_or_ill_is_worth_another_try(triton: FakeTriton) -> None:
    triton.forget()
    triton.broken = True
    with pytest.raises(ServiceUnavailable, match="out of disk"):
        open_triton(TritonSettings(url=triton.url), PACK)
    triton.stop()
    with pytest.raises(ServiceUnavailable):
        open_triton(TritonSettings(url=triton.url), PACK)


def test_settings_become_an_address(tmp_path) -> None:
    settings = TritonSettings(url="a:1", tls=True, ssl_cafile=tmp_path / "ca.pem")
    assert address_of(settings) == Address("a:1", True, tmp_path / "ca.pem")
    assert address_of(settings, "b:2").url == "b:2"


def test_a_pushed_pack_runs_where_the_settings_say():
    settings = TritonSettings(device="gpu", gpus=("0", "2"), instances=2, weights_folder="/weights")
    assert placement_of(settings) == Placement("gpu", (0, 2), 2, None, weights_folder="/weights")
    with pytest.raises(SettingsError, match=r"triton\.gpus"):
        placement_of(TritonSettings(gpus=("first",)))
