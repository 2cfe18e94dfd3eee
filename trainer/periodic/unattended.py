"""`dapo retune --from-archive --since 30d --auto`: the registry's champion retuned, for cron."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dapo.encoder import Encoder
from dapo.errors import DapoError, ServiceUnavailable, SettingsError
from dapo.pack import Pack
from pipeline.atomic import explained
from pipeline.cli.models import promoted, servers
from pipeline.cli.shadow import shadowed
from pipeline.cli.terminal import errors
from pipeline.kafka.read import TopicReader
from pipeline.lock import locked
from pipeline.registry.lease import UnderWay, operator
from pipeline.registry.registry import Registry
from pipeline.registry.turn import Turn, turn
from pipeline.settings import Loaded
from pipeline.store.open import open_store
from pipeline.stream.topics import Topics
from trainer.data.archive import open_archive
from trainer.data.words import Words
from trainer.gate.cli import EXIT
from trainer.gate.rules import Rules
from trainer.gate.rules_file import read_rules
from trainer.periodic.runs import begin
from trainer.periodic.work import Job, Policy, carry_out
from trainer.tuning.run import Plan, Progress

LATER = 75  # EX_TEMPFAIL of sysexits.h: the same call can succeed later, and goes on where this one was
_SHADOW_MIN = 15.0  # a line that stands ends a shadow run too


class RunningLine:
    """See `trainer.periodic.work.Line`: the line that the settings name."""

    def __init__(self, loaded: Loaded, registry: Registry, urls: Sequence[str], held: Turn) -> None:
        self._loaded, self._registry, self._urls, self._held = loaded, registry, urls, held

    def check(self, policy: Policy) -> None:
        """See `Line`."""
        if policy.then == "hold":
            return
        settings = self._loaded.settings
        for server in servers(settings, self._urls):
            server.served()
        if policy.shadow_frames:
            with TopicReader(settings.kafka, "dapo-shadow") as reader:
                reader.span(Topics(settings.kafka.prefix).results)

    def shadow(self, digest: str, frames: int) -> Mapping[str, Any]:
        """See `Line`."""
        return shadowed(self._loaded.settings, digest, threading.Event(), frames, _SHADOW_MIN)[2]

    def promote(self, digest: str) -> None:
        """See `Line`."""
        self._held.check()
        promoted(self._registry, digest, self._loaded, self._urls)


@dataclass(frozen=True)
class Asked:
    """What the command line says.

    Attributes:
        since: days of the archive, "30d".
        out: folder of all runs.
        products: some of the archive's; none: all.
        types: a user's map of names to words.
        salt: see `trainer.periodic.work.Job`.
        rules: file of the gate's limits.
        urls: of model servers to promote on.
        every: how long after the last run another is begun; None: at each call.
    """

    loaded: Loaded
    since: str
    plan: Plan
    out: Path
    products: Sequence[str]
    types: Path | None
    salt: str
    rules: Path | None
    policy: Policy
    urls: Sequence[str]
    every: timedelta | None


def unattended(asked: Asked, encoder_of: Callable[[Pack], Encoder], tell: Progress) -> int:
    """Do all of it; prints one JSON object. SIGTERM ends it as Ctrl-C does: what it holds is given back.

    Args:
        encoder_of: loads a pack's encoder.

    Returns:
        Exit status: that of `dapo gate`; 3 where nothing is labelled, 0 where it is too early for another run, `LATER` where a
        server is away or somebody else is at it.

    Raises:
        DapoError: it can't be done, now or later.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError(
            "--auto works in one process: tune with torchrun by hand, and promote what the gate lets through."
        )
    try:
        with _ended_by_sigterm():
            return _carried_out(asked, encoder_of, tell)
    except DapoError as error:
        away = isinstance(error, ServiceUnavailable) or isinstance(error.__cause__, ServiceUnavailable)
        if not away and not isinstance(error, UnderWay):
            raise
        _say(f"error: {error}")
        return LATER


def _carried_out(asked: Asked, encoder_of: Callable[[Pack], Encoder], tell: Progress) -> int:
    settings, words = asked.loaded.settings, Words((), asked.types)
    rules = Rules() if asked.rules is None else read_rules(asked.rules)
    with ExitStack() as held:
        models = open_store(settings.store, settings.store.models_bucket)
        held.callback(models.close)
        registry = Registry(models)
        by = operator()
        with explained(asked.out):
            asked.out.mkdir(parents=True, exist_ok=True)
        try:
            held.enter_context(locked(asked.out))
        except SettingsError as error:
            raise UnderWay(str(error)) from error
        own = held.enter_context(turn(registry, registry.pointers().champion or "", by, _say))
        champion = registry.champion()  # now: while the turn was waited for, somebody may have promoted
        options = {
            "since": asked.since,
            "plan": repr(replace(asked.plan, cache=Path())),  # wherever features are kept, they are the same
            "products": list(asked.products),
            "salt": asked.salt,
            "rules": repr(rules),
            "types": asked.types and hashlib.sha256(asked.types.read_bytes()).hexdigest(),
            "audit_rate": settings.archive.audit_rate,
            "version": version("dapo-inspection"),
        }
        run = begin(asked.out, champion.configuration_hash, options, datetime.now(UTC), asked.every)
        if run is None:
            _say(f"{asked.out}: too early for another run, and none was stopped")
            print(json.dumps({"outcome": "not-due"}))
            return 0
        _say(
            f"{run.folder}: {'gone on with' if run.resumed else 'begun'}, with what was known at {run.as_of:%Y-%m-%d %H:%M} UTC"
        )
        job = Job(
            champion=champion,
            encoder=encoder_of(champion),
            plan=asked.plan,
            settings=settings,
            products=asked.products,
            salt=asked.salt,
            rules=rules,
            policy=asked.policy,
            by=by,
        )
        data = open_archive(asked.since, words, settings, until=run.as_of, pack=champion)
        line = RunningLine(asked.loaded, registry, asked.urls, own)
        outcome = carry_out(job, data, registry, line, run, tell=tell, say=_say, mine=own.check)
    _say(f"{outcome['outcome']}: {outcome['said']} ({outcome['did']}; {run.folder})")
    print(json.dumps(outcome))
    return EXIT.get(outcome["outcome"], EXIT["not-decidable"])


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM is a KeyboardInterrupt inside of the block, so that leases and what was loaded for a shadow are given back."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    errors().print(text, markup=False, highlight=False)
