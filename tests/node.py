"""Node with the packages that a JavaScript reader of the contract needs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent / "contract" / "node"
EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def node() -> str:
    """Path of Node; a test that needs it fails without."""
    found = shutil.which("node")
    assert found, "Node is needed to test the JavaScript reader: apt-get install nodejs npm"
    return found


def install_reader() -> Path:
    """A folder with decode.mjs, subscriber.mjs and their packages, installed once per lock file."""
    npm = shutil.which("npm")
    assert npm, "Node with npm is needed to test the JavaScript reader: apt-get install nodejs npm"
    lock = (HERE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dapo-inspection"
    folder = cache / f"node-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / name, folder / name)
        subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, capture_output=True, timeout=300
        )
        (folder / "installed").touch()
    shutil.copy(HERE / "decode.mjs", folder / "decode.mjs")
    shutil.copy(EXAMPLES / "subscriber.mjs", folder / "subscriber.mjs")
    return folder
