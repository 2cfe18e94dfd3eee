"""The demo of deploy/docker-compose.yml under a name, ports and volumes of its own, driven through the docker client."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deploy.native.ports import free_ports

DEPLOY = Path(__file__).parents[2] / "deploy"
AIRGAP = ("docker-compose.yml", "airgap/docker-compose.yml")
PUBLISHED = ("docker-compose.yml",)
# What runs for as long as the line does, as the kill test visits them.
SERVICES = ("camera-1", "camera-2", "mes", "archiver", "worker", "minio", "triton", "kafka")
# Whatever .env or the shell say of a plant's own servers: the test must not touch those.
_OWN = {
    "KAFKA_BOOTSTRAP": "kafka:9092",
    "TRITON_URL": "triton:8001",
    "STORE_ENDPOINT": "minio:9000",
    "STORE_BUCKET": "inspection",
    "SECRETS": "./secrets",
    "PACK": "./demo/demo.pack",
    "LINE_IMAGE": "dapo-inspection/line:test",
    "MODEL_IMAGE": "dapo-inspection/model:test",
}
_PORTS = ("KAFKA_PORT", "STORE_PORT", "STORE_CONSOLE_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")


class Demo:
    """One project of Docker Compose.

    Args:
        files: as -f takes them, in deploy/.
        profiles: that are switched on.
        project: its name; containers, networks and volumes carry it.
    """

    def __init__(self, files: Sequence[str], profiles: Sequence[str], project: str = "dapo-test") -> None:
        self.ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        # The project's name as an option: COMPOSE_PROJECT_NAME of the shell would win over every other way to say it.
        self._command = ["docker", "compose", "--progress", "plain", f"--project-name={project}"]
        self._command += [f"--file={name}" for name in files] + [f"--profile={name}" for name in profiles]
        self._environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("COMPOSE_")},
            **_OWN,
            **{name: str(port) for name, port in self.ports.items()},
        }

    def compose(self, *arguments: str, check: bool = True, echo: bool = False, seconds: float = 600) -> str:
        """Standard output of `docker compose ARGUMENTS`.

        Raises:
            AssertionError: it failed; with what it printed.
        """
        done = subprocess.run(
            [*self._command, *arguments], cwd=DEPLOY, env=self._environment, text=True, timeout=seconds,
            stdout=subprocess.PIPE, stderr=None if echo else subprocess.PIPE, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(
                f"docker compose {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout

    def state(self, service: str) -> dict[str, Any]:
        """State of a service's container, as `docker inspect` has it; empty where there is none."""
        identity = self.compose("ps", "--all", "--quiet", service).split()
        return dict(_inspect(identity[0])["State"], Id=identity[0]) if identity else {}

    def well(self, service: str) -> bool:
        """Whether its container runs and, where it says so, is healthy."""
        state = self.state(service)
        return (
            state.get("Status") == "running" and state.get("Health", {}).get("Status", "healthy") == "healthy"
        )

    def kill(self, service: str) -> None:
        """SIGKILL for the service's first process, as the kernel gives it; returns when the container has been started anew.

        Not `docker kill`, after which the engine takes a container for stopped on purpose and does not start it again.
        """
        before = self.state(service)
        killer = ["docker", "run", "--rm", "--pid=host", "--user=0", "--entrypoint=bash", self.line_image]
        subprocess.run([*killer, "-c", f"kill -9 {before['Pid']}"], check=True, capture_output=True)
        self.until(lambda: self._started_anew(service, before), f"{service} was started anew", 60)

    def _started_anew(self, service: str, before: dict[str, Any]) -> bool:
        now = self.state(service)
        return now["Status"] == "running" and now["StartedAt"] != before["StartedAt"]

    @property
    def line_image(self) -> str:
        """Name of the image `line`."""
        return str(json.loads(self.compose("config", "--format", "json"))["services"]["worker"]["image"])

    def image_mb(self, service: str) -> float:
        """Size of a service's image, 10^6 bytes."""
        config = json.loads(self.compose("config", "--format", "json"))
        return float(_inspect(config["services"][service]["image"])["Size"]) / 1e6

    def until(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait until `condition` holds.

        Raises:
            AssertionError: it did not in time; with what the containers printed last.
        """
        if not self.soon(condition, seconds):
            raise AssertionError(
                f"after {seconds:.0f} s still not: {what}\n{self.compose('ps', '--all')}\n"
                + self.compose("logs", "--tail=20", "--no-color")
            )

    def soon(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether `condition` holds before the time is over; containers tell of nothing, so it is looked at twice a second."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.5)
        return True

    def verdicts(self) -> int | None:
        """How many verdicts the MES has, in the table that stands for its database; None where it can't be asked now."""
        program = "import sqlite3; print(sqlite3.connect('seen.db').execute('SELECT count(*) FROM seen').fetchone()[0])"
        said = self.compose("exec", "-T", "mes", "python", "-c", program, check=False).strip()
        return int(said) if said.isdigit() else None

    def has(self, count: int) -> bool:
        """Whether the MES has so many verdicts."""
        return (self.verdicts() or 0) >= count

    def printed(self) -> list[dict[str, Any]]:
        """The verdicts that the MES printed since its container was made."""
        lines = self.compose("logs", "--no-color", "--no-log-prefix", "mes").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def dapo(self, *arguments: str, check: bool = True) -> str:
        """What a `dapo` command prints, run as the documents say."""
        return self.compose("run", "--rm", "-T", "dapo", *arguments, check=check)

    def ledger(self) -> dict[str, Any]:
        """`dapo ledger`: the totals."""
        return dict(json.loads(self.dapo("ledger", "--json", check=False).strip().splitlines()[-1]))

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Prometheus' answer to an instant query."""
        address = f"http://127.0.0.1:{self.ports['PROMETHEUS_PORT']}/api/v1/query?"
        with urllib.request.urlopen(
            address + urllib.parse.urlencode({"query": expression}), timeout=10
        ) as answer:
            return list(json.load(answer)["data"]["result"])


def _inspect(name: str) -> dict[str, Any]:
    said = subprocess.run(["docker", "inspect", name], check=True, capture_output=True, text=True).stdout
    return dict(json.loads(said)[0])


def plain_query(expression: str) -> str:
    """A panel's query with the variables that Grafana fills in filled in."""
    filled = {"$__rate_interval": "1m", "$__range": "10m", "$camera": ".*"}
    for name, value in filled.items():
        expression = expression.replace(name, value)
    return expression
