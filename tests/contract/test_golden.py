"""Every released version of the contract, decoded by pyarrow and by the npm package apache-arrow."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from schemas.codec import decode_defects, decode_results, encode
from schemas.defects import defect_rows
from schemas.golden import expected, rows
from schemas.rle import decode_mask

HERE = Path(__file__).parent
GOLDEN = HERE / "golden" / "v1"


def test_version_1_decodes_with_pyarrow():
    found = decode_results((GOLDEN / "results.arrow").read_bytes())
    assert found == rows()
    assert decode_mask(found[0].defects[0]["mask"]).sum() == found[0].defects[0]["area_px"]
    assert decode_defects((GOLDEN / "defects.arrow").read_bytes()) == [
        d for row in found for d in defect_rows(row)
    ]


def test_todays_writer_still_says_what_version_1_said():
    assert json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(expected())
    )
    assert decode_results(encode(rows())) == decode_results((GOLDEN / "results.arrow").read_bytes())


@pytest.fixture(scope="module")
def reader() -> Path:
    """A folder with decode.mjs and its packages, installed once per lock file."""
    npm = shutil.which("npm")
    assert npm, "Node with npm is needed to test the JavaScript reader: apt-get install nodejs npm"
    lock = (HERE / "node" / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dapo-inspection"
    folder = cache / f"node-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / "node" / name, folder / name)
        subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, capture_output=True, timeout=300
        )
        (folder / "installed").touch()
    shutil.copy(HERE / "node" / "decode.mjs", folder / "decode.mjs")
    return folder


def _by_node(reader: Path, file: Path) -> dict:
    node = shutil.which("node")
    assert node, "Node is needed to test the JavaScript reader: apt-get install nodejs"
    out = subprocess.run(
        [node, "decode.mjs", str(file)], cwd=reader, check=True, capture_output=True, timeout=60
    )
    return json.loads(out.stdout)


def test_version_1_decodes_with_javascript(reader):
    found = _by_node(reader, GOLDEN / "results.arrow")
    wanted = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))
    assert found["metadata"] == {"schema": "dapo.result", "version": "1"}
    for theirs, ours in zip(found["rows"], wanted, strict=True):
        for name, value in ours.items():
            if name in (
                "captured_at",
                "started_at",
                "finished_at",
            ):  # JavaScript gives milliseconds since 1970
                assert theirs[name] == pytest.approx(
                    datetime.fromisoformat(value).timestamp() * 1000, abs=0.002
                )
            else:
                assert theirs[name] == value, name


def test_version_1_defects_decode_with_javascript(reader):
    found = _by_node(reader, GOLDEN / "defects.arrow")["rows"]
    wanted = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))[0]["defects"]
    assert [row["defect"] for row in found] == wanted
