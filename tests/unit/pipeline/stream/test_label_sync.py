"""Labels from their topic to the table in the bucket, over a log and a store in memory."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.archive import labels
from pipeline.ports import Message
from pipeline.store.errors import StoreError
from pipeline.stream.label_sync import LabelSync
from pipeline.stream.labels import label_message
from pipeline.testing import DAY, MemoryBroker, MemoryLog, MemoryStore
from schemas.codec import encode
from schemas.labels import LabelRow, label_row
from tests.unit.pipeline.stream.test_archiving import until

TOPIC = "t.labels"


class Desk:
    """Labels on a broker, and a bucket for the table."""

    def __init__(self, count: int = 0) -> None:
        self.broker, self.store = MemoryBroker(t_labels=2), MemoryStore()
        self.rows = [label_row(f"r{n}", "hole", DAY + timedelta(minutes=n), "cli") for n in range(count)]
        for row in self.rows:
            self.broker.write(label_message(row, TOPIC))

    def loop(self, stop: threading.Event | None = None, *, once: bool = True, **fails: int) -> LabelSync:
        log = MemoryLog(self.broker, TOPIC, "sync")
        for name, value in fails.items():
            setattr(log, name, value)
        done = (lambda: log.lag() == 0) if once else (lambda: False)
        return LabelSync(log, self.store, batch=4, batch_s=0.05, stop=stop, done=done)

    def table(self) -> list[str]:
        return sorted(row.result_id for row in labels.rows(self.store))

    @property
    def expected(self) -> list[str]:
        return sorted(row.result_id for row in self.rows)


def test_a_sync_ends_where_the_topic_ends_and_goes_on_from_there():
    desk = Desk(10)
    assert desk.loop().run().labels == 10
    assert desk.table() == desk.expected
    more = label_row("later", "good", DAY, "cli")
    desk.broker.write(label_message(more, TOPIC))
    assert desk.loop().run().labels == 1
    assert desk.table() == sorted([*desk.expected, "later"])
    assert desk.loop().run().labels == 0


def test_an_empty_topic_ends_at_once():
    assert Desk().loop().run().labels == 0


def test_what_is_copied_again_leaves_the_same_objects():
    desk = Desk(10)
    desk.loop().run()
    before = [(one.key, one.etag) for one in desk.store.list()]
    desk.broker.offsets.clear()  # as if nothing had been committed
    desk.loop(failing=2).run()
    assert [(one.key, one.etag) for one in desk.store.list()] == before


@pytest.mark.parametrize("fails", [{"failing": 2}, {"moving": 2}], ids=str)
def test_a_commit_that_is_undone_loses_and_doubles_nothing(fails):
    desk = Desk(10)
    desk.loop(**fails).run()
    assert desk.table() == desk.expected


def test_a_store_that_is_away_is_waited_for_and_loses_nothing():
    desk, stop = Desk(10), threading.Event()
    desk.store.away = True
    loop = desk.loop(stop, once=False)
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    until(lambda: loop.waits >= 2)
    assert desk.broker.offsets == {}
    assert "store" in loop.missing()
    desk.store.away = False
    until(lambda: loop.synced.labels == 10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert desk.table() == desk.expected


def test_what_is_no_label_is_counted_and_passed(caplog):
    desk = Desk(2)
    odd = LabelRow(label_id="a", result_id="r", label="../etc", labelled_at=DAY, source="cli")
    for value in (b"nonsense", encode([odd]), b""):
        desk.broker.write(Message(TOPIC, b"k", value))
    done = desk.loop().run()
    assert (done.labels, done.unreadable) == (2, 3)
    assert desk.table() == desk.expected
    assert "is no label" in caplog.text


def test_a_label_under_the_id_of_another_takes_nobodys_place():
    desk = Desk(2)
    forged = replace(
        label_row("somebody-elses", "hole", DAY, "cli"), label_id=label_row("r", "hole", DAY, "cli").label_id
    )
    desk.broker.write(Message(TOPIC, b"k", encode([forged])))
    done = desk.loop().run()
    assert (done.labels, done.unreadable) == (2, 1)
    assert desk.table() == desk.expected


def test_labels_of_one_message_are_all_copied():
    desk = Desk()
    rows = [label_row("r", "hole", DAY + timedelta(minutes=n), "cli") for n in range(3)]
    desk.broker.write(Message(TOPIC, b"r", encode(rows)))
    assert desk.loop().run().labels == 3
    assert desk.table() == ["r", "r", "r"]


def test_a_store_that_refuses_us_ends_the_sync_and_commits_nothing():
    desk = Desk(3)
    desk.store.put_if_absent(labels.file_key(0, 0), b"no table")
    desk.store.put_if_absent(labels.file_key(1, 0), b"no table")
    with pytest.raises(StoreError, match="Move it elsewhere"):
        desk.loop().run()
    assert desk.broker.offsets == {}


def test_a_sync_tells_what_it_copied():
    desk = Desk(3)
    desk.broker.write(Message(TOPIC, b"k", b"nonsense"))
    loop = desk.loop()
    loop.run()
    value = loop.metrics.registry.get_sample_value
    assert (value("dapo_label_sync_labels_total"), value("dapo_label_sync_unreadable_total")) == (3, 1)
