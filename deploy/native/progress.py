"""How installing and starting servers tells what it does."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Takes what happens; both methods return at once and never raise."""

    def step(self, line: str) -> None:
        """One of the few lines that everyone wants to see."""

    def detail(self, line: str) -> None:
        """One of the hundreds of lines that a build prints."""


class Silent:
    """Shows nothing: for tests and programs. Errors carry what one needs to know."""

    def step(self, line: str) -> None:
        """Nothing."""

    def detail(self, line: str) -> None:
        """Nothing."""
