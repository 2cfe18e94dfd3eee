"""Put a pack on a running server: both models, a known answer, then the ensemble. What was served is served until then.

Measured on Triton 2.51: a push replaces all versions of a model by those it carries, so it carries every version to be
kept; a version that can't be loaded fails the push and leaves the others as they were; an ensemble whose new
configuration can't be loaded is gone, and does not come back by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dapo.errors import DapoError
from dapo.pack import Pack
from triton_models.config import Placement
from triton_models.contract import ENCODER, ENSEMBLE, HEAD
from triton_models.probe import probe
from triton_models.repository import DeployError, ModelFiles, ensemble_files, model_files
from triton_models.server import ModelServer
from triton_models.versions import Versions


@dataclass(frozen=True)
class Deployed:
    """What a deployment did: models that were pushed; none where the server had it all already."""

    pushed: tuple[str, ...]


def deploy(
    server: ModelServer,
    pack: Pack,
    keep: Sequence[Pack] = (),
    placement: Placement = Placement(),
    *,
    ensemble: str = ENSEMBLE.name,
    replace: bool = False,
) -> Deployed:
    """Let an ensemble serve a pack. Doing it twice is doing it once.

    Args:
        keep: packs that stay loaded beside it, to go back to (which is to deploy them).
        ensemble: which; a second one serves a challenger beside the champion.
        replace: also where that takes away what an ensemble serves now and `keep` does not hold: until it is pointed
            to the new version, frames are not answered.

    Raises:
        DeployError: it can't be done, or the server answers wrongly; what was served is served still.
        ContractError: the pack asks for more than the contract carries.
        ServiceUnavailable: the server is away. Deploying again goes on where it stopped.
    """
    pushed = load(server, pack, keep, placement, ensemble=ensemble, replace=replace)
    return Deployed((*pushed, *point(server, pack, keep, ensemble=ensemble)))


def load(
    server: ModelServer,
    pack: Pack,
    keep: Sequence[Pack] = (),
    placement: Placement = Placement(),
    *,
    ensemble: str = ENSEMBLE.name,
    replace: bool = False,
) -> tuple[str, ...]:
    """The first part of `deploy`: load a pack, and ask it for a known answer; what is served is served on.

    Returns:
        Models that were pushed.
    """
    # Step 1: refuse what can't work, before anything is changed.
    packs = list({one.configuration_hash: one for one in (pack, *keep)}.values())
    models = model_files(packs, placement)
    _refuse_without_skeleton(server)
    _refuse_to_take_away(server, models, ensemble, replace=replace)
    # Step 2: both models, with all versions to be kept; at once, since most of it is each one's Python that starts.
    missing = [model for model in models if not server.has(model)]
    with ThreadPoolExecutor(len(models), "push") as hands:
        for push in [hands.submit(server.push, model) for model in missing]:
            push.result()
    # Step 3: a known answer from the very versions that will be asked.
    probe(server, pack)
    return tuple(model.name for model in missing)


def point(
    server: ModelServer, pack: Pack, keep: Sequence[Pack] = (), *, ensemble: str = ENSEMBLE.name
) -> tuple[str, ...]:
    """The second part of `deploy`: let an ensemble serve a pack that is loaded. It takes milliseconds.

    Args:
        keep: packs, one of which is served now: where the ensemble can't be pointed, it is pointed back to that.

    Returns:
        The ensemble, where it had to be pointed.
    """
    # Step 4: the ensemble.
    target = ensemble_files(pack, ensemble)
    if server.has(target):
        return ()
    _point(server, target, (pack, *keep), ensemble)
    return (ensemble,)


def loaded(server: ModelServer, pack: Pack) -> bool:
    """Whether both models of a pack are loaded, beside whatever else is."""
    versions = Versions.of(pack)
    return versions.encoder in server.ready(ENCODER.name) and versions.head in server.ready(HEAD.name)


def _refuse_without_skeleton(server: ModelServer) -> None:
    missing = sorted({ENCODER.name, HEAD.name} - server.known())
    if missing:
        raise DeployError(
            f"the repository of model server {server.address.url} lacks {' and '.join(missing)}. "
            "Start it on a folder made by 'dapo triton repository FOLDER'."
        )


def _refuse_to_take_away(
    server: ModelServer, models: Sequence[ModelFiles], ensemble: str, *, replace: bool
) -> None:
    encoder, head = (model.versions for model in models)
    for name, served in server.ensembles().items():
        if served.fixed:
            raise DeployError(
                f"model server {server.address.url} runs on a repository with fixed versions, which would take their "
                "place again. Start it on a folder made by 'dapo triton repository FOLDER', and push to that."
            )
        kept = served.versions.encoder in encoder and served.versions.head in head
        if not kept and not (replace and name == ensemble):
            raise DeployError(
                f"ensemble {name} on {server.address.url} serves pack {served.configuration_hash}, and a push without "
                "it would take it away. Give its file with --keep, or accept with --replace that frames wait until the "
                "new pack is loaded."
            )


def _point(server: ModelServer, target: ModelFiles, packs: Sequence[Pack], ensemble: str) -> None:
    before = server.served(ensemble)
    try:
        server.push(target)
    except DapoError:
        # Triton has taken the old one away for it.
        for pack in packs:
            if before is not None and Versions.of(pack) == before.versions:
                server.push(ensemble_files(pack, ensemble))
        raise
