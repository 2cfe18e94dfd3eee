"""Memory that a process needs again and again, kept instead of given back to the system."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_LARGEST_BLOCK = 32 * 2**20  # glibc takes no more here; an encoder's intermediate results are a few MB each


def keep_freed_memory() -> bool:
    """Let this process keep what it frees. False where its C library is not glibc.

    Left to itself glibc gives large blocks back to the system and takes them again for the next frame, page by page:
    3,000 page faults a frame and 8 of dapo-tiny's 46 ms on one core. A model's process needs the same blocks for ever.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
