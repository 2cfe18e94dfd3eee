"""`dapo triton`: put prompt packs on model servers, see what they serve, keep them at it."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import typer
from rich.table import Table

from dapo.errors import DapoError, SettingsError
from dapo.pack import Pack
from dapo.pack_io import read_pack
from pipeline.bundled import default_pack_path
from pipeline.cli.models import opened
from pipeline.cli.terminal import errors, output
from pipeline.cli.worker import stopped_by_signals
from pipeline.registry.keep import ChampionKeeper
from pipeline.settings import TritonSettings, load
from pipeline.triton.open import address_of, placement_of
from pipeline.triton.reconcile import PERIOD_S, Reconciler, Sight, State
from triton_models.connection import Address
from triton_models.contract import CHALLENGER, ENSEMBLE
from triton_models.deploy import deploy as deploy_pack
from triton_models.repository import write_repository, write_skeleton
from triton_models.server import ModelServer

_FAILED = 1  # exit status: at least one server does not serve what was asked for
_STOP_S = 5.0

_PACK = typer.Argument(None, help="Prompt pack.", show_default="the bundled one")
_URL = typer.Option(
    [], "--url", help="host:port of a server's gRPC. May be given several times.", show_default="triton.url"
)
_KEEP = typer.Option(
    [], "--keep", help="Pack that stays loaded beside it, to go back to. May be given several times."
)
_ENSEMBLE = typer.Option(ENSEMBLE.name, "--ensemble", help=f"{ENSEMBLE.name}, or {CHALLENGER} beside it.")
_REPLACE = typer.Option(
    False,
    "--replace",
    help="Also where it takes away what is served now: frames wait until the new pack is loaded.",
)
# Where a pack runs: what is not said is as set, so that this and a worker's own push are the same to the server.
_DEVICE = typer.Option(None, "--device", help="auto, cpu or gpu.", show_default="triton.device")
_GPUS = typer.Option(
    None, "--gpus", help="Numbers of the GPUs, separated by commas.", show_default="triton.gpus"
)
_INSTANCES = typer.Option(
    None, "--instances", min=1, help="Copies of the encoder, per GPU.", show_default="triton.instances"
)
_THREADS = typer.Option(
    None, "--threads", min=1, help="CPU threads of each copy.", show_default="triton.threads"
)
_RUNTIME = typer.Option(
    None,
    "--runtime",
    help="Who runs the encoder: auto, torch or openvino.",
    show_default="triton.runtime",
)
_WEIGHTS = typer.Option(
    None,
    "--weights-folder",
    help="Folder on the server with weights, named <sha256>.safetensors as packs name them.",
    show_default="triton.weights_folder",
)
_CONFIG = typer.Option(None, "--config", help="TOML file of settings.")


def register(app: typer.Typer) -> None:
    """Add `triton`."""
    triton = typer.Typer(help="Put prompt packs on model servers, and keep them there.", no_args_is_help=True)
    for command in (repository, deploy, status, reconcile):
        triton.command(name=command.__name__)(command)
    app.add_typer(triton, name="triton")


def repository(
    folder: Path = typer.Argument(..., help="The server's model repository."),
    pack: Path | None = typer.Option(
        None, "--pack", help="Fixed: the folder holds this pack, and nothing can be pushed."
    ),
    device: Literal["auto", "cpu", "gpu"] | None = _DEVICE,
    gpus: str | None = _GPUS,
    instances: int | None = _INSTANCES,
    threads: int | None = _THREADS,
    runtime: Literal["auto", "torch", "openvino"] | None = _RUNTIME,
    weights_folder: str | None = _WEIGHTS,
    config: Path | None = _CONFIG,
) -> None:
    """Write the model repository that a server starts on; packs are pushed to it later."""
    if pack is None:
        write_skeleton(folder)
        print(
            f"{folder}: start the server on it with --model-control-mode=explicit, then 'dapo triton deploy'"
        )
        return
    settings = _settings(config, device, gpus, instances, threads, runtime, weights_folder)
    write_repository(folder, read_pack(pack), placement=placement_of(settings))
    print(f"{folder}: start the server on it with --model-control-mode=explicit --load-model={ENSEMBLE.name}")


def deploy(
    pack: Path | None = _PACK,
    url: list[str] = _URL,
    keep: list[Path] = _KEEP,
    ensemble: str = _ENSEMBLE,
    replace: bool = _REPLACE,
    device: Literal["auto", "cpu", "gpu"] | None = _DEVICE,
    gpus: str | None = _GPUS,
    instances: int | None = _INSTANCES,
    threads: int | None = _THREADS,
    runtime: Literal["auto", "torch", "openvino"] | None = _RUNTIME,
    weights_folder: str | None = _WEIGHTS,
    config: Path | None = _CONFIG,
) -> int:
    """Let servers serve a pack. What they served before goes on until the new one has answered rightly.

    Exit status: 0 all serve it, 1 one does not.
    """
    chosen, kept = _packs(pack, keep)
    settings = _settings(config, device, gpus, instances, threads, runtime, weights_folder)
    placement = placement_of(settings)
    failed = False
    for address in _addresses(url, settings):
        try:
            with ModelServer(address) as server:
                done = deploy_pack(server, chosen, kept, placement, ensemble=ensemble, replace=replace)
        except DapoError as error:
            errors().print(f"error: {error}")
            failed = True
        else:
            what = f"pushed {', '.join(done.pushed)}" if done.pushed else "had it already"
            print(f"{address.url}: {ensemble} serves {chosen.configuration_hash} ({what})")
    return _FAILED if failed else 0


def status(
    pack: Path | None = _PACK,
    url: list[str] = _URL,
    ensemble: str = _ENSEMBLE,
    config: Path | None = _CONFIG,
) -> int:
    """What servers serve, beside the pack that they should serve.

    Exit status: 0 all serve it, 1 one does not.
    """
    chosen, _ = _packs(pack, [])
    watch = Reconciler(chosen, _addresses(url, _settings(config)), ensemble=ensemble)
    table = Table("server", "state", "", box=None, pad_edge=False)
    sights = [watch.look(address) for address in watch.addresses]
    for address, sight in zip(watch.addresses, sights, strict=True):
        table.add_row(address.url, str(sight.state), sight.why)
    output().print(table)
    return 0 if all(sight.state is State.SERVES for sight in sights) else _FAILED


def reconcile(
    pack: Path | None = _PACK,
    url: list[str] = _URL,
    keep: list[Path] = _KEEP,
    ensemble: str = _ENSEMBLE,
    replace: bool = _REPLACE,
    device: Literal["auto", "cpu", "gpu"] | None = _DEVICE,
    gpus: str | None = _GPUS,
    instances: int | None = _INSTANCES,
    threads: int | None = _THREADS,
    runtime: Literal["auto", "torch", "openvino"] | None = _RUNTIME,
    weights_folder: str | None = _WEIGHTS,
    period: float = typer.Option(PERIOD_S, "--period", min=0.1, help="Seconds between two looks."),
    follow: bool = typer.Option(
        False, "--follow", help="At the registry's champion, whichever that is; takes no pack."
    ),
    config: Path | None = _CONFIG,
) -> None:
    """Keep servers at a pack: one that comes back without it is given it again. Ends with Ctrl-C or SIGTERM."""
    if follow and (pack is not None or keep):
        raise SettingsError(
            "--follow: champion and previous come from the registry. Give no pack and no --keep."
        )
    settings = _settings(config, device, gpus, instances, threads, runtime, weights_folder)
    addresses, placement = _addresses(url, settings), placement_of(settings)
    stop = threading.Event()
    with ExitStack() as held:
        watch: Reconciler | ChampionKeeper
        if follow:
            registry = held.enter_context(opened(load({}, config).settings))
            watch = ChampionKeeper(registry, addresses, placement, ensemble=ensemble)
        else:
            chosen, kept = _packs(pack, keep)
            watch = Reconciler(chosen, addresses, kept, placement, ensemble=ensemble, replace=replace)
        held.enter_context(stopped_by_signals(stop, _STOP_S))
        watch.run(stop, period, _say)


def _say(address: Address, sight: Sight) -> None:
    print(f"{address.url} {sight.state}" + (f": {sight.why}" if sight.why else ""), flush=True)


def _packs(pack: Path | None, keep: list[Path]) -> tuple[Pack, list[Pack]]:
    return read_pack(pack or default_pack_path()), [read_pack(path) for path in keep]


def _settings(
    config: Path | None,
    device: str | None = None,
    gpus: str | None = None,
    instances: int | None = None,
    threads: int | None = None,
    runtime: str | None = None,
    weights_folder: str | None = None,
) -> TritonSettings:
    """What is set of the model server; options go before it."""
    given = {
        "triton.device": device,
        "triton.gpus": gpus,
        "triton.instances": instances,
        "triton.threads": threads,
        "triton.runtime": runtime,
        "triton.weights_folder": weights_folder,
    }
    return load(given, config).settings.triton


def _addresses(urls: list[str], settings: TritonSettings) -> list[Address]:
    if not urls and not settings.url:
        raise SettingsError("no model server is named: give --url HOST:PORT, or set triton.url.")
    return [address_of(settings, url) for url in urls or [settings.url]]
