"""Two thousand hostile messages within the tests; `python -m tests.fuzz.run` sends a hundred thousand."""

from __future__ import annotations

from tests.fuzz.run import fuzz


def test_hostile_messages_are_each_answered_once():
    found = fuzz(2000, seed=3)
    assert found["crashes"] == 0, found["first_crashes"]
    assert found["answered"] == 2000
    assert {"Completed", "Failed"} <= set(found["states"])
