"""The demo's compose files: valid, complete, and the same line as deploy/native starts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from itertools import product as combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.native import kafka, minio, triton

DEPLOY = Path(__file__).parents[3] / "deploy"
MAIN, GPU, AIRGAP = "docker-compose.yml", "docker-compose.gpu.yml", "airgap/docker-compose.yml"
FILES = (MAIN, GPU, AIRGAP)
COMBINATIONS = [(MAIN, *more) for more in ((), (GPU,), (AIRGAP,), (AIRGAP, GPU))]
PROFILES = (
    (),
    ("metrics",),
    ("observability",),
    ("photos",),
    ("tools",),
    ("observability", "photos", "tools"),
)
ONE_SHOTS = {"minio-volume", "setup", "photos", "dapo"}
WRITE_BESIDE_THEIR_VOLUMES = {
    "kafka",
    "grafana",
}  # the published images keep settings and plugins in their own folders
# Set where the broker runs, not what it is.
_PLACES = re.compile(r"listener|quorum|log\.dirs|process\.roles|node\.id")


def parsed(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / name).read_text())


def services() -> dict[str, dict[str, Any]]:
    return parsed(MAIN)["services"]


def variables() -> dict[str, str]:
    lines = (DEPLOY / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def compose_is_there() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


def test_every_file_is_what_the_compose_specification_allows():
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*checker, *(str(DEPLOY / name) for name in FILES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


if compose_is_there():  # what it adds to the schema: that files fit each other, and no variable lacks a value

    @pytest.mark.parametrize(("files", "profiles"), list(combinations(COMBINATIONS, PROFILES)))
    def test_docker_compose_takes_every_combination(files, profiles):
        given = [f"--file={name}" for name in files] + [f"--profile={name}" for name in profiles]
        done = subprocess.run(
            ["docker", "compose", *given, "config", "--quiet"],
            cwd=DEPLOY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_a_build_may_be_given_is_named_in_the_env_file():
    named = set(re.findall(r"^#([A-Z_]+)=", (DEPLOY / ".env").read_text(), re.MULTILINE))
    without_value = re.compile(r"([A-Z_]+):(?= *(?:[,}]|$))", re.MULTILINE)  # taken from the shell or .env
    assert {match for file in FILES for match in without_value.findall((DEPLOY / file).read_text())} == named


def test_what_may_be_set_is_in_the_env_file_and_nothing_else_is():
    used = {name for file in FILES for name in re.findall(r"\$\{(\w+)", (DEPLOY / file).read_text())}
    assert used == set(variables())


def test_every_image_is_pinned():
    images = {name: value for name, value in variables().items() if name.endswith("_IMAGE")}
    assert len(images) == 9
    for name, image in images.items():
        tag = image.rpartition(":")[2]
        assert tag != image, name
        assert re.search(r"\d|bookworm", tag), f"{name}={image}"


def test_what_runs_comes_back_is_bounded_and_gains_no_rights():
    for name, service in services().items():
        assert service["restart"] == {"dapo": "no", "photos": "on-failure"}.get(
            name, "on-failure:3" if name in ONE_SHOTS else "unless-stopped"
        ), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "max-size" in service["logging"]["options"], name
        if name not in ONE_SHOTS:
            limits = service["deploy"]["resources"]["limits"]
            assert set(limits) == {"cpus", "memory"}, name
        assert service["cap_drop"] == ["ALL"], name
        if name not in WRITE_BESIDE_THEIR_VOLUMES:
            assert service["read_only"], name


def test_what_others_wait_for_says_when_it_is_there():
    all_of_them = services()
    for name, service in all_of_them.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in all_of_them
            if needed in ONE_SHOTS:
                assert how["condition"] == "service_completed_successfully", (name, needed)
            else:
                assert how["condition"] == "service_healthy", (name, needed)
                assert "healthcheck" in all_of_them[needed], (name, needed)


@pytest.mark.parametrize("file", ["images/line.Dockerfile", "images/model.Dockerfile", *(
    f"airgap/{name}.Dockerfile" for name in ("kafka", "model", "go")
)])  # fmt: skip
def test_no_image_runs_as_root_and_each_takes_the_plants_authority(file):
    text = (DEPLOY / file).read_text()
    last = re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1]
    assert last not in ("root", "0", "0:0")
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    reaching_out = [stage for stage in stages if re.search(r"apt-get|pip|mvn|go mod", stage)]
    assert reaching_out
    for stage in reaching_out:
        assert "COPY ${CERTIFICATES}/ /usr/local/share/ca-certificates/" in stage
        assert "sh /prepare.sh" in stage


def test_only_what_fills_a_volume_or_a_users_request_runs_as_root():
    assert {name for name, service in services().items() if str(service.get("user", "")).startswith("0")} == {
        "minio-volume"
    }


def test_ports_are_open_to_this_machine_alone():
    ports = [port for service in services().values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_secrets_come_as_files():
    for name, service in services().items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search(r"PASSWORD|SECRET|ACCESS_KEY|ROOT_USER", variable):
                assert str(value).startswith("/run/secrets/"), (name, variable)
                assert Path(value).name in service["secrets"], (name, variable)
    for secret in parsed(MAIN)["secrets"].values():
        assert (DEPLOY / secret["file"].replace("${SECRETS}", variables()["SECRETS"])).read_text().strip()


def test_the_broker_is_set_up_as_the_native_one():
    native = kafka.KafkaServer(
        Path("/nowhere"), ports={"client": 1, "internal": 2, "controller": 3}
    )._properties()
    told = services()["kafka"]["environment"]
    ours = {name.removeprefix("KAFKA_").replace("_", ".").lower(): str(value) for name, value in told.items()}
    for name, value in native.items():
        if not _PLACES.search(name):
            assert ours.get(name) == str(value), name


def test_the_model_server_is_started_as_the_native_one():
    server = triton.TritonServer(Path("/nowhere"), ports={"grpc": 1, "http": 2, "metrics": 3})
    native = server.command(Path("/installed"))
    for option in services()["triton"]["command"][2:]:
        assert option in native, option


def test_versions_are_those_of_the_native_servers():
    found = variables()
    assert found["KAFKA_VERSION"] == kafka.VERSION
    assert found["KAFKA_IMAGE"].endswith(f":{kafka.VERSION}")
    assert found["MINIO_VERSION"] == minio.VERSION
    assert found["TRITON_WHEEL"] == triton.WHEEL
    assert kafka._POM.count("<artifactId>") == (DEPLOY / "airgap/kafka/pom.xml").read_text().count(
        "<artifactId>"
    )
    assert f"<version>{kafka._SLF4J}</version>" in (DEPLOY / "airgap/kafka/pom.xml").read_text()


def test_the_images_hold_what_the_build_needs_and_nothing_of_the_plants_own():
    lines = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    taken = {line[1:].rstrip("/") for line in lines if line[:1] == "!"}
    assert taken == {
        *wheel["packages"],
        *project["project"]["license-files"],
        project["project"]["readme"],
        "pyproject.toml",
    }
    own = {"deploy/.env", "deploy/own", "deploy/photos", "deploy/secrets"}
    assert own <= set(lines[lines.index("!deploy/") + 1 :])
    assert own | {"deploy/airgap"} <= set(wheel["exclude"])
