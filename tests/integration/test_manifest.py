"""The archive on a real server: docs/archive.md asked as it is written, outages, and a prune."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from deploy.native import MinioServer, VersityServer
from deploy.native.s3 import S3Server
from pipeline.archive import labels, manifest
from pipeline.archive.archiver import Archiver, Item
from pipeline.archive.policy import Policy, Reason
from pipeline.archive.prune import prune
from pipeline.archive.table import RANGE, read
from pipeline.cli import invoke
from pipeline.store.errors import StoreUnavailable
from pipeline.store.minio_store import Endpoint, MinioStore
from schemas.labels import label_row
from tests.unit.pipeline.archive.rows import SCRATCH, make_item

PAGE = (Path(__file__).parents[2] / "docs" / "archive.md").read_text(encoding="utf-8")
YESTERDAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
# Early, late and night in Central Europe, in summer as in winter.
EARLY, LATE, NIGHT = (YESTERDAY + timedelta(hours=hour, minutes=30) for hour in (6, 14, 22))
HOLE = {**SCRATCH, "type": "hole", "area_px": 20}
HOSTILE = "../2 '%; DROP VIEW manifest"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def at(number: int, evaluation: str, when: datetime, **fields: Any) -> Item:
    return make_item(number, evaluation, captured_at=when, finished_at=when, **fields)


ITEMS = [
    at(0, "NotOK", EARLY, line_id="1", defects=(SCRATCH, HOLE)),
    at(1, "NotOK", EARLY, line_id="1"),
    at(2, "NotOK", LATE, line_id="1", camera_id="cam-2"),
    at(3, "NotOK", NIGHT, line_id=HOSTILE, defects=(HOLE,)),
    at(4, "NotDecidable", LATE, line_id="1", anomaly_score=0.45),
    at(5, "NotDecidable", LATE, line_id="1", anomaly_score=0.51),
    at(6, "OK", LATE, line_id="1", anomaly_score=0.39),
    at(7, "OK", LATE, line_id="1", anomaly_score=0.1),
]
POLICY = Policy(near_margin=0.1, audit_rate=0)
_WRONG = label_row(ITEMS[0].row.result_id, "scratch", EARLY, "cli", author="bob")
LABELS = [
    _WRONG,
    label_row(ITEMS[0].row.result_id, "good", LATE, "cli", author="ann", supersedes=_WRONG.label_id),
    label_row(ITEMS[1].row.result_id, "good", LATE, "cli", author="bob"),
    label_row(ITEMS[4].row.result_id, "hole", LATE, "cli", author="ann"),
]


def new_store(server: S3Server, bucket: str | None = None, timeout_s: float = 30.0) -> MinioStore:
    name = bucket or f"archive-{uuid.uuid4().hex[:12]}"
    server.client().make_bucket(name)
    return MinioStore(
        Endpoint(server.endpoint, name, server.access_key, server.secret_key, timeout_s=timeout_s)
    )


def images(store: MinioStore) -> list[str]:
    return [one.key for one in store.list("frames/")]


def rows(store: MinioStore) -> list[dict[str, Any]]:
    files = [file for _, files in manifest.parts(store) for file in files]
    return [row for file in files for row in read(store, file.key).to_pylist()]


@pytest.fixture(params=["minio", "versitygw"])
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[MinioStore]:
    """The bucket that the page names, filled, and the environment that it needs."""
    for name, value in server.client_environment().items():
        monkeypatch.setenv(name, value)
    store = new_store(server, "inspection")
    Archiver(store, POLICY).archive(ITEMS)
    labels.write(store, [labels.Entry(row, 0, number) for number, row in enumerate(LABELS)])
    yield store
    for one in store.list():
        store.delete(one.key)
    server.client().remove_bucket("inspection")


def asked(connection: duckdb.DuckDBPyConnection, question: str) -> list[tuple[Any, ...]]:
    """The answer of the page's only query that contains `question`."""
    (query,) = (query for query in blocks("sql") if question in query)
    return connection.execute(query).fetchall()


def test_the_page_s_queries_answer_its_questions(bucket: MinioStore) -> None:
    (offline,) = blocks("python")
    names: dict[str, Any] = {}
    exec(offline, names)
    connection: duckdb.DuckDBPyConnection = names["connection"]
    asked(connection, "CREATE VIEW manifest")
    day = YESTERDAY.date()
    assert asked(connection, "shift_day") == [
        (HOSTILE, day, "night", 1, 1),
        ("1", day, "early", 2, 3),
        ("1", day, "late", 1, 1),
    ]
    assert asked(connection, "regions") == [
        ("1", "cam-1", "scratch", 2, 2, 12.0),
        (HOSTILE, "cam-1", "hole", 1, 1, 20.0),
        ("1", "cam-1", "hole", 1, 1, 20.0),
        ("1", "cam-2", "scratch", 1, 1, 12.0),
    ]
    to_label = asked(connection, "LIMIT 100")
    assert [row[2:] for row in to_label] == [
        ("not-decidable", pytest.approx(0.51)),
        ("not-decidable", pytest.approx(0.45)),
        ("near-threshold", pytest.approx(0.39)),
    ]
    for key, *_ in to_label:
        assert bucket.get(key)
    assert asked(connection, "CREATE VIEW labels") == [
        (None, "NotDecidable", "hole", 1, ["ann"]),
        (None, "NotOK", "good", 2, ["ann", "bob"]),
    ]
    # A line that looks like a number stays text.
    assert connection.execute("SELECT DISTINCT line FROM manifest WHERE line_id = '1'").fetchall() == [("1",)]
    connection.close()


def test_every_query_of_the_page_is_run_but_the_one_that_needs_the_network() -> None:
    run = ("CREATE VIEW manifest", "shift_day", "regions", "LIMIT 100", "CREATE VIEW labels")
    others = [query for query in blocks("sql") if not any(mark in query for mark in run)]
    assert [query.splitlines()[0] for query in others] == ["INSTALL httpfs; LOAD httpfs;"]


def test_a_replayed_result_is_one_row_of_the_view(bucket: MinioStore) -> None:
    again = ITEMS[0]
    later = Item(again.row, again.image, again.partition, again.offset + 2 * RANGE)
    Archiver(bucket, POLICY).archive([later])
    names: dict[str, Any] = {}
    exec(blocks("python")[0], names)
    connection: duckdb.DuckDBPyConnection = names["connection"]
    asked(connection, "CREATE VIEW manifest")
    offsets = connection.execute("SELECT results_offset FROM manifest WHERE frame_id = '0'").fetchall()
    assert offsets == [(later.offset,)]
    connection.close()


def test_the_page_s_prune_is_a_command(bucket: MinioStore, capsys: pytest.CaptureFixture[str]) -> None:
    before = [(one.key, one.etag) for one in bucket.list()]
    (commands,) = (block for block in blocks("sh") if "prune" in block)
    for line in commands.splitlines():
        assert line.startswith("dapo ")
        assert invoke(line.split()[1:]) == 0
    assert "would delete 0 images, 0 claims and 0 rows" in capsys.readouterr().out
    assert [(one.key, one.etag) for one in bucket.list()] == before


def test_the_same_batch_twice_leaves_the_same_objects(server: S3Server) -> None:
    store = new_store(server)
    report = Archiver(store, POLICY).archive(ITEMS)
    assert dict(report.kept) == {Reason.NOT_OK: 4, Reason.NOT_DECIDABLE: 2, Reason.NEAR_THRESHOLD: 1}
    before = [(one.key, one.etag) for one in store.list()]
    assert Archiver(store, POLICY).archive(ITEMS) == report
    for item in ITEMS:
        Archiver(store, POLICY).archive([item])
    assert [(one.key, one.etag) for one in store.list()] == before
    assert len(images(store)) == len(rows(store)) == 7


def test_a_prune_deletes_each_reason_at_its_time(server: S3Server) -> None:
    store = new_store(server)
    Archiver(store, POLICY).archive(ITEMS)
    retention = {**dict.fromkeys(Reason, timedelta(days=365)), Reason.NEAR_THRESHOLD: timedelta(days=30)}
    soon, far = (datetime.now(UTC) + timedelta(days=days) for days in (40, 400))
    before = [(one.key, one.etag) for one in store.list()]
    dry = prune(store, retention, now=soon, dry_run=True)
    assert [(one.key, one.etag) for one in store.list()] == before
    assert prune(store, retention, now=soon).rows == dry.rows == {"near-threshold": 1}
    assert len(images(store)) == len(rows(store)) == 6
    assert prune(store, retention, now=far).images == 6
    assert list(store.list()) == []


@pytest.fixture(params=[MinioServer, VersityServer], ids=["minio", "versitygw"])
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[S3Server]:
    """One that a test may kill."""
    with request.param(tmp_path / "own") as server:
        yield server


@pytest.mark.parametrize("killed_at", [0, 3, 7])
def test_a_store_killed_within_a_batch_loses_and_doubles_nothing(
    own_server: S3Server, killed_at: int
) -> None:
    store = new_store(own_server)
    loads = 0

    def loader(item: Item) -> Callable[[], bytes | None]:
        def load() -> bytes | None:
            nonlocal loads
            loads += 1
            if loads == killed_at:
                own_server.kill()
            return item.image if isinstance(item.image, bytes) else item.image()

        return load

    batch = [Item(item.row, loader(item), item.partition, item.offset) for item in ITEMS]
    archiver = Archiver(store, POLICY)
    if killed_at == 0:
        own_server.kill()
    with pytest.raises(StoreUnavailable):
        archiver.archive(batch)
    own_server.restart()
    for row in rows(store):
        assert store.get(row["object_key"])
    report = archiver.archive(batch)
    assert sum(report.kept.values()) == 7
    assert len(images(store)) == len(rows(store)) == len({row["result_id"] for row in rows(store)}) == 7
    assert Archiver(store, POLICY).archive(ITEMS) == report
