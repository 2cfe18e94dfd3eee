"""What each topic must be like so that nothing is lost: partitions, copies, retention, sizes. Pure: no broker is asked.

Kafka deletes by time and size, whoever has read. The archiver reads frames and results at its own pace, so both are kept
for the longest outage of the store that the plant declares, and half as long again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dapo.errors import SettingsError
from dapo.pack import Pack
from pipeline.stream.topics import Topics

HOUR_MS = 3_600_000
_SPARE = 1.5  # retention over the declared outage: the archiver also needs time to catch up
_SKEW = 2.0  # of a partition's bytes over its fair share: keys are few, and hash unevenly
ROOM_BYTES = 64 * 1024  # a dead letter is the frame's message with more headers
_ROW_BYTES = 8 * 1024  # a result row with a dozen masks
_COPIES, _IN_SYNC = 3, 2
FOREVER = -1
# What a plan sets of topics of defects, and so what another such topic has to have too.
_COPIED = (
    "cleanup.policy",
    "min.insync.replicas",
    "unclean.leader.election.enable",
    "message.timestamp.type",
    "retention.ms",
)
_MINUTE_MS = 60_000
_MOST_MINUTES = 2**31 - 1  # that the broker's setting can hold


@dataclass(frozen=True, slots=True)
class Needs:
    """What the plant declares.

    Attributes:
        outage_h: longest time that the store, or the MES, may be away.
        rate: frames per second of all lines together.
        frame_bytes: of an encoded frame, on average.
        max_message_bytes: of one frame message; larger frames go through the store.
        partitions: of frames, results and defects: as many workers can share the work.
        single_broker: there is one copy of everything, and that is known.
    """

    outage_h: float = 24.0
    rate: float = 10.0
    frame_bytes: int = 200_000
    max_message_bytes: int = 8 * 2**20
    partitions: int = 6
    single_broker: bool = False

    def __post_init__(self) -> None:
        for name in ("outage_h", "rate", "frame_bytes", "partitions"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name.replace('_', ' ')}: {getattr(self, name)} is not above 0.")


@dataclass(frozen=True, slots=True)
class Plan:
    """One topic as it should be: `config` holds the broker's own names."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Disk of one copy, at the most; 0 where time alone decides."""
        return max(0, int(self.config.get("retention.bytes", "0"))) * self.partitions


@dataclass(frozen=True, slots=True)
class Found:
    """One topic as the broker has it."""

    partitions: int
    replication: int
    config: Mapping[str, str]


def plan(topics: Topics, pack: Pack, needs: Needs) -> list[Plan]:
    """Every topic of a deployment.

    Frames and results are stamped by the broker (`LogAppendTime`), so that a camera with a wrong clock neither empties
    nor fills a disk.
    """
    keep_ms = str(math.ceil(needs.outage_h * HOUR_MS * _SPARE))
    frames_bytes = needs.rate * needs.frame_bytes * needs.outage_h * 3600 * _SPARE / needs.partitions * _SKEW
    results_bytes = needs.rate * _ROW_BYTES * needs.outage_h * 3600 * _SPARE / needs.partitions * _SKEW
    common = {
        "cleanup.policy": "delete",
        "min.insync.replicas": "1" if needs.single_broker else str(_IN_SYNC),
        "unclean.leader.election.enable": "false",
    }
    broker_time = {"message.timestamp.type": "LogAppendTime"}
    kept = common | broker_time | {"retention.ms": keep_ms}
    large = {"max.message.bytes": str(needs.max_message_bytes + ROOM_BYTES)}
    with_room = {"max.message.bytes": str(needs.max_message_bytes + 2 * ROOM_BYTES)}
    frames = kept | large | {"retention.bytes": str(math.ceil(frames_bytes))}
    results = kept | {"retention.bytes": str(max(2**30, math.ceil(results_bytes)))}
    special = {
        topics.frames: frames,
        topics.results: results,
        # Whoever mends a sender needs more than a day for it; dead letters are few.
        topics.dead_letters: kept | with_room | {"retention.ms": str(max(int(keep_ms), 14 * 24 * HOUR_MS))},
        topics.status: common | {"retention.ms": str(24 * HOUR_MS)},
        topics.labels: common | {"retention.ms": str(FOREVER)},  # people's work is never deleted
    }
    copies = 1 if needs.single_broker else _COPIES
    return [
        Plan(name, 1 if name == topics.status else needs.partitions, copies, special.get(name, kept))
        for name in topics.all(pack)
    ]


def like(model: Found, name: str) -> Plan:
    """A topic as another one is: of as many partitions and copies, kept for as long."""
    config = {key: model.config[key] for key in _COPIED if key in model.config}
    return Plan(name, model.partitions, model.replication, config)


def faults(wanted: Plan, found: Found | None) -> list[str]:
    """Why a topic would lose data, or stop the line; empty where it would not. Each line says what to do."""
    if found is None:
        return [f"{wanted.name}: is missing. Make it with 'dapo topics create'."]
    said = []

    def value(name: str) -> str:
        return found.config.get(name, "")

    def number(name: str, otherwise: int = 0) -> int:
        text = value(name)
        return int(text) if text.lstrip("-").isdigit() else otherwise

    def blame(what: str, why: str, mend: str) -> None:
        said.append(f"{wanted.name}: {what}: {why}. {mend}")

    if found.partitions < wanted.partitions:
        blame(
            f"{found.partitions} partitions, {wanted.partitions} wanted",
            "no more workers than partitions can share the work",
            "Add partitions while no frame is on the way: keys move, and with them their order",
        )
    if found.replication < wanted.replication:
        blame(
            f"{found.replication} copies, {wanted.replication} wanted",
            "a broker that dies takes committed verdicts with it",
            "Reassign with more replicas, or declare --single-broker",
        )
    if number("min.insync.replicas") < int(wanted.config["min.insync.replicas"]):
        blame(
            f"min.insync.replicas {value('min.insync.replicas')}",
            "a write is acknowledged that only one broker has",
            f"Set it to {wanted.config['min.insync.replicas']}, or declare --single-broker",
        )
    if "compact" in value("cleanup.policy"):
        blame(
            f"cleanup.policy {value('cleanup.policy')}",
            "compaction keeps one row per camera and deletes all others",
            "Set it to delete",
        )
    if value("unclean.leader.election.enable") == "true":
        blame(
            "unclean.leader.election.enable true",
            "a broker that lags may become leader, and what it lacks is gone",
            "Set it to false",
        )
    for name, unit in (("retention.ms", "ms"), ("retention.bytes", "bytes a partition")):
        wants, has = int(wanted.config.get(name, "0")), number(name, FOREVER)
        if has != FOREVER and (wants == FOREVER or has < wants):
            least = "without end" if wants == FOREVER else f"{wants} {unit}"
            blame(
                f"{name} {has}",
                "records are deleted before the slowest reader can have them after the declared outage",
                f"Set it to {least}",
            )
    wants = int(wanted.config.get("max.message.bytes", "0"))
    if wants and number("max.message.bytes") < wants:
        blame(
            f"max.message.bytes {value('max.message.bytes')}",
            "a message that the settings allow would be refused, and the line would stop",
            f"Set it to {wants}",
        )
    stamp = wanted.config.get("message.timestamp.type")
    if stamp and value("message.timestamp.type") != stamp:
        blame(
            f"message.timestamp.type {value('message.timestamp.type')}",
            "retention would go by the clocks of cameras",
            f"Set it to {stamp}",
        )
    return said


def offset_faults(plans: Sequence[Plan], found: Mapping[str, Found], minutes: int) -> list[str]:
    """Why a reader that stands still for long would do again what it has done; empty where it would not.

    The broker forgets how far a group without members has read after a time of its own, however long records are kept.
    Topics that are planned to be kept for ever are read whole, without a group.

    Args:
        found: those of the topics that are there.
        minutes: the broker's offsets.retention.minutes.
    """

    def kept(one: Plan) -> int:
        config = found[one.name].config if one.name in found else one.config
        ms = int(config.get("retention.ms", FOREVER))
        return _MOST_MINUTES if ms == FOREVER else math.ceil(ms / _MINUTE_MS)

    groups = [one for one in plans if one.config.get("retention.ms") != str(FOREVER)]
    longest = max(groups, key=kept, default=None)
    if longest is None or kept(longest) <= minutes:
        return []
    return [
        f"offsets.retention.minutes {minutes}: whoever stands still for longer starts over, and does again all that"
        f" {longest.name} still holds. Set it to {kept(longest)} on every broker (server.properties)."
    ]
