"""Where commands print: text as it is, tables as wide as they are."""

from __future__ import annotations

import sys

from rich.console import Console

_WIDE = 400  # columns of a table that goes to a file or a pipe: nothing there wraps lines, and grep wants whole ones


def output() -> Console:
    """Standard output. What users named (products, paths, words) is text: brackets are no markup, `:x:` is no emoji."""
    width = None if sys.stdout.isatty() else _WIDE
    return Console(markup=False, emoji=False, highlight=False, width=width)


def errors() -> Console:
    """Standard error, for messages; lines are not wrapped."""
    return Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)
