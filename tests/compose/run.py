"""Build the demo, start it, kill each of its containers once, and count what it lost: make compose-test

    python -m tests.compose.run            every image built from package registries (deploy/airgap)
    python -m tests.compose.run --published    the published images of Kafka, Triton, MinIO, Prometheus and Grafana

After each kill the container must be there again by itself and every frame that was fed before must have its verdict at
the MES; `dapo ledger` counts from the topics. Then the archive is compared with the verdicts, everything is taken down and
started again on the same volumes, and counted once more. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from typing import Any

from rich.console import Console

from pipeline.archive.keys import image_key_of
from pipeline.archive.manifest import parts
from pipeline.archive.policy import Policy, reason_to_keep
from pipeline.archive.table import read
from pipeline.kafka.read import TopicReader
from pipeline.settings import KafkaSettings, StoreSettings
from pipeline.store.open import open_store
from pipeline.stream.topics import Topics
from schemas.codec import decode_results
from schemas.results import ResultRow
from tests.compose.demo import AIRGAP, DEPLOY, PUBLISHED, SERVICES, Demo, plain_query

_SURE = Policy(near_margin=0.0, audit_rate=0.0)  # what is kept whatever quotas and samples say
_HEALTHY_S, _VERDICTS_S, _ARCHIVE_S = 180.0, 90.0, 120.0
_MAY_BE_EMPTY = {
    "Which alerts fire?",
    "Are results late?",  # nobody promised a deadline
    "What waits in the dead letters?",
    "Which camera skips numbers?",
}
_ENDS_OF_MES = 2  # a kill and a stop
_FIRST = 40  # verdicts before anything is killed


class Check:
    """The whole of it, step by step; `found` is what the last line prints, `faults` what must not be."""

    def __init__(self, demo: Demo, console: Console) -> None:
        self._demo, self._console = demo, console
        self.found: dict[str, Any] = {"kills": {}}
        self.faults: list[str] = []
        self._printed: Counter[str] = Counter()  # frame keys of the verdicts that the MES printed
        self._images: set[str] = set()

    def build(self) -> None:
        begun = time.monotonic()
        self._demo.compose("build", echo=True, seconds=3600)
        self.found["seconds_to_build"] = round(time.monotonic() - begun, 1)
        self.found["line_image_mb"] = round(self._demo.image_mb("worker"), 1)

    def start(self) -> None:
        """From nothing to the first verdict, and on until all is well."""
        begun = time.monotonic()
        self._demo.compose("up", "--detach", "--no-build")
        self._demo.until(lambda: self._demo.has(1), "a first verdict", _HEALTHY_S)
        self.found["seconds_to_first_verdict"] = round(time.monotonic() - begun, 1)
        self._all_well()
        self._demo.until(lambda: self._demo.has(_FIRST), f"{_FIRST} verdicts", _VERDICTS_S)
        self._say("up", f"first verdict after {self.found['seconds_to_first_verdict']} s")

    def kill_each(self) -> None:
        for service in SERVICES:
            begun = time.monotonic()
            self._demo.kill(service)
            self._all_well()
            seconds = round(time.monotonic() - begun, 1)
            account = self._caught_up()
            self.found["kills"][service] = 1
            self._say(f"killed {service}", f"well again after {seconds} s; {_short(account)}")

    def compare_archive(self) -> None:
        """With the cameras at rest: what must be kept is kept, the manifest has a row for each image, and none went away."""
        self._demo.compose("stop", "camera-1", "camera-2")
        self._caught_up()
        wanted = {
            image_key_of(row, "png") for row in self._rows() if reason_to_keep(row, _SURE)
        } | self._images

        def complete() -> bool:
            images, listed = self._archived()
            self.found |= {"images": len(images), "unarchived": len(wanted - images), "manifest": len(listed)}
            self._images = images
            return wanted <= images and images == listed

        if not self._demo.soon(complete, _ARCHIVE_S):
            self.faults.append(f"the archive: {self.found}")
        self._say("archive", f"{self.found['images']} images, {len(wanted)} of them had to be kept")
        self._demo.compose("start", "camera-1", "camera-2")

    def down_and_up(self) -> None:
        """Containers and network go, the volumes stay."""
        before = self._demo.ledger()
        self._demo.compose("stop")  # what is printed until `down` goes with the container
        self._note_printed()
        self._demo.compose("down")
        self._demo.compose("up", "--detach", "--no-build")
        self._all_well()
        account = self._caught_up()
        if account["frames"] < before["frames"]:
            self.faults.append(f"{before['frames']} frames before 'down', {account['frames']} after 'up'")
        known = self._demo.verdicts() or 0
        self._demo.until(lambda: self._demo.has(known + _FIRST), "new verdicts", _VERDICTS_S)
        self._say("down and up", _short(account))

    def watch(self) -> None:
        """The rules are right, every panel can be filled, and nothing that healed by itself raised an alert."""
        rules = ("run", "--rm", "-T", "--no-deps", "--entrypoint=promtool", "prometheus")
        self._demo.compose(*rules, "check", "config", "/etc/prometheus/prometheus.yml")
        self._demo.compose(*rules, "test", "rules", "/etc/prometheus/rules_test.yml")
        board = json.loads((DEPLOY / "grafana" / "dashboards" / "line.json").read_text())
        empty = []
        for panel in board["panels"]:
            expressions = [target["expr"] for target in panel.get("targets", ())]
            answered = [bool(self._demo.query(plain_query(expression))) for expression in expressions]
            if expressions and not any(answered) and panel["title"] not in _MAY_BE_EMPTY:
                empty.append(panel["title"])
        raised = self._demo.query('max_over_time(ALERTS{alertstate="firing"}[1h])')
        alerts = sorted({one["metric"]["alertname"] for one in raised})
        self.found |= {"panels": len(board["panels"]), "empty_panels": empty, "alerts": alerts}
        self.faults += [f"panels without anything: {empty}"] if empty else []
        self.faults += [f"alerts: {alerts}"] if alerts else []
        self._say("metrics", f"{len(board['panels'])} panels, without anything: {empty}; alerts: {alerts}")

    def end(self) -> None:
        """Count for the last time, with everything at rest."""
        self.compare_archive()
        self._demo.compose("stop", "camera-1", "camera-2")
        account = self._caught_up()
        self._note_printed()
        frames, verdicts = int(account["frames"]), self._demo.verdicts() or 0
        # The example writes a verdict into its table before it prints it: an end in between takes the line, not the verdict.
        unprinted = frames - len(self._printed)
        self.found |= {
            "frames": frames,
            "lost": abs(frames - verdicts)
            + sum(int(account[name]) for name in ("waiting", "missing", "gaps")),
            "doubled": int(account["doubled"]) + self._printed.total() - len(self._printed),
            "unprinted": unprinted,
            "balanced": account["balanced"],
        }
        self.faults += [f"{name}: {self.found[name]}" for name in ("lost", "doubled") if self.found[name]]
        self.faults += [] if account["balanced"] else ["the ledger does not balance"]
        self.faults += [f"{unprinted} verdicts were never printed"] if unprinted > _ENDS_OF_MES else []

    def _all_well(self) -> None:
        self._demo.until(lambda: all(self._demo.well(name) for name in SERVICES), "all well", _HEALTHY_S)

    def _caught_up(self) -> dict[str, Any]:
        """Wait until every frame that is on the topic now has its verdict at the MES; the ledger after it."""
        account = self._demo.ledger()
        frames = int(account["frames"]) + int(account["waiting"])
        self._demo.until(lambda: self._demo.has(frames), f"{frames} verdicts", _VERDICTS_S)
        return self._demo.ledger()

    def _note_printed(self) -> None:
        self._printed.update(verdict["frame_key"] for verdict in self._demo.printed())

    def _rows(self) -> list[ResultRow]:
        settings = KafkaSettings(bootstrap=f"127.0.0.1:{self._demo.ports['KAFKA_PORT']}")
        with TopicReader(settings) as reader:
            span = reader.span(Topics(settings.prefix).results)
            return [row for record in reader.read(span) for row in decode_results(record.value)]

    def _archived(self) -> tuple[set[str], set[str]]:
        """Keys of the images, and of those that the manifest lists."""
        key, secret = (
            (DEPLOY / "secrets" / f"store_{name}_key").read_text() for name in ("access", "secret")
        )
        endpoint = f"127.0.0.1:{self._demo.ports['STORE_PORT']}"
        store = open_store(StoreSettings(endpoint=endpoint, access_key=key, secret_key=secret))
        try:
            images = {one.key for one in store.list("frames/")}
            tables = [read(store, one.key, ["object_key"]) for _, files in parts(store) for one in files]
            return images, {name for table in tables for name in table["object_key"].to_pylist()}
        finally:
            store.close()

    def _say(self, what: str, said: str) -> None:
        self._console.print(f"{what:18s} {said}", soft_wrap=True)


def _short(account: dict[str, Any]) -> str:
    names = ("frames", "completed", "failed", "waiting", "missing", "doubled", "gaps")
    return ", ".join(f"{account[name]} {name}" for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--published", action="store_true", help="the published images, from a registry")
    parser.add_argument("--keep", action="store_true", help="leave it running at the end, or where it failed")
    options = parser.parse_args()
    demo = Demo(PUBLISHED, ["observability"]) if options.published else Demo(AIRGAP, ["metrics"])
    check = Check(demo, Console(highlight=False))
    begun = time.monotonic()
    demo.compose("down", "--volumes", "--remove-orphans")  # of an earlier run
    try:
        check.build()
        check.start()
        check.kill_each()
        check.compare_archive()
        check.down_and_up()
        check.watch()
        check.end()
    finally:
        if not options.keep:
            demo.compose("down", "--volumes", "--remove-orphans")
    check.found |= {"faults": check.faults, "minutes": round((time.monotonic() - begun) / 60, 1)}
    print(json.dumps(check.found))
    raise SystemExit(1 if check.faults else 0)


if __name__ == "__main__":
    main()
