"""`dapo retune --from-archive --since 30d --auto`: the registry's champion retuned, for cron."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dapo.encoder import Encoder
from dapo.errors import SettingsError
from dapo.pack import Pack
from pipeline.atomic import explained
from pipeline.cli.models import promoted
from pipeline.cli.shadow import shadowed
from pipeline.cli.terminal import errors
from pipeline.lock import locked
from pipeline.registry.lease import operator
from pipeline.registry.registry import Registry
from pipeline.registry.turn import turn
from pipeline.settings import Loaded
from pipeline.store.open import open_store
from trainer.data.archive import open_archive
from trainer.data.words import Words
from trainer.gate.cli import EXIT
from trainer.gate.rules import Rules
from trainer.gate.rules_file import read_rules
from trainer.periodic.runs import begin
from trainer.periodic.work import Job, Policy, carry_out
from trainer.tuning.run import Plan, Progress
from trainer.tuning.sides import By

_SHADOW_MIN = 15.0  # a line that stands ends a shadow run too


class RunningLine:
    """See `trainer.periodic.work.Line`: the line that the settings name."""

    def __init__(
        self, loaded: Loaded, registry: Registry, urls: Sequence[str], stop: threading.Event
    ) -> None:
        self._loaded, self._registry, self._urls, self._stop = loaded, registry, urls, stop

    def shadow(self, digest: str, frames: int) -> Mapping[str, Any]:
        """See `Line`."""
        return shadowed(self._loaded.settings, digest, self._stop, frames, _SHADOW_MIN)[2]

    def promote(self, digest: str) -> None:
        """See `Line`."""
        promoted(self._registry, digest, self._loaded, self._urls)


def unattended(
    loaded: Loaded,
    since: str,
    plan: Plan,
    encoder_of: Callable[[Pack], Encoder],
    *,
    out: Path,
    products: Sequence[str],
    types: Path | None,
    split_by: By,
    salt: str,
    rules: Path | None,
    policy: Policy,
    urls: Sequence[str],
    tell: Progress,
) -> int:
    """Do all of it; prints one JSON object.

    Args:
        since: days of the archive, "30d".
        encoder_of: loads a pack's encoder.

    Returns:
        Exit status: that of `dapo gate`; 3 where nothing is labelled.

    Raises:
        SettingsError: another run works in `out`; or torchrun started this.
        UnderWay: another machine is retuning.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError(
            "--auto works in one process: tune with torchrun by hand, and promote what the gate lets through."
        )
    settings, limits = loaded.settings, Rules() if rules is None else read_rules(rules)
    say = errors().print
    stop = threading.Event()
    with ExitStack() as held:
        models = open_store(settings.store, settings.store.models_bucket)
        held.callback(models.close)
        registry = Registry(models)
        champion, by = registry.champion(), operator()
        with explained(out):
            out.mkdir(parents=True, exist_ok=True)
        held.enter_context(locked(out))
        held.enter_context(turn(registry, champion.configuration_hash, by))
        options = {
            "since": since,
            "plan": repr(plan),
            "products": list(products),
            "salt": salt,
            "split_by": split_by,
            "rules": repr(limits),
        }
        run = begin(out, champion.configuration_hash, options, datetime.now(UTC))
        say(
            f"{run.folder}: {'gone on with' if run.resumed else 'begun'}, with what was known at {run.as_of:%Y-%m-%d %H:%M} UTC"
        )
        data = open_archive(since, Words((), types), settings, until=run.as_of)
        job = Job(
            champion=champion,
            encoder=encoder_of(champion),
            plan=plan,
            settings=settings,
            products=products,
            salt=salt,
            split_by=split_by,
            rules=limits,
            policy=policy,
            by=by,
        )
        line = RunningLine(loaded, registry, urls, stop)
        outcome = carry_out(job, data, registry, line, run, tell=tell, say=say)
    say(f"{outcome['outcome']}: {outcome['said']} ({outcome['did']}; {run.folder})")
    print(json.dumps(outcome))
    return EXIT.get(outcome["outcome"], EXIT["not-decidable"])
