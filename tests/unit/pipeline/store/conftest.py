"""A server on its bad days, for every test here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.pipeline.store.bad_server import BadServer


@pytest.fixture
def bad_server() -> Iterator[BadServer]:
    server = BadServer()
    yield server
    server.close()
