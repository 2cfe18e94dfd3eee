"""`dapo models`: the registry of prompt packs, and which of them lines are judged with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.table import Table

from dapo.errors import PackError
from dapo.pack import Pack
from dapo.pack_diff import diff_packs
from dapo.pack_io import read_pack, write_pack
from pipeline.cli.shadow import shadow
from pipeline.cli.terminal import errors, output
from pipeline.kafka.topics import TopicAdmin
from pipeline.registry.evidence import keep_gate_file
from pipeline.registry.lease import operator
from pipeline.registry.pointers import Move, move_document
from pipeline.registry.promote import name_challenger, rollback
from pipeline.registry.promote import promote as promote_pack
from pipeline.registry.registry import Registry
from pipeline.registry.servers import Server, TritonServer
from pipeline.settings import Loaded, Settings, load
from pipeline.store.open import open_store
from pipeline.stream.topics import Topics
from pipeline.triton.open import address_of, placement_of

_LONG = 300  # characters of provenance; that of a tuned pack names every frame
_SHOWN = 12  # digits of a hash: enough to tell any two packs apart, and to name one
_NAME = "champion, challenger, previous, or the first digits of a hash"
_URL = typer.Option(
    [], "--url", help="host:port of a model server. May be given several times.", show_default="triton.url"
)
_WHY = typer.Option("", "--why", help="For the audit line.")
_CONFIG = typer.Option(None, "--config", help="TOML file of settings.")


def register(app: typer.Typer) -> None:
    """Add `models`."""
    models = typer.Typer(
        help="Prompt packs in the registry: keep, compare, promote, go back.", no_args_is_help=True
    )
    for command in (create, list_, show, push, pull, promote, rollback_, shadow, diff):
        models.command(name=command.__name__.strip("_"))(command)
    app.add_typer(models, name="models")


def create(config: Path | None = _CONFIG) -> None:
    """Make the bucket where it is missing; one that is there stays as it is."""
    settings = load({}, config).settings
    store = open_store(settings.store, settings.store.models_bucket)
    try:
        made = store.make_bucket()
    finally:
        store.close()
    print(f"bucket {store.bucket} {'made' if made else 'was there'}")


def list_(
    limit: int = typer.Option(20, "--limit", min=1, help="Packs, the newest first."),
    config: Path | None = _CONFIG,
) -> None:
    """Packs in the registry, the newest first, and what points to them."""
    with opened(load({}, config).settings) as registry:
        pointers = registry.pointers()
        roles: dict[str, list[str]] = {}
        for name, digest in pointers.names.items():
            roles.setdefault(digest, []).append(name)
        newest = sorted(registry.packs(), key=lambda one: one.pushed, reverse=True)
        shown = [one for number, one in enumerate(newest) if number < limit or one.digest in roles]
        table = Table("pack", "role", "pushed", "MB", "last change", box=None, pad_edge=False)
        for one in shown:
            table.add_row(
                one.digest[:_SHOWN],
                ", ".join(roles.get(one.digest, ())),
                f"{one.pushed:%Y-%m-%d %H:%M}",
                f"{one.size / 1e6:.1f}",
                _last_change(registry, one.digest),
            )
    output().print(table)
    if pointers.lease is not None:
        lease = pointers.lease
        errors().print(
            f"{lease.by} is promoting {lease.pack[:_SHOWN]}, until {lease.until:%H:%M:%S} UTC at most"
        )
    if not newest:
        errors().print("the registry is empty: 'dapo models promote PACK' begins it")


def show(
    name: str = typer.Argument("champion", help=f"Which: {_NAME}."),
    as_json: bool = typer.Option(False, "--json", help="Everything, as JSON."),
    config: Path | None = _CONFIG,
) -> None:
    """One pack: products, types, thresholds, where it came from; and the moves of pointers that it was part of."""
    with opened(load({}, config).settings) as registry:
        pack = registry.pack(registry.find(name))
        digest = pack.configuration_hash
        moves = [move for move in registry.history() if digest in (move.before, move.after)]
    if as_json:
        said = {
            "hash": digest,
            "provenance": pack.provenance,
            "moves": [move_document(move) for move in moves],
        }
        print(json.dumps(said, indent=1))
        return
    console = output()
    console.print(
        f"configuration {digest}\nencoder {pack.encoder.name} / {pack.encoder.weights}, {pack.scoring.kind} scoring"
    )
    table = Table("product", "OK below", "NotOK from", "types", box=None, pad_edge=False)
    for product, own in sorted(pack.products.items()):
        limits = ("-" if one is None else f"{one:.4f}" for one in (own.threshold_ok, own.threshold_notok))
        table.add_row(product, *limits, ", ".join(own.types))
    console.print(table)
    for name_, value in sorted(pack.provenance.items()):
        if name_ != "history":
            text = str(value)
            console.print(
                f"{name_}: {text if len(text) <= _LONG else f'{text[:_LONG]}... (--json shows all)'}"
            )
    for entry in _history(pack):
        console.print(f"history: {_said(entry)}")
    for move in moves:
        console.print(line_of(move))


def push(
    file: Path = typer.Argument(..., help="Prompt pack."),
    challenger: bool = typer.Option(False, "--challenger", help="Name it the challenger."),
    why: str = _WHY,
    config: Path | None = _CONFIG,
) -> None:
    """Keep a pack in the registry. Nothing is judged with it."""
    pack = read_pack(file)
    with opened(load({}, config).settings) as registry:
        digest = registry.push(pack)
        if challenger:
            name_challenger(registry, digest, by=operator(), why=why)
    print(f"{digest}" + (" is the challenger" if challenger else ""))


def pull(
    name: str = typer.Argument(..., help=f"Which: {_NAME}."),
    out: Path = typer.Option(..., "--out", help="File of the pack."),
    config: Path | None = _CONFIG,
) -> None:
    """Write a pack of the registry to a file."""
    with opened(load({}, config).settings) as registry:
        digest = write_pack(registry.pack(registry.find(name)), out)
    print(f"{out}: configuration {digest}")


def promote(
    pack: str = typer.Argument(..., help=f"File of a pack, or {_NAME}."),
    url: list[str] = _URL,
    gate: Path | None = typer.Option(
        None, "--gate", help="gate.json that 'dapo gate' wrote of the two packs."
    ),
    force: str = typer.Option(
        "", "--force", help="Without evidence, for this reason; it is kept with the move."
    ),
    config: Path | None = _CONFIG,
) -> None:
    """Make a pack the champion: on all model servers, tried with a known answer, then for all lines that follow.

    Needs the gate's word, or that no score moves; the first champion needs neither. Where anything fails, the champion before
    is served on.
    """
    loaded = load({}, config)
    with opened(loaded.settings) as registry:
        path = Path(pack)
        digest = registry.push(read_pack(path)) if path.is_file() else registry.find(pack)
        if gate is not None:
            keep_gate_file(registry, gate)
        move = promoted(registry, digest, loaded, url, force=force)
    print(f"{digest} is the champion already" if move is None else line_of(move))


def rollback_(url: list[str] = _URL, why: str = _WHY, config: Path | None = _CONFIG) -> None:
    """Make the previous champion the champion again."""
    settings = load({}, config).settings
    with opened(settings) as registry:
        move = rollback(registry, servers(settings, url), by=operator(), why=why, say=errors().print)
    print(line_of(move))


def diff(
    old: str = typer.Argument("champion", help=f"File of a pack, or {_NAME}."),
    new: str = typer.Argument("challenger", help="Likewise."),
    config: Path | None = _CONFIG,
) -> int:
    """What differs between two packs; exit status 1 where anything does."""
    with opened(load({}, config).settings) as registry:
        one, other = (
            read_pack(Path(name)) if Path(name).is_file() else registry.pack(registry.find(name))
            for name in (old, new)
        )
    lines = diff_packs(one, other)
    print("\n".join(lines) if lines else "the packs are the same")
    return 1 if lines else 0


@contextmanager
def opened(settings: Settings) -> Iterator[Registry]:
    """The registry that the settings name."""
    store = open_store(settings.store, settings.store.models_bucket)
    try:
        yield Registry(store)
    finally:
        store.close()


def promoted(
    registry: Registry, digest: str, loaded: Loaded, urls: Sequence[str] = (), *, force: str = ""
) -> Move | None:
    """Promote on all servers, with topics for new types where a broker is set."""
    settings = loaded.settings

    def topics_of(pack: Pack) -> None:
        if loaded.origins["kafka.bootstrap"] == "default":
            return  # no line of ours
        admin = TopicAdmin(settings.kafka)
        try:
            for name in admin.create_types(Topics(settings.kafka.prefix), pack):
                errors().print(f"topic {name} made")
        finally:
            admin.close()

    return promote_pack(
        registry,
        digest,
        servers(settings, urls),
        by=operator(),
        force=force,
        prepare=topics_of,
        say=errors().print,
    )


def servers(settings: Settings, urls: Sequence[str]) -> list[Server]:
    """The model servers that are named; none where the model runs in the workers."""
    named = urls or ([settings.triton.url] if settings.triton.url else [])
    placement = placement_of(settings.triton)
    return [TritonServer(address_of(settings.triton, url), placement) for url in named]


def line_of(move: Move) -> str:
    """A move in one line, for people."""
    before = "nothing" if move.before is None else move.before[:_SHOWN]
    because = "; ".join(part for part in (move.evidence, move.why) if part)
    return (
        f"{move.at:%Y-%m-%d %H:%M:%S} {move.what} {before} -> {move.after[:_SHOWN]} by {move.by}: {because}"
    )


def _last_change(registry: Registry, digest: str) -> str:
    try:
        history = _history(registry.pack(digest))
    except PackError:
        return "damaged: push it again"
    return _said(history[-1]) if history else ""


def _history(pack: Pack) -> list[object]:
    """What was done to make a pack; a pack of somebody else's making may say anything there."""
    found = pack.provenance.get("history", [])
    return list(found) if isinstance(found, list | tuple) else [found]


def _said(entry: object) -> str:
    """An entry of a pack's history in one line."""
    if not isinstance(entry, dict):
        return str(entry)
    return ", ".join(f"{name} {value}" for name, value in sorted(entry.items()) if name != "parent")
