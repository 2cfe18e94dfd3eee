"""The tools around the stream on a real broker: each over what a worker has really written."""

from __future__ import annotations

import dataclasses
import json
import signal
import socket
import sys
import threading
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from PIL import Image

import pipeline.cli as cli
from dapo.errors import LogRefused, ServiceUnavailable
from dapo.pack_io import write_pack
from pipeline.kafka.read import TopicReader
from pipeline.ports import Message
from pipeline.settings import KafkaSettings
from pipeline.testing import DAY
from schemas.codec import decode, encode
from schemas.labels import LabelRow
from schemas.rle import decode_mask
from schemas.status import StatusRow
from tests.integration.stream_line import PACK

DAPO = str(Path(sys.executable).with_name("dapo"))


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def dapo(monkeypatch, capsys):
    """Run a command line; returns exit status, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        watchdog = threading.Timer(
            60, signal.raise_signal, (signal.SIGINT,)
        )  # 'watch' goes on until it is stopped
        watchdog.start()
        status = cli.invoke(list(arguments))
        watchdog.cancel()
        said = capsys.readouterr()
        return status, said.out, said.err

    monkeypatch.setenv("COLUMNS", "250")
    return run


def test_a_topic_is_read_to_the_end_it_had_and_no_further(line):
    line.feed(30)
    with TopicReader(line.settings.kafka) as reader:
        span = reader.span(line.topics.frames)
        line.feed(10, first=30)
        found = list(reader.read(span))
        assert len(found) == 30
        assert len({(one.partition, one.offset) for one in found}) == 30
        assert (
            list(reader.read(reader.span(line.topics.frames, datetime.now(UTC) + timedelta(hours=1)))) == []
        )
        past = datetime.now(UTC) - timedelta(hours=1)
        assert len(list(reader.read(reader.span(line.topics.frames, past)))) == 40
        [number] = {one.partition for one in found}
        assert [one.offset for one in reader.read(span.only(number, 7, 9))] == [7, 8]
        assert len(list(reader.read(span.last(4)))) == 4
        assert reader.committed("nobody", line.topics.frames) == {0: None, 1: None, 2: None}
        with pytest.raises(LogRefused, match="dapo topics create"):
            reader.span("not.there")


def test_records_that_are_deleted_meanwhile_are_left_out(line):
    line.feed(30)
    admin = KafkaAdminClient(bootstrap_servers=line.settings.kafka.bootstrap)
    with TopicReader(line.settings.kafka) as reader:
        span = reader.span(line.topics.frames)
        [number] = {one.partition for one in reader.read(span)}
        admin.delete_records({TopicPartition(line.topics.frames, number): 12})
        assert [one.offset for one in reader.read(span)] == list(range(12, 30))
    admin.close()


def test_a_broker_that_is_away_is_named(unused_port):
    with pytest.raises(ServiceUnavailable, match=f"127.0.0.1:{unused_port}.*dapo doctor"):
        TopicReader(KafkaSettings(bootstrap=f"127.0.0.1:{unused_port}"))


def test_only_committed_messages_are_read(line):
    producer = KafkaProducer(
        bootstrap_servers=line.settings.kafka.bootstrap, transactional_id=f"{line.prefix}-x",
        enable_idempotence=True, acks="all",
    )  # fmt: skip
    producer.init_transactions()
    for value, finish in ((b"undone", producer.abort_transaction), (b"done", producer.commit_transaction)):
        producer.begin_transaction()
        producer.send(line.topics.labels, value, key=b"k").get(timeout=30)
        finish()
    producer.close()
    assert [record.value for record in line.records(line.topics.labels)] == [b"done"]


def test_the_ledger_balances_and_finds_a_doubled_row(line, dapo):
    for camera in range(3):
        line.feed(8, camera=f"cam-{camera}")
    line.feed(2, camera="cam-1", first=20, good=False)
    line.work(26)
    line.feed(3, camera="cam-2", first=8)  # nobody has come to these
    status, out, err = dapo("ledger", "--json")
    assert (status, err) == (0, "")
    said = json.loads(out.splitlines()[-1])
    assert said["balanced"]
    assert (said["frames"], said["rows"], said["waiting"], said["cameras"]) == (26, 26, 3, 3)
    assert (said["failed"], said["dead_letters"], said["gaps"]) == (2, 2, 12)
    assert said["listed"] == said["published"] > 0
    assert "cam-1" in out

    status, out, _ = dapo("ledger", "--since", "1h", "--json")
    assert status == 0
    assert json.loads(out.splitlines()[-1])["rows"] == 26

    status, out, _ = dapo("ledger", "--group", f"{line.prefix}-nobody", "--json")
    assert status == 1
    assert "3 frames without a row" in out

    copy = line.records(line.topics.results)[0]
    line.send(Message(copy.topic, copy.key, copy.value, copy.headers))
    status, out, _ = dapo("ledger", "--json")
    assert status == 1
    assert "1 rows too many" in out
    assert json.loads(out.splitlines()[-1])["doubled"] == 1


def test_dead_letters_are_listed_shown_and_sent_back_once(line, dapo, tmp_path):
    line.feed(3, camera="cam-a", good=False)
    line.feed(2, camera="cam-b", good=False)
    line.feed(2, camera="cam-b", first=10)
    line.work(7)
    status, out, _ = dapo("dead-letters", "list", "--code", "not-an-image", "--since", "1h")
    assert status == 0
    assert "5 dead letters" in out
    assert out.count("cam-a") >= 3
    assert "0 dead letters" in dapo("dead-letters", "list", "--stage", "read")[1]
    status, out, _ = dapo("dead-letters", "list", "--camera", "cam-a", "--limit", "1")
    assert "3 dead letters, the last 1 shown" in out
    place = next(row.split()[0] for row in out.splitlines() if "cam-a" in row)

    file = tmp_path / "frame.bin"
    status, out, _ = dapo("dead-letters", "show", place, "--out", str(file))
    assert status == 0
    assert file.read_bytes() == b"no image"
    assert "inspect.code: not-an-image" in out
    assert dapo("dead-letters", "show", place, "--out", str(file))[0] == 2
    status, _, err = dapo("dead-letters", "show", "0/4711")
    assert status == 2
    assert "no such letter" in err

    came = {(r.key, r.value, r.headers) for r in line.records(line.topics.frames) if r.value == b"no image"}
    status, out, _ = dapo("dead-letters", "replay", "--camera", "cam-a", "--dry-run")
    assert status == 0
    assert "3 frames would be sent, 0 were sent before" in out
    assert len(line.records(line.topics.frames)) == 7
    assert "3 frames sent" in dapo("dead-letters", "replay", "--camera", "cam-a")[1]
    assert "0 frames sent" in dapo("dead-letters", "replay", "--camera", "cam-a")[1]
    assert (
        "0 frames would be sent, 3 were sent before"
        in dapo("dead-letters", "replay", "--camera", "cam-a", "--dry-run")[1]
    )
    assert (
        "1 frames sent" in dapo("dead-letters", "replay", "--camera", "cam-a", "--again", "--limit", "1")[1]
    )
    again = [r for r in line.records(line.topics.frames) if ("inspect.attempt", b"1") in r.headers]
    assert len(again) == 4
    assert all((r.key, r.value, r.headers[:-1]) in came for r in again)

    line.work(4)
    status, out, _ = dapo("ledger", "--json")
    said = json.loads(out.splitlines()[-1])
    assert (status, said["balanced"], said["fed_again"], said["failed"]) == (0, True, 4, 9)
    assert dapo("dead-letters", "replay", "--camera", "cam-a")[1].startswith(
        "6 frames sent"
    )  # 2 old ones, 4 new ones


def test_watch_shows_verdicts_and_the_lines_that_live(line, dapo):
    line.feed(6, camera="cam-a")
    line.feed(6, camera="cam-b")
    line.work(12)
    status, out, _ = dapo("watch", "--plain", "--max", "12", "--rows", "12")
    assert status == 0
    lines = [text.split("\t") for text in out.splitlines()]
    assert sorted(one[6] for one in lines) == sorted(row.frame_id for row in line.results())
    status, out, _ = dapo(
        "watch", "--plain", "--camera", "cam-b", "--line", "l1", "--max", "6", "--rows", "12"
    )
    assert {text.split("\t")[4] for text in out.splitlines()} == {"cam-b"}

    beat = StatusRow(
        at=datetime.now(UTC) - timedelta(seconds=60), worker_id="w", line_id="l1", state="running", started_at=DAY,
        frames_in=12, completed=12, failed=0, aborted=0, late=0, gaps=0, lost=0, in_flight=0, mode="capacity",
    )  # fmt: skip
    alive = dataclasses.replace(beat, at=datetime.now(UTC) + timedelta(seconds=60), line_id="l2")
    line.send(*(Message(line.topics.status, b"k", encode([one])) for one in (beat, alive)))
    status, out, _ = dapo("watch", "--only", "Undefined", "--max", "1", "--rows", "12")
    assert status == 0
    assert out.count("DEAD") == 1
    assert "Undefined 1" in out
    assert dapo("watch", "--only", "Bad")[0] == 2


def test_watch_goes_on_with_what_comes(line, dapo):
    line.feed(2, camera="cam-a")
    later = threading.Timer(1.0, lambda: line.work(2))
    later.start()
    status, out, _ = dapo("watch", "--plain", "--max", "2", "--rows", "0")
    later.join()
    assert (status, len(out.splitlines())) == (0, 2)


def test_labels_are_written_imported_once_and_listed(line, dapo, tmp_path):
    pack, mask = tmp_path / "small.pack", tmp_path / "mask.png"
    write_pack(PACK, pack)
    pixels = np.zeros((8, 9), np.uint8)
    pixels[2:4, 3:6] = 255
    Image.fromarray(pixels).save(mask)
    result = str(uuid.uuid4())
    with_pack = ("--pack", str(pack))
    status, out, err = dapo("label", result, "scratch", "--mask", str(mask), "--author", "zoë", *with_pack)
    assert (status, err) == (0, "")
    first = out.strip()
    status, out, _ = dapo("label", result, "good", "--supersedes", first, *with_pack)
    assert status == 0
    status, _, err = dapo("label", result, "scrach", *with_pack)
    assert status == 2
    assert "Did you mean 'scratch'" in err

    file = tmp_path / "labels.csv"
    file.write_text(f"result_id,label,mask\n{result},hole,mask.png\n{uuid.uuid4()},rust,\n")
    status, _, err = dapo("labels", "import", str(file), *with_pack)
    assert status == 2
    assert f"{file}:3:" in err
    assert len(line.records(line.topics.labels)) == 2
    file.write_text(f"result_id,label,mask\n{result},hole,mask.png\n{uuid.uuid4()},good,\n")
    assert dapo("labels", "import", str(file), *with_pack)[1].startswith("2 labels written")
    assert dapo("labels", "import", str(file), *with_pack)[1].startswith("0 labels written, 2 of")

    records = line.records(line.topics.labels)
    rows = [row for record in records for row in decode(record.value, LabelRow)]
    assert sorted(row.label for row in rows) == ["good", "good", "hole", "scratch"]
    scratch = next(row for row in rows if row.label == "scratch")
    assert (decode_mask(scratch.mask) == (pixels > 0)).all()
    assert {record.key for record in records} == {row.result_id.encode() for row in rows}
    status, out, _ = dapo("labels", "list")
    assert status == 0
    assert "2 labels" in out  # one was replaced, one taken back by a later defect
    assert "4 labels" in dapo("labels", "list", "--all")[1]
    assert "1 labels" in dapo("labels", "list", "--result", result)[1]
