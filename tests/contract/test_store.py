"""The ObjectStore port's conformance suite on its shipped fake."""

from __future__ import annotations

from pipeline.testing import MemoryStore
from tests.contract.store_suite import AtomicReplaceSuite


class TestMemoryStore(AtomicReplaceSuite):
    def empty(self) -> MemoryStore:
        return MemoryStore()

    def away(self) -> MemoryStore:
        store = MemoryStore()
        store.away = True
        return store
