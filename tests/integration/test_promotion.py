"""A running line on real servers: promote, a broken pack, shadow, the way back, a new word. No frame is lost or doubled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
from kafka import KafkaProducer

from dapo.pack import Pack
from dapo.pack_io import write_pack
from deploy.native import KafkaServer, MinioServer, TritonServer
from pipeline.kafka.read import TopicReader
from pipeline.kafka.topics import TopicAdmin
from pipeline.registry.registry import Registry
from pipeline.settings import Settings, load
from pipeline.store.open import open_store
from pipeline.stream import compose
from pipeline.stream.frames import write_frame
from pipeline.stream.retention import Needs, plan
from pipeline.stream.topics import Topics
from pipeline.testing import encoded, frame, surface
from schemas.codec import decode_results
from schemas.results import ResultRow
from tests.integration.stream_line import until
from tests.integration.triton_packs import bundled, small
from triton_models.repository import write_skeleton

CAMERAS = 3
RATE_S = 0.1  # between two frames: a switch of a second would be seen at ten of them
ROLLBACK_S, WORD_S = 5.0, 10.0
WORD = "frayed rim"


def champion() -> Pack:
    pack = small(bundled())
    few = pack.product("few").types
    return pack.with_products({"*": replace(pack.product("*"), types=few)})


FIRST = champion()
SECOND = replace(FIRST, temperature=FIRST.temperature * 1.1)  # every score moves: the gate has to allow it
BROKEN = replace(FIRST, encoder=replace(FIRST.encoder, sha256="1" * 64))  # no server has these weights
CHALLENGER = replace(FIRST, temperature=FIRST.temperature * 0.9)


class Plant:
    """A worker that follows the champion, a feeder that never stops, and a reader of committed verdicts."""

    def __init__(self, folder: Path, kafka: KafkaServer, minio: MinioServer, triton: TritonServer) -> None:
        prefix = f"p{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("DAPO_")},
            "DAPO_KAFKA__BOOTSTRAP": kafka.bootstrap,
            "DAPO_KAFKA__PREFIX": prefix,
            "DAPO_WORKER__GROUP": f"{prefix}-inspect",
            "DAPO_WORKER__SLOT": "a",
            "DAPO_STORE__ENDPOINT": minio.endpoint,
            "DAPO_STORE__ACCESS_KEY": minio.access_key,
            "DAPO_STORE__SECRET_KEY": minio.secret_key,
            "DAPO_STORE__BUCKET": f"images-{prefix}",
            "DAPO_STORE__MODELS_BUCKET": f"models-{prefix}",
            "DAPO_TRITON__URL": triton.url,
            "DAPO_TRITON__THREADS": "1",
            "DAPO_RUN__BATCH": "4",
            "DAPO_PACK__FOLLOW": "true",
        }
        self.settings: Settings = load(environment=self.environment).settings
        self.topics = Topics(prefix)
        admin = TopicAdmin(self.settings.kafka)
        admin.create(plan(self.topics, FIRST, Needs(partitions=CAMERAS, single_broker=True)))
        admin.close()
        minio.client().make_bucket(self.settings.store.bucket)
        self.store = open_store(self.settings.store, self.settings.store.models_bucket)
        self.registry = Registry(self.store)
        self.sent: list[str] = []
        self.rows: list[ResultRow] = []
        self.came: dict[str, float] = {}  # configuration hash -> when its last row came
        self.longest_gap = 0.0  # between two verdicts
        self._ends = [threading.Event() for _ in range(3)]  # of feeder, worker and reader, in this order
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._feed, self._work, self._read)
        ]

    def dapo(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command, as people type it."""
        program = str(Path(sys.executable).with_name("dapo"))
        return subprocess.run(
            [program, *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def done(self, *arguments: str) -> str:
        """A command that has to succeed; what it printed."""
        found = self.dapo(*arguments)
        assert found.returncode == 0, f"dapo {' '.join(arguments)}: {found.stdout}\n{found.stderr}"
        return found.stdout

    def file(self, name: str, pack: Pack) -> str:
        write_pack(pack, self.folder / name)
        return name

    def start(self) -> None:
        self._reader = TopicReader(self.settings.kafka)
        self._begin = self._reader.span(self.topics.results)
        for thread in self._threads:
            thread.start()

    def judged_with(self, digest: str, what: str) -> None:
        """Wait until a row says so that comes from now on."""
        begun = time.monotonic()
        until(lambda: self.came.get(digest, 0.0) > begun, 60, f"no row of {what}")

    def drain(self) -> None:
        """Stop feeding, and wait for the rows that are due."""
        self._ends[0].set()
        self._threads[0].join(30)
        until(lambda: len({row.frame_id for row in self.rows}) >= len(self.sent), 60, "rows of all frames")

    def close(self) -> None:
        for end, thread in zip(self._ends, self._threads, strict=True):
            end.set()
            if thread.ident is not None:
                thread.join(60)
                assert not thread.is_alive()
        self.store.close()

    def _feed(self) -> None:
        producer = KafkaProducer(bootstrap_servers=self.settings.kafka.bootstrap, acks="all")
        number = 0
        while not self._ends[0].wait(RATE_S):
            camera = f"cam-{number % CAMERAS}"
            picture = encoded(surface(number, defect=number % 2 == 0))
            one = frame(f"{camera}/{number}", picture, camera_id=camera, sequence=number, product_id="few")
            message = write_frame(one, self.topics.frames)
            producer.send(
                message.topic,
                message.value,
                key=message.key,
                headers=list(message.headers),
                partition=number % CAMERAS,
            ).get(timeout=30)
            self.sent.append(one.frame_id)
            number += 1
        producer.close()

    def _work(self) -> None:
        with compose.worker(self.settings, self._ends[1], print) as worker:
            worker.run()

    def _read(self) -> None:
        with self._reader as reader:
            for records in reader.follow([self._begin], self._ends[2]):
                now, last = time.monotonic(), max(self.came.values(), default=float("inf"))
                if records:
                    self.longest_gap = max(self.longest_gap, now - last)
                for record in records:
                    for row in decode_results(record.value):
                        self.rows.append(row)
                        self.came[row.configuration_hash or ""] = now


@pytest.fixture
def plant(
    tmp_path: Path, kafka: KafkaServer, minio: MinioServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Plant]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    write_skeleton(tmp_path / "models")
    with TritonServer(tmp_path / "triton", tmp_path / "models") as triton:
        made = Plant(tmp_path, kafka, minio, triton)
        yield made
        made.close()


def test_a_line_moves_from_pack_to_pack_without_losing_a_frame(plant: Plant) -> None:
    first, second = FIRST.configuration_hash, SECOND.configuration_hash
    times: dict[str, float] = {}

    def within(seconds: float, what: str) -> None:
        # A machine that does other work beside is given as much longer as that takes.
        shared = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        assert times[what] < seconds * shared, (shared, times)

    def timed(what: str, digest: str, *arguments: str) -> str:
        begun = time.monotonic()
        said = plant.done(*arguments)
        times[f"{what}: command"] = time.monotonic() - begun
        plant.judged_with(digest or plant.registry.pointers().champion or "", what)
        times[f"{what}: first row"] = time.monotonic() - begun
        return said

    plant.done("models", "create")
    plant.done("models", "promote", plant.file("first.pack", FIRST))
    plant.start()
    plant.judged_with(first, "the first champion")

    # Promote: every score moves, so the gate was asked.
    plant.registry.keep_gate(first, second, {"outcome": "promote"})
    timed("promote", second, "models", "promote", plant.file("second.pack", SECOND))

    # A pack that no server can load: nothing moves.
    broken = plant.dapo("models", "promote", plant.file("broken.pack", BROKEN), "--force", "a trial")
    assert broken.returncode == 2
    assert "Nothing has moved" in broken.stderr, broken.stderr
    assert plant.registry.pointers().names == {"champion": second, "previous": first}
    assert plant.registry.pointers().lease is None
    plant.judged_with(second, "the champion after a broken pack")

    # A challenger beside it: nothing of it is published.
    plant.done("models", "push", plant.file("challenger.pack", CHALLENGER), "--challenger")
    begun = time.monotonic()
    said = json.loads(plant.done("models", "shadow", "--frames", "10").splitlines()[-1])
    times["shadow, 10 frames"] = time.monotonic() - begun
    assert said["challenger"] == CHALLENGER.configuration_hash
    assert said["frames"] == 10
    assert said["rank_correlation"] > 0.9
    assert said["challenger_ms"]["p50"] > 0

    # Back: what was kept loaded is pointed to.
    timed("rollback", first, "models", "rollback", "--why", "a test")
    within(ROLLBACK_S, "rollback: first row")

    # A word that another product has, and one that has to be encoded.
    known = next(one.slug for one in FIRST.types if one.slug not in FIRST.product("few").types)
    timed("known word", "", "types", "add", "few", known)
    within(WORD_S, "known word: first row")
    knowing = plant.registry.champion()
    timed("new word", "", "types", "add", "few", WORD)
    within(WORD_S, "new word: first row")
    worded = plant.registry.champion()
    assert worded.product("few").types == (*FIRST.product("few").types, known, "frayed-rim")
    assert plant.registry.history(1)[0].evidence.startswith("no score moves")
    with TopicReader(plant.settings.kafka) as reader:
        assert {plant.topics.defects(slug) for slug in (known, "frayed-rim")} <= reader.topics()

    times["longest gap between two verdicts"] = plant.longest_gap
    plant.drain()
    print(json.dumps({what: round(seconds, 2) for what, seconds in times.items()}))
    rows = list(plant.rows)
    assert sorted(row.frame_id for row in rows) == sorted(plant.sent), "every frame, once"
    assert {row.result_state for row in rows} == {"Completed"}
    expected = [first, second, first, knowing.configuration_hash, worded.configuration_hash]
    for partition in range(CAMERAS):
        mine = sorted(
            (row for row in rows if row.frames_partition == partition), key=lambda row: row.frames_offset or 0
        )
        assert [digest for digest, _ in groupby(row.configuration_hash for row in mine)] == expected
