"""What the S3 servers have in common: root credentials, optional TLS, and buckets that are listed when it is up."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import MinioException

from deploy.native.ports import HOST
from deploy.native.progress import Progress
from deploy.native.server import Server
from deploy.native.tools import GO, run_tool
from pipeline.store.minio_store import Endpoint, MinioStore

_HEALTH_S = 2.0  # for one answer on loopback
_KEY_BYTES = 20  # 160 random bits


class S3Server(Server):
    """An S3 server with one root user.

    Args:
        folder: for its data and log.
        ports: of "s3"; a free one is picked otherwise.
        access_key: root user; None: generated.
        secret_key: its password; None: generated. Handed over in the process's environment only.
        certs: folder with public.crt, private.key and ca.crt (which clients trust); None: no TLS.
    """

    PORTS = ("s3",)

    def __init__(
        self,
        folder: Path,
        ports: Mapping[str, int] | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        certs: Path | None = None,
    ) -> None:
        super().__init__(folder, ports)
        self.access_key = access_key or f"dapo{secrets.token_hex(6)}"
        self.secret_key = secret_key or secrets.token_hex(_KEY_BYTES)
        self.certs = certs.absolute() if certs else None

    @property
    def endpoint(self) -> str:
        """host:port, as `minio.Minio` takes it."""
        return f"{HOST}:{self.ports['s3']}"

    @property
    def address(self) -> str:
        return f"{'https' if self.certs else 'http'}://{self.endpoint}"

    def client(self) -> Minio:
        """A client with root's rights. It gives up after seconds and never retries: who needs that, makes another."""
        pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(_HEALTH_S),
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(self.certs / "ca.crt") if self.certs else None,
        )
        return Minio(
            self.endpoint,
            access_key=self.access_key,
            secret_key=self.secret_key,
            secure=self.certs is not None,
            http_client=pool,
        )

    def make_bucket(self, name: str) -> None:
        """Make a bucket where there is none of this name."""
        ca_file = self.certs / "ca.crt" if self.certs else None
        address = Endpoint(
            self.endpoint, name, self.access_key, self.secret_key, tls=bool(ca_file), ca_file=ca_file
        )
        store = MinioStore(address)
        try:
            store.make_bucket()
        finally:
            store.close()

    def healthy(self) -> bool:
        try:
            self.client().list_buckets()
        except (MinioException, urllib3.exceptions.HTTPError, OSError):
            return False
        return True

    def client_environment(self) -> dict[str, str]:
        found = {
            "DAPO_STORE__ENDPOINT": self.endpoint,
            "DAPO_STORE__ACCESS_KEY": self.access_key,
            "DAPO_STORE__SECRET_KEY": self.secret_key,
        }
        if self.certs:
            found |= {"DAPO_STORE__TLS": "true", "DAPO_STORE__SSL_CAFILE": str(self.certs / "ca.crt")}
        return found


def go_build(module: str) -> Callable[[Path, Progress], None]:
    """A builder that compiles a Go program at a fixed version ("path@version") into FOLDER/bin."""

    def build(folder: Path, progress: Progress) -> None:
        # Without symbols: a third smaller. GOBIN alone: sources and caches stay where Go keeps them.
        environment = os.environ | {"GOBIN": str(folder / "bin")}
        run_tool([GO.path(), "install", "-ldflags=-s -w", module], progress, environment=environment)

    return build
