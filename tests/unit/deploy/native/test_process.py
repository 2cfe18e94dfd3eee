"""Processes by identity: a number that is used again is never mistaken for the one it was."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.native.process import Process, spawn, wait_until

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
WAIT_S = 20.0


@pytest.fixture
def sleeper(tmp_path):
    process = spawn(SLEEP, os.environ, tmp_path / "log")
    assert wait_until(lambda: (tmp_path / "log").read_text() == "up\n", WAIT_S)
    yield process
    process.signal(signal.SIGKILL)
    assert process.wait(WAIT_S)


def test_it_leads_a_session_of_its_own(sleeper):
    assert os.getsid(sleeper.pid) == os.getpgid(sleeper.pid) == sleeper.pid != os.getsid(0)


def test_it_ends_by_a_signal(sleeper):
    assert sleeper.alive()
    assert sleeper.signal(signal.SIGTERM)
    assert sleeper.wait(WAIT_S)
    assert not sleeper.alive()
    assert not sleeper.signal(signal.SIGTERM)


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another"}])
def test_another_process_with_its_number_is_left_alone(sleeper, change):
    earlier = replace(sleeper, **change)
    assert not earlier.alive()
    assert not earlier.signal(signal.SIGKILL)
    assert sleeper.alive()


def test_one_that_ends_while_it_is_looked_at_leaves_no_zombie():
    ended = spawn(["/bin/true"], {}, Path(os.devnull))
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has reaped it
    assert not ended.alive()
    with pytest.raises(ProcessLookupError):
        Process.of(ended.pid)


def test_a_number_that_nobody_has_is_nobody():
    ended = spawn(["/bin/true"], {}, Path(os.devnull))
    assert ended.wait(WAIT_S)
    with pytest.raises(ProcessLookupError):
        Process.of(ended.pid)


def test_a_paused_one_lives_and_stands_still(sleeper):
    assert not sleeper.paused()
    sleeper.signal(signal.SIGSTOP)
    assert wait_until(sleeper.paused, WAIT_S)
    assert sleeper.alive()
    sleeper.signal(signal.SIGCONT)
    assert wait_until(lambda: not sleeper.paused(), WAIT_S)


def test_waiting_ends_with_the_deadline():
    assert not wait_until(lambda: False, 0.05)
    assert wait_until(lambda: True, 0.0)
