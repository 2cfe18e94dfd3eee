"""Which version of which model a pack is.

A version's number is made from a hash, so everybody who deploys a pack, to whatever server and whenever, comes to the
same number: pushing twice is pushing once, and nobody has to count. Packs that differ only in words, products,
thresholds or scoring have the same image side, and share a version of the encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

from dapo.pack import Pack

_DIGITS = 8  # hex digits: 4 billion numbers for the handful that one server keeps, and still readable


@dataclass(frozen=True, order=True)
class Versions:
    """Versions of the two models that together are one pack."""

    encoder: int
    head: int

    @classmethod
    def of(cls, pack: Pack) -> Versions:
        """The versions of a pack."""
        return cls(_number(pack.features_hash), _number(pack.configuration_hash))


def _number(digest: str) -> int:
    return 1 + int(digest[:_DIGITS], 16)  # Triton's versions begin at 1
