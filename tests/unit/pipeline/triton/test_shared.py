"""Frames in shared memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tritonclient.grpc import InferenceServerClient

from pipeline.triton.shared import SharedFrames
from tests.unit.pipeline.triton.test_client import ENCODER, images
from triton_models.connection import Address
from triton_models.testing import FakeTriton


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with FakeTriton(ENCODER) as server:
        yield server


@pytest.fixture
def client(triton: FakeTriton) -> Iterator[InferenceServerClient]:
    with Address(triton.url).connect() as opened:
        yield opened


def test_requests_under_way_have_slots_of_their_own(
    triton: FakeTriton, client: InferenceServerClient
) -> None:
    shared = SharedFrames(slots=2, frames=3, size=64)
    first, second = shared.put(client, images(3)), shared.put(client, images(2))
    assert first is not None
    assert second is not None
    [region] = triton.regions.values()
    there = region.read_bytes()
    assert there[: images(3).nbytes] == images(3).tobytes()
    assert there[images(3).nbytes :][: images(2).nbytes] == images(2).tobytes()
    assert shared.put(client, images(1)) is None  # it travels in the request
    shared.release(first[1])
    again = shared.put(client, images(1))
    assert again is not None
    assert again[1] == first[1]
    shared.close(client)


def test_a_server_that_knows_the_region_already_is_content(
    triton: FakeTriton, client: InferenceServerClient
) -> None:
    shared = SharedFrames(slots=1, frames=1, size=64)
    assert shared.put(client, images(1)) is not None
    shared.release(0)
    shared.lost()
    assert shared.put(client, images(1)) is not None
    assert len(triton.regions) == 1
    shared.close(client)


def test_a_server_that_is_away_does_not_keep_it_from_closing(
    triton: FakeTriton, client: InferenceServerClient
) -> None:
    shared = SharedFrames(slots=1, frames=1, size=64)
    assert shared.put(client, images(1)) is not None
    [region] = triton.regions.values()
    triton.stop()
    shared.close(client)
    assert not region.exists()
