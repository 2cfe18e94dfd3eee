"""The Log port's conformance suite on its shipped fake."""

from __future__ import annotations

import pytest

from pipeline.testing import MemoryBroker, MemoryLog
from tests.contract.log_suite import LogSuite


class TestMemoryLog(LogSuite):
    @pytest.fixture(autouse=True)
    def _broker(self):
        self.broker = MemoryBroker(suite_frames=2)

    def open(self, slot="a"):
        return MemoryLog(self.broker, self.frames)

    def write(self, *messages):
        for message in messages:
            self.broker.write(message)

    def committed(self):
        return [record.value for record in self.broker.read(self.out)]
