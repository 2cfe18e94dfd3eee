"""The line as docs/line.md has it, command by command, with both example subscribers; then 2,000 frames, recounted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.settings import StoreSettings
from pipeline.store.open import open_store
from tests.node import EXAMPLES, install_reader, node
from trainer.encoder.generator import TRAIN_FAMILIES, draw_sample

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SAMPLE_FILES = list((ROOT / "pipeline" / "samples").glob("*.png"))
SAMPLES = len(SAMPLE_FILES)
DEFECTIVE = len([path for path in SAMPLE_FILES if "good" not in path.name])
SURFACES, WAYS = 250, 8  # drawn; each turned and mirrored: 2,000 frames
_LONG_S = 420


def blocks(page: str) -> list[list[str]]:
    """The commands of each code block of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [found.strip().splitlines() for found in re.findall(r"```\n(.*?)```", text, re.DOTALL)]


class Shell:
    """Runs the page's commands in a home folder of its own, as somebody who follows it would."""

    def __init__(self, home: Path) -> None:
        self.home = home
        clean = {n: v for n, v in os.environ.items() if not n.startswith(("DAPO_", "XDG_STATE"))}
        cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        self._environment = {**clean, "HOME": str(home), "XDG_CACHE_HOME": cache, "OMP_NUM_THREADS": "1"}
        self._background: list[subprocess.Popen[bytes]] = []
        self._source = ""

    def run(self, command: str, cwd: Path = ROOT, timeout: float = _LONG_S) -> str:
        """Its standard output; fails where the command does."""
        done = subprocess.run(
            ["bash", "-ec", self._script(command)],
            cwd=cwd, env=self._environment, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if command.startswith("source "):
            self._source = f"{command}\n"
        return done.stdout

    def start(self, command: str, *, log: Path | None = None) -> subprocess.Popen[bytes]:
        """Start it in the background."""
        with open(log or self.home / f"{len(self._background)}.log", "wb") as output:
            process = subprocess.Popen(
                ["bash", "-ec", self._script(f"exec {command}")],
                cwd=ROOT, env=self._environment, stdout=output, stderr=output,
            )  # fmt: skip
        self._background.append(process)
        return process

    def end(self) -> None:
        """Stop all that was started."""
        for process in self._background:
            process.send_signal(signal.SIGTERM)
        for process in self._background:
            with suppress(subprocess.TimeoutExpired):
                process.wait(40)
            process.kill()

    def _script(self, command: str) -> str:
        return self._source + re.sub(r"^(exec )?\.venv/bin/", rf"\1{BIN}/", command)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """The first two blocks of the page have run: servers, topics, frames, worker, watch, archive."""
    first, others, _ = blocks("docs/line.md")[:3]
    shell = Shell(tmp_path_factory.mktemp("home"))
    try:
        for command in first[:-1]:
            shell.run(command)
        for command in (first[-1], *others):
            shell.start(command, log=shell.home / f"{command.split()[1]}.log")
        yield shell
    finally:
        shell.end()
        shell.run(blocks("docs/line.md")[2][-1])


def balanced(shell: Shell, frames: int) -> dict[str, int]:
    """What `dapo ledger` says once the workers have come to so many frames; it takes no fixed time."""
    for _ in range(_LONG_S):
        # The next verdict that is seen is the event that is waited for.
        shell.run(".venv/bin/dapo watch --plain --max 1 --rows 1")
        said: dict[str, int] = json.loads(shell.run(".venv/bin/dapo ledger --json").splitlines()[-1])
        if said["waiting"] == 0 and said["frames"] >= frames:
            return said
    raise AssertionError(f"the ledger never came to {frames} frames: {said}")


def test_the_readme_begins_as_the_page_does() -> None:
    assert blocks("docs/line.md")[0] in blocks("README.md")


def test_the_page_works_as_written(shell: Shell) -> None:
    said = balanced(shell, SAMPLES)
    assert said["frames"] == said["rows"] == SAMPLES
    for command in blocks("docs/line.md")[2][:-1]:
        shell.run(command)
    seen = shell.run(f".venv/bin/dapo watch --plain --max {SAMPLES} --rows {SAMPLES}")
    assert {path.name for path in SAMPLE_FILES} == {line.split("\t")[6] for line in seen.splitlines()}


def archived(shell: Shell, images: int) -> None:
    """Wait until the archive holds so many images."""
    text = shell.run("env -0").split("\0")
    found = dict(line.split("=", 1) for line in text if line.startswith("DAPO_STORE__"))
    store = open_store(
        StoreSettings.model_validate({n.removeprefix("DAPO_STORE__").lower(): v for n, v in found.items()})
    )
    deadline = time.monotonic() + 60
    try:
        while len(list(store.list("frames/"))) < images:
            assert time.monotonic() < deadline, f"after a minute the archive holds less than {images} images"
            time.sleep(0.2)
    finally:
        store.close()


@pytest.mark.parametrize("language", ["python", "node"])
def test_an_example_subscriber_sees_each_verdict_once(shell: Shell, tmp_path: Path, language: str) -> None:
    # Both are of the group "mes", as two instances of one MES: what one has taken the other does not see.
    shell.run(f".venv/bin/dapo feed pipeline/samples --product sample --line demo --camera {language}")
    archived(shell, DEFECTIVE * (2 if language == "python" else 3))
    program = f"{sys.executable} {EXAMPLES / 'subscriber.py'}"
    if language == "node":
        program = f"{node()} {install_reader() / 'subscriber.mjs'}"
    printed = shell.run(f"{program} --max {SAMPLES}", cwd=tmp_path, timeout=120)
    rows = [json.loads(line) for line in printed.splitlines()]
    assert len({row["frame_key"] for row in rows}) == len(rows) == SAMPLES
    assert any(row["defects"] for row in rows)
    assert all(defect["pixels"] == defect["area_px"] for row in rows for defect in row["defects"])
    kept = [row for row in rows if row["evaluation"] == "NotOK"]
    assert kept
    assert all(row["image"].endswith(".png") for row in kept), "joined with the archive by key"


def test_two_thousand_frames_are_recounted(shell: Shell, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(SURFACES):
        image = draw_sample(np.random.default_rng([31, number]), TRAIN_FAMILIES).image[..., ::-1]
        for way in range(WAYS):
            turned = np.rot90(image if way < 4 else image[:, ::-1], way % 4)
            assert cv2.imwrite(str(frames / f"{number:03d}-{way}.png"), np.ascontiguousarray(turned))
    fed = SURFACES * WAYS
    shell.run(f".venv/bin/dapo feed {frames} --product sample --line demo --camera cam-2")
    if photographs := os.environ.get("DAPO_EVAL_DATA"):
        told = shell.run(f".venv/bin/dapo feed {photographs} --product sample --line demo --camera cam-3")
        fed += int(re.search(r"(\d+) frames", told).group(1))  # type: ignore[union-attr]
    shell.start(".venv/bin/dapo worker --metrics-port 0")  # scaled out in the middle of the work
    said = balanced(shell, 3 * SAMPLES + fed)
    assert said["frames"] == said["rows"] == 3 * SAMPLES + fed
    assert said["missing"] == said["doubled"] == 0
