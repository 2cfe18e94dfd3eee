"""`dapo topics`: make the topics that a pack needs, and refuse those that would lose data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.table import Table

from dapo.pack_io import read_pack
from pipeline.bundled import default_pack_path
from pipeline.cli import terminal
from pipeline.kafka.topics import TopicAdmin
from pipeline.settings import Settings, load
from pipeline.stream.durations import hours
from pipeline.stream.retention import Needs, Plan, faults, offset_faults, plan
from pipeline.stream.topics import Topics

_OUTAGE = typer.Option(
    "24h", "--outage", help="Longest outage of store or MES that must lose nothing: 8h, 3d."
)
_RATE = typer.Option(10.0, "--rate", help="Frames per second, all lines together.")
_FRAME = typer.Option(200_000, "--frame-bytes", help="Of an encoded frame, on average.")
_PARTITIONS = typer.Option(6, "--partitions", min=1, help="As many workers can share the frames.")
_SINGLE = typer.Option(
    False, "--single-broker", help="There is one broker and one copy of everything, and I know it."
)
_PACK = typer.Option(
    None, "--pack", help="Prompt pack: each of its types has a topic.", show_default="the bundled one"
)
_BOOTSTRAP = typer.Option(None, "--bootstrap", help="Kafka, host:port.")
_CONFIG = typer.Option(None, "--config", help="TOML file of settings.")


def register(app: typer.Typer) -> None:
    """Add `topics`."""
    topics = typer.Typer(help="Make and check the topics of the stream.", no_args_is_help=True)
    for command in (create, check):
        topics.command(name=command.__name__)(_of_a_plant(command))
    app.add_typer(topics, name="topics")


def create(admin: TopicAdmin, plans: list[Plan]) -> int:
    """Make the topics that are missing; those that are there stay as they are, and are checked."""
    there = admin.find(one.name for one in plans)
    made = [one for one in plans if one.name not in there]
    admin.create(made)
    status = _tell(plans, admin, made)
    disk = sum(one.bytes for one in plans) / 1e9
    print(
        f"{len(made)} topics made, {len(plans) - len(made)} were there; each copy takes up to {disk:.0f} GB of disk"
    )
    return status


def check(admin: TopicAdmin, plans: list[Plan]) -> int:
    """Say of each topic whether it would lose data, why, and what to do; exit status 1 where one would."""
    return _tell(plans, admin, [])


def _of_a_plant(command: Callable[[TopicAdmin, list[Plan]], int]) -> Callable[..., int]:
    """A command with the options that say what the plant needs, and where its broker is."""

    def run(
        outage: str = _OUTAGE,
        rate: float = _RATE,
        frame_bytes: int = _FRAME,
        partitions: int = _PARTITIONS,
        single_broker: bool = _SINGLE,
        pack: Path | None = _PACK,
        bootstrap: str | None = _BOOTSTRAP,
        config: Path | None = _CONFIG,
    ) -> int:
        settings = load({"kafka.bootstrap": bootstrap, "pack.path": pack}, config).settings
        largest = settings.kafka.max_message_bytes
        needs = Needs(hours(outage), rate, frame_bytes, largest, partitions, single_broker)
        read = read_pack(settings.pack.path or default_pack_path())
        with _admin(settings) as admin:
            return command(admin, plan(Topics(settings.kafka.prefix), read, needs))

    run.__doc__ = command.__doc__
    return run


def _tell(plans: list[Plan], admin: TopicAdmin, made: list[Plan]) -> int:
    found = admin.find(one.name for one in plans)
    table = Table("topic", "partitions", "copies", "kept", "", box=None, pad_edge=False)
    blamed: list[str] = []
    for one in plans:
        has, said = found.get(one.name), faults(one, found.get(one.name))
        kept = "-" if has is None else _kept(has.config.get("retention.ms", "-1"))
        word = "refused" if said else "made" if one in made else "good"
        table.add_row(
            one.name, str(has.partitions if has else "-"), str(has.replication if has else "-"), kept, word
        )
        blamed += said
    terminal.output().print(table)
    errors = terminal.errors()
    minutes = admin.offsets_kept()
    if minutes is None:
        errors.print(
            "offsets.retention.minutes: this user may not see it (DescribeConfigs on the cluster). It must be longer than"
            " the topics are kept."
        )
    else:
        blamed += offset_faults(plans, found, minutes)
    for line in blamed:
        errors.print(line)
    return 1 if blamed else 0


def _kept(milliseconds: str) -> str:
    return "always" if milliseconds == "-1" else f"{int(milliseconds) / 3_600_000:g} h"


@contextmanager
def _admin(settings: Settings) -> Iterator[TopicAdmin]:
    admin = TopicAdmin(settings.kafka)
    try:
        yield admin
    finally:
        admin.close()
