"""Versity S3 gateway: a maintained S3 server that keeps objects as plain files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.native.cache import Package
from deploy.native.s3 import S3Server, go_build

VERSION = "v1.8.0"


class VersityServer(S3Server):
    """versitygw on one folder. Its own arguments as in `S3Server`."""

    NAME = "versitygw"

    @classmethod
    def package(cls) -> Package:
        build = go_build(f"github.com/versity/versitygw/cmd/versitygw@{VERSION}")
        return Package("versitygw", VERSION, build, ("bin/versitygw",), "compiled by Go, 2 minutes and more")

    def prepare(self, installed: Path) -> None:
        (self.folder / "data").mkdir(exist_ok=True)
        (self.folder / "metadata").mkdir(exist_ok=True)

    def command(self, installed: Path) -> Sequence[str]:
        tls = (
            ["--cert", str(self.certs / "public.crt"), "--key", str(self.certs / "private.key")]
            if self.certs
            else []
        )
        # Metadata beside the objects, not in extended attributes: not every file system has those.
        posix = ["posix", "--sidecar", str(self.folder / "metadata"), str(self.folder / "data")]
        return [str(installed / "bin" / "versitygw"), "--port", self.endpoint, "--quiet", *tls, *posix]

    def environment(self, installed: Path) -> dict[str, str]:
        return super().environment(installed) | {
            "ROOT_ACCESS_KEY": self.access_key,
            "ROOT_SECRET_KEY": self.secret_key,
        }
