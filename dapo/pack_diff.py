"""What differs between two packs, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dapo.pack import Pack, as_json


def diff_packs(old: Pack, new: Pack) -> list[str]:
    """One line per difference, empty where both are the same pack."""
    lines = list(_walk("", _by_name(as_json(old)), _by_name(as_json(new))))
    for name in sorted({*old.tensors, *new.tensors}):
        before, after = old.tensors.get(name), new.tensors.get(name)
        if before is None or after is None:
            lines.append(f"tensor {name}: {'added' if before is None else 'removed'}")
        elif before.shape != after.shape:
            lines.append(f"tensor {name}: shape {list(before.shape)} -> {list(after.shape)}")
        elif not np.array_equal(before, after):
            lines.append(f"tensor {name}: changed by up to {np.abs(before - after).max():.3g}")
    return lines


def _by_name(document: dict[str, Any]) -> dict[str, Any]:
    """Types by slug, so that an added word is one line and not a shifted list."""
    return {**document, "types": {word["slug"]: word for word in document["types"]}}


def _walk(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            where = f"{path}.{key}" if path else str(key)
            if key not in old:
                yield f"{where}: added {new[key]}"
            elif key not in new:
                yield f"{where}: removed (was {old[key]})"
            else:
                yield from _walk(where, old[key], new[key])
    elif old != new:
        yield f"{path}: {old} -> {new}"
