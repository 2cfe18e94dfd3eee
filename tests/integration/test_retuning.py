"""The champion of a real bucket, retuned by one command as cron calls it; then drift, and what to label next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

from deploy.native import MinioServer
from pipeline.lock import locked
from pipeline.registry.registry import Registry
from pipeline.registry.turn import turn
from pipeline.settings import load
from pipeline.store.open import open_store
from tests.integration.stream_line import until
from tests.unit.trainer.periodic import plant

SPAN = f"{plant.NOON.date()}..{datetime.now(UTC).date()}"
EPOCHS = 40
RULES = "min_parts = 2\n"  # of a product: the test is a fifth of few


class Operations:
    """Buckets with an archive and a champion, and commands as people type them."""

    def __init__(self, folder: Path, minio: MinioServer) -> None:
        name = uuid.uuid4().hex[:8]
        self.folder = folder
        self.environment = {
            **{key: text for key, text in os.environ.items() if not key.startswith("DAPO_")},
            **minio.client_environment(),
            "DAPO_STORE__BUCKET": f"images-{name}",
            "DAPO_STORE__MODELS_BUCKET": f"models-{name}",
            "DAPO_ARCHIVE__AUDIT_RATE": "1.0",
            "DAPO_MODEL__THREADS": "2",
            "DAPO_PACK__FOLLOW": "true",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        settings = load(environment=self.environment).settings
        for bucket in (settings.store.bucket, settings.store.models_bucket):
            minio.client().make_bucket(bucket)
        self.images = open_store(settings.store)
        self.models = open_store(settings.store, settings.store.models_bucket)
        plant.archive(self.images, folder / "frames")
        self.registry: Registry = plant.registry(self.models, plant.backwards())

    @property
    def every(self) -> tuple[str, ...]:
        """Options of every retuning."""
        rules = self.folder / "rules.toml"
        rules.write_text(RULES)
        return (
            *("--from-archive", "--since", SPAN, "--auto", "--epochs", str(EPOCHS)),
            *("--rules", str(rules), "--salt", plant.SALT, "--out", "runs"),
        )

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("dapo")), *arguments]

    def dapo(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def retune(self, *options: str) -> tuple[int, dict[str, object], str]:
        """Exit status, the JSON on the last line, and what was told."""
        found = self.dapo("retune", *self.every, *options)
        last = found.stdout.strip().splitlines()
        return found.returncode, json.loads(last[-1]) if last else {}, found.stderr

    def close(self) -> None:
        self.images.close()
        self.models.close()


def test_a_champion_is_retuned_promoted_and_watched(tmp_path: Path, minio: MinioServer) -> None:
    plant_ = Operations(tmp_path, minio)
    before = plant_.registry.pointers().champion
    assert before is not None

    # Somebody else is at it: nothing is begun, and the same call can do it later.
    with turn(plant_.registry, before, "ann@another"):
        status, _, told = plant_.retune()
    assert status == 75
    assert "ann@another is retuning" in told

    # Likewise on this machine.
    (tmp_path / "runs").mkdir(exist_ok=True)
    with locked(tmp_path / "runs"):
        status, _, told = plant_.retune()
    assert status == 75
    assert "another run is writing there" in told

    # Begun, and stopped while it learns.
    promote = ("--then", "promote", "--shadow-frames", "0")
    running = subprocess.Popen(
        plant_.command("retune", *plant_.every, *promote),
        env=plant_.environment,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: any(tmp_path.glob("runs/*/checkpoint.safetensors")), 120, "a checkpoint")
        assert running.poll() is None, "it ended before it could be stopped"
        running.terminate()
        assert running.wait(60) == 130
    finally:
        running.kill()
        running.wait()
    [folder] = (tmp_path / "runs").iterdir()

    # Gone on with, tuned, gated and promoted by the next call: a stopped one has given its turn back.
    status, outcome, told = plant_.retune(*promote)
    assert status == 0, told
    assert "gone on with" in told
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [folder.name]
    assert len(json.loads((folder / "retune.json").read_text())["losses"]["total"]) == EPOCHS
    assert outcome["did"] == "promoted", outcome
    champion = plant_.registry.champion()
    assert champion.configuration_hash == outcome["challenger"] != before
    assert plant_.registry.pointers().previous == before
    assert plant_.registry.history(1)[0].evidence == "gate: promote"
    for name in ("report.html", "gate.html", "gate.json", "retuned.pack", "outcome.json"):
        assert (folder / name).stat().st_size > 0

    # The next night there is nothing to do.
    status, outcome, _ = plant_.retune(*promote, "--every", "28d")
    assert (status, outcome) == (0, {"outcome": "not-due"})

    # The line looks as the new champion knows it.
    looked = plant_.dapo("drift", "--once", "--hours", str(24 * 365 * 3))
    assert looked.returncode == 0, looked.stderr
    said = json.loads(looked.stdout.splitlines()[-1])
    assert said["configuration_hash"] == champion.configuration_hash
    assert {one["product"] for one in said["products"]} == set(plant.PRODUCTS)
    assert said["drifted"] == []

    # What to label next, judged by the champion.
    chosen = plant_.dapo("label-next", "--data", f"archive:{SPAN}", "--count", "3")
    assert chosen.returncode == 0, chosen.stderr
    assert (tmp_path / "label-next" / "label-next.html").exists()
    plant_.close()
