"""`dapo archive` on the command line: what it says, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from dapo.errors import Fenced
from pipeline.archive import labels
from pipeline.archive.archiver import Archiver
from pipeline.archive.keys import CLAIMS
from pipeline.archive.policy import Policy
from pipeline.archive.prune import Pruned
from pipeline.cli import invoke
from pipeline.cli.archive import CLAIMS_DAYS, summary
from pipeline.store.errors import StoreError
from pipeline.stream import compose, feed
from pipeline.stream.archiving import Archived
from pipeline.stream.retention import Needs, plan
from pipeline.stream.topics import Topics
from pipeline.testing import MemoryStore, small_pack
from schemas.labels import label_row
from tests.unit.pipeline.archive.rows import make_item, make_row


class Loop:
    """An archiver that ends at once."""

    def __init__(self, ends: Exception | Archived) -> None:
        self._ends = ends

    def run(self) -> Archived:
        """What it was given."""
        if isinstance(self._ends, Exception):
            raise self._ends
        return self._ends


@pytest.mark.parametrize(
    ("ends", "status", "said"),
    [
        (Archived(results=7, kept=3, bytes=2_500_000, unverified=2, problems=1), 0, "2 of them unverified"),
        (Fenced("another process writes as archive-0."), 5, "error: another process writes as archive-0."),
        (StoreError("403. Check store.access_key."), 2, "error: 403. Check store.access_key."),
    ],
)
def test_an_archiver_ends_as_a_worker_does(
    ends: Exception | Archived,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @contextmanager
    def archiving(*_: object) -> Iterator[Loop]:
        yield Loop(ends)

    monkeypatch.setattr(compose, "archiving", archiving)
    assert invoke(["archive"]) == status
    assert said in capsys.readouterr().err


def test_prune_takes_claims_when_no_message_can_name_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    store = MemoryStore(clock=lambda: now - timedelta(days=10))
    store.put("claims/1", b"1")
    monkeypatch.setattr("pipeline.cli.archive.open_store", lambda _: store)
    assert invoke(["archive", "prune"]) == 0
    assert invoke(["archive", "prune", "--claims-days", "0"]) == 0
    assert len(list(store.list())) == 1
    assert invoke(["archive", "prune", "--claims-days", "9"]) == 0
    assert list(store.list()) == []
    assert "deleted 0 images, 1 claims and 0 rows" in capsys.readouterr().out


def test_claims_outlive_the_frames_and_dead_letters_that_name_them() -> None:
    topics = Topics()
    kept = {
        one.name: timedelta(milliseconds=int(one.config["retention.ms"]))
        for one in plan(topics, small_pack(), Needs(outage_h=24 * 7))
    }
    assert timedelta(days=CLAIMS_DAYS) > kept[topics.frames] + kept[topics.dead_letters]
    assert feed.CLAIMS == CLAIMS


def test_the_summary_of_a_prune_says_what_is_left() -> None:
    assert summary(Pruned(busy=2), dry_run=True).endswith("2 were being written: prune again")
    assert "would keep 3 images past their time that are labelled" in summary(
        Pruned(labelled=3), dry_run=True
    )
    assert "kept" not in summary(Pruned(), dry_run=False)


def test_labelled_frames_are_pruned_only_when_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=10_000)
    store = MemoryStore(clock=lambda: long_ago)
    times = {"captured_at": long_ago, "finished_at": long_ago}
    Archiver(store, Policy(audit_rate=1)).archive([make_item(0, "OK", **times)])
    row = label_row(make_row(0).result_id, "good", long_ago, "cli")
    labels.write(store, [labels.Entry(row, 0, 0)])
    monkeypatch.setattr("pipeline.cli.archive.open_store", lambda _: store)
    assert invoke(["archive", "prune"]) == 0
    assert "kept 1 images past their time" in capsys.readouterr().out
    assert len(list(store.list("frames/"))) == 1
    assert invoke(["archive", "prune", "--labelled"]) == 0
    assert [one.key for one in store.list()] == [labels.file_key(0, 0)]
