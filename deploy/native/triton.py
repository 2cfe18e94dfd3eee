"""Triton: the server binary of the nvidia-pytriton wheel with its Python backend, run on this environment's Python."""

from __future__ import annotations

import hashlib
import http
import http.client
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from deploy.native.cache import Package
from deploy.native.ports import HOST
from deploy.native.progress import Progress
from deploy.native.server import Server
from deploy.native.tools import libpython, python_version, run_tool
from pipeline.atomic import explained

WHEEL = "0.7.0"  # holds Triton 2.51, and Python stubs for 3.8 to 3.13
_SERVER = Path("pytriton/tritonserver")
_LIBRARIES = "nvidia_pytriton.libs"
_STUB = "triton_python_backend_stub"
_SHARED_MEMORY = Path("/dev/shm")
_HEALTH_S = 2.0  # for one answer on loopback


def _build(folder: Path, progress: Progress) -> None:
    # No dependencies, and a folder of its own: the wheel asks for numpy < 2, only its server is wanted.
    options = ["--no-deps", "--no-compile", "--disable-pip-version-check", "--target", str(folder)]
    run_tool([sys.executable, "-m", "pip", "install", *options, f"nvidia-pytriton=={WHEEL}"], progress)
    server = folder / _SERVER
    shutil.copy2(
        server / "python_backend_stubs" / python_version() / _STUB, server / "backends" / "python" / _STUB
    )


class TritonServer(Server):
    """A model server with explicit model control: nothing is loaded but what is asked for.

    Args:
        folder: for its log.
        models: the model repository; made empty if needed. None: `folder`/models.
        ports: of "grpc", "http", "metrics"; free ones are picked for the others.
        load_models: loaded at the start, which fails where one of them does.
        arguments: further arguments of tritonserver, for instance its TLS options for gRPC.
    """

    NAME = "triton"
    PORTS = ("grpc", "http", "metrics")
    START_S: ClassVar[float] = (
        180.0  # loads the models that are asked for: on a busy CPU a large encoder takes a minute
    )

    def __init__(
        self,
        folder: Path,
        models: Path | None = None,
        ports: Mapping[str, int] | None = None,
        load_models: Sequence[str] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, ports)
        self.models = (models or self.folder / "models").absolute()
        self._load_models = tuple(load_models)
        self._arguments = tuple(arguments)

    @classmethod
    def package(cls) -> Package:
        # The stub is of one Python version, so an installation is too.
        version = f"{WHEEL}-python{python_version()}"
        needs = (str(_SERVER / "bin/tritonserver"), str(_SERVER / "backends/python" / _STUB), _LIBRARIES)
        return Package("triton", version, _build, needs, "50 MB by pip, 15 s")

    @property
    def url(self) -> str:
        """host:port of gRPC, as tritonclient.grpc takes it."""
        return f"{HOST}:{self.ports['grpc']}"

    @property
    def http_url(self) -> str:
        """host:port of HTTP, as tritonclient.http takes it."""
        return f"{HOST}:{self.ports['http']}"

    @property
    def metrics_url(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://{HOST}:{self.ports['metrics']}/metrics"

    @property
    def address(self) -> str:
        return self.url

    def client_environment(self) -> dict[str, str]:
        return {"DAPO_TRITON__URL": self.url}

    def prepare(self, installed: Path) -> None:
        with explained(self.models):
            self.models.mkdir(parents=True, exist_ok=True)
        self.cleanup()

    def command(self, installed: Path) -> Sequence[str]:
        grpc, http, metrics = (self.ports[name] for name in self.PORTS)
        return [
            str(installed / _SERVER / "bin" / "tritonserver"),
            f"--model-repository={self.models}",
            "--model-control-mode=explicit",
            "--disable-auto-complete-config",  # else each Python model is started twice: 14 s instead of 6 s for a pack
            f"--backend-directory={installed / _SERVER / 'backends'}",
            f"--backend-config=python,shm-region-prefix-name={self.region}",
            f"--grpc-address={HOST}",
            f"--grpc-port={grpc}",
            f"--http-address={HOST}",
            f"--http-port={http}",
            f"--metrics-address={HOST}",
            f"--metrics-port={metrics}",
            f"--exit-timeout-secs={self.STOP_S / 2:.0f}",  # of requests under way at SIGTERM
            *([] if _has_gpu() else ["--pinned-memory-pool-byte-size=0"]),
            *(f"--load-model={name}" for name in self._load_models),
            *self._arguments,
        ]

    def environment(self, installed: Path) -> dict[str, str]:
        # The stub is linked to libpython and takes its packages from the first `python3` on PATH: ours.
        environment = super().environment(installed)
        folders = [str(installed / _LIBRARIES)]
        library = libpython()
        if library.is_dir():
            folders.append(str(library))
        if environment.get("LD_LIBRARY_PATH"):
            folders.append(environment["LD_LIBRARY_PATH"])
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(folders)
        environment["PATH"] = os.pathsep.join(
            [str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]
        )
        environment.pop("PYTHONHOME", None)
        return environment

    def healthy(self) -> bool:
        # http.client, because urllib would ask a proxy of the environment for a loopback address.
        connection = http.client.HTTPConnection(HOST, self.ports["http"], timeout=_HEALTH_S)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def cleanup(self) -> None:
        # A server that was killed alone, as by a full memory, leaves its models' Python processes behind, for minutes
        # and with all that they hold; and it can't remove the memory that it shared with them.
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # ended meanwhile, or another user's
                arguments = (process / "cmdline").read_bytes().split(b"\0")
                if any(argument.startswith(self.region.encode()) for argument in arguments):
                    os.kill(int(process.name), signal.SIGKILL)
        for region in _SHARED_MEMORY.glob(f"{self.region}*"):
            region.unlink(missing_ok=True)

    @property
    def region(self) -> str:
        """Start of the names of its shared memory. Of the folder, not the port: another server may have that next."""
        return f"dapo_triton_{hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]}_"


def _has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()
