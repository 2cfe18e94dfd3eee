"""The servers of one line: those that belong to a state folder, started and stopped together.

What lies in it:

    dapo.env     where they are, with credentials; mode 0600
    models/      Triton's model repository
    SERVER/      its data, settings, log, and server.json: which process it is
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from dapo.errors import DapoError
from deploy.native.cache import locked
from deploy.native.envfile import NAME, read_environment, write_environment
from deploy.native.kafka import KafkaServer
from deploy.native.minio import MinioServer
from deploy.native.ports import is_free
from deploy.native.progress import Progress
from deploy.native.record import read_record
from deploy.native.s3 import S3Server
from deploy.native.server import Server
from deploy.native.triton import TritonServer
from deploy.native.versity import VersityServer
from pipeline.atomic import explained
from triton_models.repository import write_skeleton

SERVERS: dict[str, type[Server]] = {
    kind.NAME: kind for kind in (KafkaServer, TritonServer, MinioServer, VersityServer)
}
DEFAULT = ("kafka", "triton", "minio")
_MODELS = "models"
BUCKET = "inspection"  # the default of store.bucket
_LOCK = ".lock"


class LineError(DapoError):
    """What was asked of the line's servers makes no sense."""


@dataclass(frozen=True, slots=True)
class Up:
    """A server that runs.

    Args:
        server: attached or started.
        fresh: whether it was started just now.
    """

    server: Server
    fresh: bool


def state_folder() -> Path:
    """Where servers keep their state by default: below XDG_STATE_HOME, else ~/.local/state."""
    root = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(root) / "dapo-inspection" / "native"


def up(names: Sequence[str], state: Path, progress: Progress) -> list[Up]:
    """Start those of the servers that do not run, and write the environment file.

    All or nothing: where one does not start, those that were started before it in this call are stopped again.

    Raises:
        LineError: an unknown name, or two object stores.
        DapoError: one can't be installed or started; see `Server.start`.
    """
    _check(names)
    with explained(state):
        state.mkdir(parents=True, exist_ok=True)
    with _alone(state, progress):
        known = read_environment(state / NAME)
        servers: list[Up] = []
        try:
            for name in names:
                server = _server(name, state, known)
                if isinstance(server, TritonServer):
                    with explained(server.models):
                        server.models.mkdir(parents=True, exist_ok=True)
                    write_skeleton(server.models)  # what packs are pushed to
                servers.append(_started(server, known, progress))
                if isinstance(server, S3Server):
                    server.make_bucket(BUCKET)
            for each in servers:
                known |= each.server.client_environment()
            write_environment(state / NAME, known)
        except BaseException:
            for each in servers:
                if each.fresh:
                    each.server.stop()
            raise
    return servers


def down(state: Path, progress: Progress, *, delete: bool = False) -> list[str]:
    """Stop every server of the state folder; returns the names of those that ran.

    Args:
        delete: also remove their data, logs and models, and the environment file.

    Raises:
        LineError: there is no such state folder.
        ServerError: one does not end.
    """
    if not state.is_dir():
        raise LineError(f"{state}: no servers were started with this state folder. 'dapo up' starts them.")
    stopped = []
    with _alone(state, progress):
        for name in SERVERS:
            server = _server(name, state, {})
            if server.attach():
                progress.step(f"stopping {name}")
                server.stop()
                stopped.append(name)
        if delete:
            _delete(state)
    return stopped


def running(state: Path) -> list[Server]:
    """The servers of the state folder that run."""
    servers = [_server(name, state, {}) for name in SERVERS]
    return [server for server in servers if server.attach()]


def _check(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in SERVERS]
    known = ", ".join(SERVERS)
    if not names:
        raise LineError(f"--only: no server is named. There are: {known}.")
    if unknown:
        raise LineError(f"--only: unknown server '{', '.join(unknown)}'. There are: {known}.")
    stores = [name for name in names if issubclass(SERVERS[name], S3Server)]
    if len(stores) > 1:
        raise LineError(
            f"--only: {' and '.join(stores)} are both object stores, and the line has one. Name one of them."
        )


def _started(server: Server, known: Mapping[str, str], progress: Progress) -> Up:
    """The server, started or started anew unless it runs, answers, and can be logged in to."""
    if server.attach():
        lost = server.client_environment().keys() - known.keys()
        if not lost and server.healthy():
            return Up(server, fresh=False)
        why = "its credentials are not on file any more" if lost else "it runs and does not answer"
        progress.step(f"restarting {server.NAME}: {why}")
        server.stop()
    else:
        progress.step(f"starting {server.NAME}")
    return Up(server.start(progress), fresh=True)


def _server(name: str, state: Path, known: Mapping[str, str]) -> Server:
    """The server with the ports and credentials that it had before, so that a shell that knows them goes on."""
    folder = state / name
    record = read_record(folder)
    # Taken meanwhile, or by the server itself: then `attach` puts its ports back.
    ports = record.ports if record and all(is_free(port) for port in record.ports.values()) else None
    kind = SERVERS[name]
    if issubclass(kind, S3Server):
        access, secret = known.get("DAPO_STORE__ACCESS_KEY"), known.get("DAPO_STORE__SECRET_KEY")
        return kind(folder, ports, access_key=access, secret_key=secret)
    if issubclass(kind, TritonServer):
        return kind(folder, state / _MODELS, ports)
    return kind(folder, ports)


def _alone(state: Path, progress: Progress) -> AbstractContextManager[None]:
    return locked(state / _LOCK, lambda: progress.step(f"another 'dapo' is at work in {state}; waiting"))


def _delete(state: Path) -> None:
    with explained(state):
        for name in (*SERVERS, _MODELS):
            if (state / name).exists():
                shutil.rmtree(state / name)
        for name in (NAME, _LOCK):
            (state / name).unlink(missing_ok=True)
        if not any(state.iterdir()):  # what others put there stays
            state.rmdir()
