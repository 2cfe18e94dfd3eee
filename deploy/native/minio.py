"""MinIO, compiled from its last version with security fixes: it publishes no binaries any more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.native.cache import Package
from deploy.native.s3 import S3Server, go_build

VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"


class MinioServer(S3Server):
    """MinIO on one folder. Its own arguments as in `S3Server`."""

    NAME = "minio"

    @classmethod
    def package(cls) -> Package:
        build = go_build(f"github.com/minio/minio@{VERSION}")
        return Package("minio", VERSION, build, ("bin/minio",), "compiled by Go, 3 minutes and more")

    def prepare(self, installed: Path) -> None:
        (self.folder / "data").mkdir(exist_ok=True)
        (self.folder / "certs").mkdir(exist_ok=True)

    def command(self, installed: Path) -> Sequence[str]:
        # Without --certs-dir it would take certificates from the home folder. An empty one means no TLS.
        certs = self.certs or self.folder / "certs"
        options = ["--address", self.endpoint, "--certs-dir", str(certs), "--anonymous"]
        return [str(installed / "bin" / "minio"), "server", *options, str(self.folder / "data")]

    def environment(self, installed: Path) -> dict[str, str]:
        return super().environment(installed) | {
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",  # it would ask the internet for a newer version
        }
