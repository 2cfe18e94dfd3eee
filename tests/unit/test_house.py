"""The house as designed: who may import whom, and a reason for every dependency."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "dapo": {"dapo"},
    "schemas": {"schemas", "dapo"},
    "triton_models": {"triton_models", "dapo"},
    "pipeline": {"pipeline", "dapo", "schemas", "triton_models"},
    "trainer": {"trainer", "dapo", "schemas", "pipeline"},
    "deploy": {
        "deploy",
        "dapo",
        "pipeline",
        "triton_models",
        "trainer",
    },  # the demo's cameras draw the trainer's surfaces
}
OURS = {*MAY_IMPORT, "benchmarks", "tests"}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_arrows_go_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        wrong = (imported(path) & OURS) - MAY_IMPORT[package]
        assert not wrong, f"{path} imports {wrong}"


def test_the_model_knows_no_transport():
    forbidden = {"kafka", "tritonclient", "minio", "pyarrow", "typer", "rich"}
    for path in (ROOT / "dapo").rglob("*.py"):
        assert not imported(path) & forbidden, path


def test_every_dependency_has_a_bound_and_a_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    records = "\n".join(path.read_text() for path in (ROOT / "docs" / "adr").glob("*.md")).lower()
    for requirement in (r for group in groups for r in group if not r.startswith("dapo-inspection")):
        assert ">=" in requirement, requirement
        name = re.split(r"[\[><=]", requirement)[0].lower()
        assert name in records, f"docs/adr says nothing of {name}"


def test_every_package_of_the_node_tests_has_a_reason():
    manifest = json.loads((ROOT / "tests" / "contract" / "node" / "package.json").read_text())
    records = "\n".join(path.read_text() for path in (ROOT / "docs" / "adr").glob("*.md"))
    for name in (*manifest.get("dependencies", {}), *manifest.get("devDependencies", {})):
        assert name in records, f"docs/adr says nothing of {name}"


def test_the_base_alone_runs_a_stream_and_shows_every_command():
    of_extras = ("torch", "torchvision", "open_clip", "openvino", "scipy", "sklearn")
    program = f"""
import sys
for name in {of_extras}:
    sys.modules[name] = None
import deploy.demo.camera, pipeline.stream.compose
from pipeline.cli import invoke
sys.exit(invoke(["--help"]) or invoke(["types"]) or invoke(["worker", "--help"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
