"""open_clip comes without what nothing here uses, and leaves everything as it was for whoever uses that."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    """In a process of its own: what is imported once stays."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_encoder_loads_without_torchs_compiler_and_without_timm() -> None:
    code = """
import sys
from dapo.encoder import load_encoder
load_encoder("dapo-tiny")
print(sorted(name for name in sys.modules if name in ("timm", "torch._dynamo", "torch._dynamo.utils", "open_clip")))
"""
    assert run(code) == "['open_clip']"


def test_both_can_be_imported_afterwards() -> None:
    code = """
import dapo.lean, torch
import timm
compiled = torch.compile(lambda x: x + 1, backend="eager")
print(timm.__name__, int(compiled(torch.ones(1))))
"""
    assert run(code) == "timm 2"


@pytest.mark.parametrize("before", ["import open_clip", "import torch._dynamo", "import timm"])
def test_whoever_was_first_is_left_alone(before: str) -> None:
    code = f"""
{before}
import sys
known = dict(sys.modules)
from dapo.lean import open_clip
assert all(sys.modules[name] is one for name, one in known.items())
print(open_clip.model.CLIP.__name__)
"""
    assert run(code) == "CLIP"


def test_a_version_that_asks_for_more_is_imported_whole() -> None:
    code = """
import builtins, sys, torch
real, asked = builtins.__import__, []
def strict(name, *rest, **more):
    if name == "open_clip.factory" or (name == "factory" and rest[3:] == (1,)):
        asked.append(name)
        if sys.modules.get("timm", 0) is None:
            raise AttributeError("a stand-in lacks something")
    return real(name, *rest, **more)
builtins.__import__ = strict
from dapo.lean import open_clip
print(open_clip.create_model.__name__, "timm" in sys.modules, len(asked) >= 2)
"""
    assert run(code) == "create_model True True"
