"""open_clip, imported without what it pulls in and nothing here uses: a third of the time, in every process that sees images.

At its import torchvision asks torch's compiler whether it may compile one operator, and open_clip looks for timm, for towers
that are no ViT. Together they are two thirds of what open_clip takes to import, and a restarted model server is waited for by
a whole line. While it is imported, both are told to be absent; afterwards they can be imported as ever.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch  # noqa: F401  first: its compiler is named below, and is part of it

_COMPILER = "torch._dynamo"


@contextmanager
def _absent() -> Iterator[None]:
    """timm can't be imported, and torch's compiler says that it compiles nothing."""
    package, asked = ModuleType(_COMPILER), ModuleType(f"{_COMPILER}.utils")
    package.__path__ = []
    vars(asked)["is_compile_supported"] = lambda device: False
    stand_ins: dict[str, Any] = {_COMPILER: package, f"{_COMPILER}.utils": asked, "timm": None}
    put = {name: one for name, one in stand_ins.items() if name not in sys.modules}
    sys.modules.update(put)
    try:
        yield
    finally:
        for name, one in put.items():
            if sys.modules.get(name) is one:
                del sys.modules[name]


def _import() -> Any:
    if "open_clip" in sys.modules or _COMPILER in sys.modules:
        return importlib.import_module("open_clip")
    before = set(sys.modules)
    try:
        with _absent():
            return importlib.import_module("open_clip")
    except (ImportError, AttributeError):
        # Another version that asks for more: take all of it, and lose only time.
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("open_clip", "torchvision"):
                del sys.modules[name]
        return importlib.import_module("open_clip")


open_clip: Any = _import()
