"""Certificates for tests, made by openssl: an authority, and what it signs. Valid for two days, worth nothing."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

# Of our own, because the system's openssl.cnf differs from machine to machine.
_CONFIG = """
[req]
distinguished_name = name
prompt = no
[name]
CN = dapo-test
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")


@dataclass(frozen=True)
class Certificate:
    """PEM files of a certificate and its key; `both` holds them together, as Kafka's PEM key store has it."""

    file: Path
    key: Path

    @property
    def both(self) -> Path:
        path = self.file.with_suffix(".pem")
        path.write_text(self.key.read_text() + self.file.read_text())
        path.chmod(0o600)
        return path


class Authority:
    """A certificate authority with its files in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._config = folder / "openssl.cnf"
        self._config.write_text(_CONFIG)
        self._own = self._make("ca", f"/CN={folder.name}", "authority")

    @property
    def file(self) -> Path:
        """What a client trusts."""
        return self._own.file

    def issue(self, name: str, *alternatives: str) -> Certificate:
        """A certificate for a server or client.

        Args:
            alternatives: what a client may call it, as "IP:127.0.0.1" or "DNS:localhost"; a client needs none.
        """
        signed_by = ["-CA", str(self._own.file), "-CAkey", str(self._own.key)]
        names = ["-addext", f"subjectAltName={','.join(alternatives)}"] if alternatives else []
        return self._make(name, f"/CN={name}", "leaf", *signed_by, *names)

    def _make(self, name: str, subject: str, extensions: str, *more: str) -> Certificate:
        made = Certificate(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        command = ["openssl", "req", "-x509", "-config", str(self._config), "-extensions", extensions, *_KEY]
        out = ["-subj", subject, "-out", str(made.file), "-keyout", str(made.key)]
        subprocess.run([*command, *out, *more], check=True, capture_output=True)
        made.key.chmod(0o600)
        return made
