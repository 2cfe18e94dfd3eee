"""Golden files of the current version: `python -m schemas.golden FOLDER`. Made once per version, then never again.

A file that is there already is left as it is: what a version said once is what it says for ever.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from schemas.codec import encode
from schemas.defects import defect_rows
from schemas.golden_results import rows
from schemas.golden_stream import labels, part_verdicts, statuses
from schemas.registry import AnyRow
from schemas.rle import decode_mask

__all__ = ["expected", "files", "rows"]


def files() -> dict[str, Sequence[AnyRow]]:
    """Name of each golden file, without suffix, and the rows in it."""
    return {
        "results": rows(),
        "defects": [defect for row in rows() for defect in defect_rows(row)],
        "status": statuses(),
        "parts": part_verdicts(),
        "labels": labels(),
    }


def expected(some: Sequence[AnyRow]) -> list[dict[str, Any]]:
    """Rows as JSON, times as ISO text, masks also as their count of pixels per row of the frame."""
    return [_plain(asdict(row)) for row in some]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {name: _plain(item) for name, item in value.items()}
    if value.get("mask"):
        plain["mask_row_sums"] = decode_mask(value["mask"]).sum(1).tolist()
    return plain


def main(folder: Path) -> None:
    """Write NAME.arrow, and what it says as NAME.json, for every kind of row."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, some in files().items():
        # Version 1 called that of its first files `expected`.
        said = folder / ("expected.json" if name == "results" else f"{name}.json")
        text = json.dumps(expected(some), indent=1, ensure_ascii=False)
        for path, data in ((folder / f"{name}.arrow", encode(some)), (said, text.encode())):
            if not path.exists():
                path.write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
