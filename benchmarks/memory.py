"""Peak memory of `dapo run` over a list of frames: python -m benchmarks.memory --list FILE [--root FOLDER]

Runs the command as a process of its own, samples its resident memory, and compares the last half of the run with the second
quarter (the first quarter loads the model): flat means that memory does not grow with the number of frames.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import report


def resident_mb(pid: int) -> float | None:
    """Resident memory of a process in MB (Linux); None once it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    return int(found.group(1)) / 1024 if found else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", type=Path, required=True)
    parser.add_argument("--root", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        line = [
            str(Path(sys.executable).with_name("dapo")),
            "run",
            "--list",
            str(options.list),
            "--out",
            out,
            "--overwrite",
        ]
        line += [str(options.root)] if options.root else []
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        samples, begun = [], time.perf_counter()
        while process.poll() is None:
            now = resident_mb(process.pid)
            if now is not None:
                samples.append(now)
            time.sleep(0.25)
        seconds = time.perf_counter() - begun
    memory = np.array(samples)
    quarter = max(1, len(memory) // 4)
    early, late = float(memory[quarter : 2 * quarter].max()), float(memory[2 * quarter :].max())
    with open(options.list, encoding="utf-8") as file:
        frames = sum(1 for row in file if row.strip())
    report(
        [
            {
                "frames": frames,
                "seconds": seconds,
                "peak MB, second quarter": early,
                "peak MB, last half": late,
            }
        ],
        {
            "frames": frames,
            "exit": process.returncode,
            "seconds": round(seconds, 1),
            "peak_mb": round(float(memory.max()), 1),
            "growth": round(late / early - 1, 4),
        },
    )


if __name__ == "__main__":
    main()
