"""deploy/check.sh says what is missing and what to do, before `docker compose up` fails somewhere in the middle."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from deploy.native.ports import free_ports

PORTS = ("KAFKA_PORT", "STORE_PORT", "STORE_CONSOLE_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")
CHECK = Path(__file__).parents[3] / "deploy" / "check.sh"
ENGINE = '8000000000 4 /nowhere {"runc":{"path":"runc"}}'


@pytest.fixture
def check(tmp_path):
    """Runs it with a docker that says what the test wants; returns exit status and all that was printed."""

    def run(*arguments, info=ENGINE, status=0, version="2.40.3", running="", built=False, **variables):
        docker = tmp_path / "docker"
        docker.write_text(
            "#!/bin/bash\n"
            'case "$1 ${2:-}" in\n'
            f"'info --format') echo '{info}'; exit {status} ;;\n"
            f"'compose version') echo '{version}' ;;\n"
            f"'compose ps') echo '{running}' ;;\n"
            f"'image inspect') exit {int(not built)} ;;\n"
            "esac\n"
        )
        docker.chmod(0o755)
        free = {name: str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)}
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **free, **variables}
        done = subprocess.run(
            [CHECK, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_machine_that_can_run_the_demo_is_ready(check):
    status, said = check()
    assert (status, said) == (0, "ready: Docker Compose 2.40.3, 4 cores, 8000 MB\n")


def test_a_machine_without_docker_is_told_what_to_install(tmp_path):
    bash = tmp_path / "bash"
    bash.symlink_to("/bin/bash")
    for name in ("dirname", "sed", "env"):
        (tmp_path / name).symlink_to(
            next(p / name for p in map(Path, ("/usr/bin", "/bin")) if (p / name).exists())
        )
    done = subprocess.run([CHECK], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "docker is not on PATH. Install Docker Engine" in done.stderr


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"info": "permission denied", "status": 1},
            "does not answer. Start it .*It said: permission denied",
        ),
        ({"version": "2.3.0"}, r"Compose 2\.24 is needed, found 2\.3\.0"),
        ({"info": ENGINE.replace("8000000000", "2000000000")}, "has 2000 MB of memory, the demo needs 6 GB"),
        (
            {"info": ENGINE.replace(" 4 ", " 1 ")},
            "TRITON_CPUS=2, and the Docker engine has 1. Set TRITON_CPUS=1",
        ),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(check, given, says):
    status, said = check(**given)
    assert status == 1
    assert re.search(says, said), said


def test_a_port_that_is_taken_is_named_with_the_variable_that_moves_it(check):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = check(STORE_PORT=str(port))
        assert status == 1
        assert f"port {port} is taken" in said
        assert "Set STORE_PORT to a free one" in said
        assert check(STORE_PORT=str(port), running="b5d1")[0] == 0  # by the demo itself


def test_a_gpu_is_looked_for_only_where_it_is_asked_for(check):
    assert check()[0] == 0
    status, said = check("--gpu")
    assert status == 1
    assert "nvidia-container-toolkit" in said
    assert check("--gpu", info='8000000000 4 /nowhere {"nvidia":{},"runc":{}}')[0] == 0


def test_the_ports_of_what_is_not_started_are_not_asked_for(check):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert check(GRAFANA_PORT=port, PROMETHEUS_PORT=port)[0] == 0
        assert check(GRAFANA_PORT=port, COMPOSE_PROFILES="metrics")[0] == 0
        assert check(PROMETHEUS_PORT=port, COMPOSE_PROFILES="metrics")[0] == 1
        assert check(GRAFANA_PORT=port, COMPOSE_PROFILES="photos,observability")[0] == 1
        assert check("--other-ports", STORE_PORT=port)[0] == 0


def test_a_secret_that_the_containers_cannot_read_is_named_with_the_command_that_mends_it(check, tmp_path):
    for name in ("store_access_key", "store_secret_key", "grafana_password"):
        (tmp_path / name).write_text("longer than eight")
    assert check(SECRETS=str(tmp_path))[0] == 0
    (tmp_path / "store_secret_key").chmod(0o600)
    (tmp_path / "grafana_password").unlink()
    status, said = check(SECRETS=str(tmp_path))
    assert status == 1
    assert f"chmod o+r {tmp_path}/store_secret_key" in said
    assert "grafana_password is missing" in said


def test_a_disk_that_is_too_full_is_said(check, tmp_path):
    df = tmp_path / "df"
    df.write_text("#!/bin/sh\nprintf 'Avail\\n5000000\\n'\n")
    df.chmod(0o755)
    status, said = check(info=ENGINE.replace("/nowhere", str(tmp_path)))
    assert status == 1
    assert "has 5 GB free, the demo needs 30 GB" in said
    assert "the demo needs 10 GB" in check(info=ENGINE.replace("/nowhere", str(tmp_path)), built=True)[1]
