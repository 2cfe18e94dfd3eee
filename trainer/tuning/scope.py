"""What a retuning may change."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from dapo.errors import SettingsError
from dapo.vocabulary import nearest


class Scope(StrEnum):
    """Parts of a pack that can be tuned; several together, but of the first three one."""

    TEXT = "text"  # V, W, T: what words mean
    FULL = "full"  # V, W, T, P and adapters: all that DAPO learns
    STEM = "stem"  # V, W, T, adapters, and the linear from the patch layer (`dapo.patches`)
    REFERENCE = "reference"  # a memory of good frames
    THRESHOLDS = "thresholds"  # where verdicts begin


LEARNED = (Scope.TEXT, Scope.FULL, Scope.STEM)


def parse_scopes(names: Sequence[str]) -> tuple[Scope, ...]:
    """Names as a user types them, in the order they are worked through.

    Raises:
        SettingsError: none, one that is not known, or two of which one holds the other.
    """
    found = set()
    for name in names:
        if name not in set(Scope):
            near = nearest(name, list(Scope))
            hint = f" Did you mean '{near}'?" if near else ""
            raise SettingsError(f"scope '{name}': expected {', '.join(Scope)}.{hint}")
        found.add(Scope(name))
    if not found:
        raise SettingsError(f"no scope: expected one or more of {', '.join(Scope)}.")
    learned = [scope for scope in LEARNED if scope in found]
    if len(learned) > 1:
        raise SettingsError(
            f"scopes {' and '.join(learned)}: one of them learns at a time. Tune twice, or leave one out."
        )
    return tuple(scope for scope in Scope if scope in found)


def learned_scope(scopes: Sequence[Scope]) -> Scope | None:
    """The one of them that trains, if any."""
    return next((scope for scope in scopes if scope in LEARNED), None)
