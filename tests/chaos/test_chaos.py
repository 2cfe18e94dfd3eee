"""Eleven blows to a real plant within the tests; `make chaos` deals two hundred."""

from __future__ import annotations

from tests.chaos.run import chaos


def test_eleven_blows_lose_and_double_nothing(tmp_path):
    told: list[str] = []
    found = chaos(11, seed=7, folder=tmp_path, full_disk=False, say=told.append)
    assert (found["lost"], found["doubled"], found["unarchived"]) == (0, 0, 0), told
    assert found["frames"] > 20
    assert sum(found["per_kind"].values()) == 11
