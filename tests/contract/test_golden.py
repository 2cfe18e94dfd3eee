"""Every released version of the contract, decoded by pyarrow, the npm package apache-arrow and the example subscribers."""

from __future__ import annotations

import importlib.util
import json
import re
import sqlite3
import subprocess
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.archive.keys import image_key_of
from schemas import golden
from schemas.codec import decode, decode_results, encode
from schemas.columns import TIME
from schemas.registry import CONTRACTS
from schemas.rle import decode_mask
from tests.node import EXAMPLES, install_reader, node

HERE = Path(__file__).parent
GOLDEN = HERE / "golden" / "v1"
NAMES = pytest.mark.parametrize("name", golden.files())
KINDS = {name: type(some[0]) for name, some in golden.files().items()}


def told(name: str) -> Any:
    """What a golden file says, as JSON."""
    file = GOLDEN / ("expected.json" if name == "results" else f"{name}.json")
    return json.loads(file.read_text(encoding="utf-8"))


def test_every_kind_of_row_has_a_golden_file():
    assert set(KINDS.values()) == set(CONTRACTS)


@NAMES
def test_version_1_decodes_with_pyarrow(name):
    assert decode((GOLDEN / f"{name}.arrow").read_bytes(), KINDS[name]) == list(golden.files()[name])


@NAMES
def test_todays_writer_still_says_what_version_1_said(name):
    some = golden.files()[name]
    assert told(name) == json.loads(json.dumps(golden.expected(some)))
    found = decode(encode(some), KINDS[name])
    assert found == decode((GOLDEN / f"{name}.arrow").read_bytes(), KINDS[name])


def test_version_1_masks_decode():
    for row in decode_results((GOLDEN / "results.arrow").read_bytes()):
        for defect in row.defects:
            assert decode_mask(defect["mask"]).sum() == defect["area_px"]


def test_golden_files_are_written_once(tmp_path):
    golden.main(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in GOLDEN.iterdir()}
    (tmp_path / "parts.arrow").write_bytes(b"as it was")
    golden.main(tmp_path)
    assert (tmp_path / "parts.arrow").read_bytes() == b"as it was"


@pytest.fixture(scope="module")
def reader() -> Path:
    """See `tests.node.install_reader`."""
    return install_reader()


def by_node(reader: Path, *arguments: str) -> Any:
    """What a Node command prints, parsed."""
    out = subprocess.run([node(), *arguments], cwd=reader, check=True, capture_output=True, timeout=60)
    return json.loads(out.stdout)


@NAMES
def test_version_1_decodes_with_javascript(reader, name):
    found = by_node(reader, "decode.mjs", str(GOLDEN / f"{name}.arrow"))
    contract = CONTRACTS[KINDS[name]]
    times = {f.name for f in fields(KINDS[name]) if f.metadata["type"] == TIME}
    assert found["metadata"] == {"schema": f"dapo.{contract.name}", "version": "1"}
    for theirs, ours in zip(found["rows"], told(name), strict=True):
        for column, value in ours.items():
            if column in times and value is not None:  # JavaScript gives milliseconds since 1970
                milliseconds = datetime.fromisoformat(value).timestamp() * 1000
                assert theirs[column] == pytest.approx(milliseconds, abs=0.002), column
            else:
                assert theirs[column] == value, column


@pytest.fixture(scope="module")
def subscriber() -> ModuleType:
    """docs/examples/subscriber.py, without running it."""
    spec = importlib.util.spec_from_file_location("subscriber", EXAMPLES / "subscriber.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_verdicts(found: list[dict[str, Any]]) -> None:
    """The rows of results.arrow as a subscriber gives them: masks decoded, images named as the archive names them."""
    rows = golden.rows()
    assert [(v["frame_key"], v["evaluation"]) for v in found] == [(r.frame_key, r.evaluation) for r in rows]
    assert [[d["pixels"] for d in v["defects"]] for v in found] == [
        [d["area_px"] for d in r.defects] for r in rows
    ]
    assert [v["image"] for v in found] == [image_key_of(r, "") for r in rows]


# pycocotools decodes by a way that numpy 2 frowns upon; the project's own decoder does without.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_python_subscriber_decodes_version_1(subscriber):
    check_verdicts(list(subscriber.verdicts((GOLDEN / "results.arrow").read_bytes())))


def test_the_node_subscriber_decodes_version_1(reader):
    script = """
        const { readFileSync } = await import("node:fs");
        const { verdicts } = await import("./subscriber.mjs");
        console.log(JSON.stringify(verdicts(readFileSync(process.argv[1]))));
    """
    found = by_node(reader, "--input-type=module", "--eval", script, str(GOLDEN / "results.arrow"))
    check_verdicts(found)
    for theirs, ours in zip(found, golden.rows(), strict=True):
        captured = datetime.fromisoformat(theirs["captured_at"])
        assert abs((captured - ours.captured_at).total_seconds()) < 0.001


def test_subscribers_decode_frames_that_say_little(subscriber):
    """No line, no time of capture, no defects column filled."""
    row = golden.rows()[2]
    bare = type(row)(
        **{f.name: getattr(row, f.name) for f in fields(row) if not f.metadata["null"]},
        camera_id="camera-1",
    )
    found = list(subscriber.verdicts(encode([bare])))
    assert found[0]["image"] == image_key_of(bare, "")
    assert found[0]["defects"] == []


@pytest.mark.parametrize(("name", "most"), [("subscriber.py", 40), ("subscriber.mjs", 80)])
def test_subscribers_stay_short_enough_to_read(name, most):
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= most


def test_the_statement_for_the_mes_keeps_each_verdict_once():
    page = (EXAMPLES.parent / "mes.md").read_text(encoding="utf-8")
    statement = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)[0]
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE verdict (frame_key TEXT PRIMARY KEY, result_state TEXT, evaluation TEXT)")
    for row in (
        ("again", "Completed", "OK"),
        ("again", "Completed", "NotOK"),
        ("again", "Failed", "Undefined"),
        ("replayed", "Failed", "Undefined"),
        ("replayed", "Failed", "Undefined"),
        ("replayed", "Completed", "NotOK"),
        ("lost", "Aborted", "Undefined"),
    ):
        database.execute(statement, row)
    assert database.execute("SELECT * FROM verdict ORDER BY frame_key").fetchall() == [
        ("again", "Completed", "OK"),
        ("lost", "Aborted", "Undefined"),
        ("replayed", "Completed", "NotOK"),
    ]
    database.close()
