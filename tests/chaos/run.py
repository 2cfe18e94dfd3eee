"""Hurt a running plant again and again, and count what it lost.

    python -m tests.chaos.run --kills 200 --seed 1

The order of blows, their kind and their length come from the seed. After each blow every frame that was fed before it must
get its verdict, exactly once. At the end the archive must hold every image that the policy keeps. The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from pipeline.archive.keys import image_key_of
from pipeline.archive.policy import Policy, reason_to_keep
from tests.chaos.plant import Plant, filled

_SURE = Policy(near_margin=0.0, audit_rate=0.0)  # what is kept whatever quotas and samples say
_ARCHIVE_S = 120.0


class Blows:
    """What can be done to a plant, by name."""

    def __init__(self, plant: Plant, rng: random.Random, *, full_disk: bool) -> None:
        self._plant, self._rng = plant, rng
        self.kinds: dict[str, Callable[[], None]] = {
            "kill worker": lambda: plant.worker.signal(signal.SIGKILL),
            "kill archiver": lambda: plant.archiver.signal(signal.SIGKILL),
            "kill broker": lambda: self._kill(plant.kafka),
            "kill store": lambda: self._kill(plant.minio),
            "kill model server": plant.triton_supervisor.kill,
            "pause worker": lambda: self._pause(plant.worker),
            "pause archiver": lambda: self._pause(plant.archiver),
            "pause broker": lambda: self._pause_server(plant.kafka),
            "pause store": lambda: self._pause_server(plant.minio),
            "pause model server": lambda: self._pause_server(plant.triton),
            "stop worker": lambda: plant.worker.signal(signal.SIGTERM),
        }
        if full_disk:
            self.kinds["full disk of the store"] = self._fill

    def _kill(self, server) -> None:
        server.kill()
        time.sleep(self._rng.uniform(0, 1))
        server.restart()

    def _pause(self, process) -> None:
        process.signal(signal.SIGSTOP)
        time.sleep(self._rng.uniform(0.5, 6))
        process.signal(signal.SIGCONT)

    def _pause_server(self, server) -> None:
        server.pause()
        time.sleep(self._rng.uniform(0.5, 6))
        server.resume()

    def _fill(self) -> None:
        with filled(self._plant.store_folder):
            time.sleep(self._rng.uniform(1, 4))


def chaos(
    kills: int, seed: int, folder: Path, *, full_disk: bool, say: Callable[[str], None]
) -> dict[str, object]:
    """Run it. Returns what the last line prints.

    Raises:
        AssertionError: a frame got no verdict in time, or the archive is not complete in time.
    """
    rng, begun = random.Random(seed), time.monotonic()
    plant = Plant(folder, seed, full_disk=full_disk)
    try:
        blows = Blows(plant, rng, full_disk=full_disk)
        plant.until(lambda: len(plant.reader.seen) >= 8, "first verdicts")
        plant.reader.longest_gap = 0.0
        done: Counter[str] = Counter()
        gaps: dict[str, float] = {}
        names = sorted(blows.kinds)
        for number in range(kills):
            # Each kind once in every round, in a random order: 11 blows hit everything.
            if number % len(names) == 0:
                order = rng.sample(names, len(names))
            name = order[number % len(names)]
            time.sleep(rng.uniform(0, 1.5))
            plant.reader.longest_gap = 0.0
            fed = plant.pictures.given - 1
            blows.kinds[name]()
            done[name] += 1
            plant.until(lambda fed=fed: plant.missing(fed) == 0, f"verdicts of {fed} frames after '{name}'")
            fed = plant.pictures.given
            plant.until(lambda fed=fed: plant.missing(fed) == 0, f"verdicts again after '{name}'")
            gaps[name] = max(gaps.get(name, 0.0), plant.reader.longest_gap)
            say(
                f"{number + 1:4d} {name:24s} gap {plant.reader.longest_gap:5.1f} s  frames {fed}  "
                f"doubled {plant.doubled()}"
            )
        plant.drain()
        lost, doubled = plant.missing(plant.fed), plant.doubled()
        unarchived = _unarchived(plant)
        return {
            "kills": kills,
            "seed": seed,
            "frames": plant.fed,
            "lost": lost,
            "doubled": doubled,
            "unarchived": unarchived,
            "longest_gap_s": round(max(gaps.values(), default=0.0), 2),
            "gaps_s": {name: round(gap, 2) for name, gap in sorted(gaps.items())},
            "per_kind": dict(sorted(done.items())),
            "worker_starts": plant.worker.starts,
            "archiver_starts": plant.archiver.starts,
            "model_server_starts": plant.triton_supervisor.starts,
            "minutes": round((time.monotonic() - begun) / 60, 1),
        }
    finally:
        plant.close()


def _unarchived(plant: Plant) -> int:
    """Images that must be kept and are not in the store, once the archiver has had the time to."""
    wanted = {image_key_of(row, "png") for row in plant.reader.rows.values() if reason_to_keep(row, _SURE)}
    deadline = time.monotonic() + _ARCHIVE_S
    while True:
        there = {one.key for one in plant.store.list("frames/")}
        left = wanted - there
        if not left or time.monotonic() > deadline:
            return len(left)
        time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--full-disk", action="store_true", help="also fill the store's disk; needs root, to mount one"
    )
    options = parser.parse_args()
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        found = chaos(
            options.kills, options.seed, Path(folder), full_disk=options.full_disk, say=console.print
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
