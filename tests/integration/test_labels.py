"""Labels from their topic over the table to training, on a real broker and real stores."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dapo.errors import LogRefused
from deploy.native import MinioServer
from deploy.native.s3 import S3Server
from pipeline.archive import labels
from pipeline.archive.archiver import Archiver, Item
from pipeline.archive.policy import Policy
from pipeline.cli import invoke
from pipeline.cli.label_sync import syncing
from pipeline.ports import Message
from pipeline.settings import load
from pipeline.store.minio_store import Endpoint, MinioStore
from pipeline.stream.label_sync import LabelSync
from pipeline.stream.labels import label_message
from schemas.labels import GOOD, LabelRow, label_row
from schemas.rle import encode_mask
from tests.contract.archive_tree import result
from tests.contract.dataset_trees import HEIGHT, WIDTH, drawn, picture
from tests.integration.stream_line import Line, until
from trainer.data.open import open_dataset
from trainer.data.sample import State

NOW = datetime.now(UTC)


def said(number: int) -> LabelRow:
    return label_row(f"r{number}", "hole", NOW + timedelta(seconds=number), "cli", author="ann")


def say(line: Line, *rows: LabelRow) -> None:
    line.send(*(label_message(row, line.topics.labels) for row in rows))


def table(store: MinioStore) -> list[str]:
    return sorted(row.result_id for row in labels.rows(store))


@contextmanager
def set_up(
    server: S3Server, line: Line, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MinioStore]:
    """A bucket, and settings that name it."""
    bucket = f"labels-{uuid.uuid4().hex[:12]}"
    server.client().make_bucket(bucket)
    given = {
        **server.client_environment(),
        "DAPO_STORE__BUCKET": bucket,
        "DAPO_ARCHIVE__LABELS_GROUP": f"{line.prefix}-sync",
        "DAPO_ARCHIVE__BATCH_S": "0.2",
        "XDG_STATE_HOME": str(folder),
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    store = MinioStore(
        Endpoint(server.endpoint, bucket, server.access_key, server.secret_key, timeout_s=30.0)
    )
    yield store
    store.close()


@pytest.fixture
def bucket(
    minio: MinioServer, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MinioStore]:
    with set_up(minio, line, tmp_path, monkeypatch) as store:
        yield store


@contextmanager
def running() -> Iterator[LabelSync]:
    """A sync that goes on until the block ends."""
    stop = threading.Event()
    with syncing(load().settings, stop, print) as loop:
        thread = threading.Thread(target=loop.run)
        thread.start()
        try:
            yield loop
        finally:
            stop.set()
            thread.join(30)
        assert not thread.is_alive()


def test_a_sync_ends_where_the_topic_ends_and_doubles_nothing(
    line: Line, bucket: MinioStore, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [said(number) for number in range(20)]
    say(line, *rows[:15])
    line.send(Message(line.topics.labels, b"k", b"nonsense"))
    assert invoke(["labels", "sync", "--once"]) == 0
    assert "15 labels copied, 1 messages were no labels" in capsys.readouterr().err
    assert table(bucket) == sorted(row.result_id for row in rows[:15])
    before = [(one.key, one.etag) for one in bucket.list()]
    assert invoke(["labels", "sync", "--once"]) == 0
    assert "0 labels copied" in capsys.readouterr().err
    assert [(one.key, one.etag) for one in bucket.list()] == before
    say(line, *rows[15:])
    assert invoke(["labels", "sync", "--once"]) == 0
    assert table(bucket) == sorted(row.result_id for row in rows)


def test_labels_that_were_written_in_a_transaction_are_no_end_to_wait_for(
    line: Line, bucket: MinioStore, tmp_path: Path
) -> None:
    """The topic then ends with the transaction's own record, which nobody is given."""
    file = tmp_path / "labels.csv"
    file.write_text(f"result_id,label\n{uuid.uuid4()},good\n{uuid.uuid4()},unknown\n")
    assert invoke(["labels", "import", str(file)]) == 0
    for _ in range(2):  # the second begins at that record
        assert invoke(["labels", "sync", "--once"]) == 0
        assert len(table(bucket)) == 2


def test_an_empty_topic_ends_at_once(line: Line, bucket: MinioStore) -> None:
    assert invoke(["labels", "sync", "--once"]) == 0
    assert table(bucket) == []


def test_a_sync_beside_one_that_runs_says_so_and_nothing_is_lost(line: Line, bucket: MinioStore) -> None:
    say(line, *(said(number) for number in range(10)))
    with running() as loop:
        until(lambda: loop.synced.labels == 10, what="the first labels")
        with (
            pytest.raises(LogRefused, match="another 'dapo labels sync'"),
            syncing(load().settings, threading.Event(), print, once=True) as second,
        ):
            second.run()
        say(line, *(said(number) for number in range(10, 20)))
        until(lambda: len(table(bucket)) == 20, what="the labels after it")


def test_a_store_that_was_killed_loses_no_label(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MinioServer(tmp_path / "own") as server, set_up(server, line, tmp_path, monkeypatch) as store:
        say(line, *(said(number) for number in range(5)))
        with running() as loop:
            until(lambda: loop.synced.labels == 5, what="the first labels")
            server.kill()
            say(line, *(said(number) for number in range(5, 30)))
            until(lambda: loop.waits >= 2, what="a store that is away")
            assert loop.synced.labels == 5
            server.restart()
            until(lambda: loop.synced.labels == 30, what="all labels")
        assert table(store) == sorted(f"r{number}" for number in range(30))


@pytest.mark.parametrize("kind", ["minio", "versitygw"])
def test_what_was_archived_and_labelled_is_a_data_set(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: S3Server = request.getfixturevalue(kind)
    line: Line = request.getfixturevalue("line")
    with set_up(server, line, tmp_path, monkeypatch) as store:
        results = [result(str(n), captured_at=NOW, product_id="lid") for n in range(3)]
        for number, row in enumerate(results):
            picture(tmp_path / "frame.png", number)
            data = (tmp_path / "frame.png").read_bytes()
            Archiver(store, Policy()).archive([Item(row, data, 0, number)])
        mask = encode_mask(drawn())
        say(line, label_row(results[0].result_id, "hole", NOW, "cli", mask=mask))
        say(line, label_row(results[1].result_id, GOOD, NOW, "cli"))
        assert invoke(["labels", "sync", "--once"]) == 0
        samples = {sample.key: sample for sample in open_dataset("archive:2d").product("lid").samples}
        found = [samples[row.frame_key] for row in results]
        assert [sample.state for sample in found] == [State.DEFECTIVE, State.GOOD, State.UNLABELLED]
        assert found[0].words == ("hole",)
        assert all(sample.image().shape == (HEIGHT, WIDTH, 3) for sample in found)
        assert found[0].mask_at(20).any()  # type: ignore[union-attr]
        for sample in found:
            assert sample.version() == sample.version()
