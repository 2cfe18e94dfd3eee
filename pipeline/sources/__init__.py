"""Where frames come from: files, folders, globs, lists, videos, cameras. `open_source` finds out which."""

from __future__ import annotations

from pipeline.sources.choose import open_source

__all__ = ["open_source"]
