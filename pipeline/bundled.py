"""Where the bundled prompt pack lies."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def default_pack_path() -> Path:
    """The default pack of `dapo run`: DAPO prompts tuned for dapo-tiny."""
    return Path(str(resources.files("dapo"))) / "weights" / "dapo-tiny.pack"
