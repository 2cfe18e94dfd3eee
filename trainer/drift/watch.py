"""Looks at what a line showed lately, again and again, and tells how far it is from what its pack knows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry, Gauge

from dapo.errors import DapoError
from dapo.pack import ANY_PRODUCT, Pack
from pipeline.ports import ObjectStore
from pipeline.settings import Settings
from trainer.data.archive import ArchiveDataset, NothingArchived
from trainer.data.archived import Days
from trainer.drift.look import MOST_FRAMES, drawn_frames, look
from trainer.drift.measure import Drift, drift_of, knows
from trainer.gate.compare import Pair

_LOG = logging.getLogger(__name__)
_AGAIN_S = 60.0  # after a look that failed
_LATE = 3.0  # periods without a look, after which this process is not ready


class DriftMetrics:
    """The metrics of `dapo drift`; docs/metrics.md describes each."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = own = registry or CollectorRegistry()
        names = ["product", "of"]
        self.distance = Gauge(
            "dapo_drift_distance", "how far frames are from what the pack knows, 0 to 1", names, registry=own
        )
        self.limit = Gauge("dapo_drift_limit", "distance from which it is drift", names, registry=own)
        self.frames = Gauge("dapo_drift_frames", "frames that were looked at", ["product"], registry=own)
        self.unknown = Gauge(
            "dapo_drift_unknown",
            'products of which nothing can be said: each that the pack names by itself, all others as "*"',
            ["product"],
            registry=own,
        )
        self.looked = Gauge(
            "dapo_drift_looked_timestamp_seconds",
            "when frames were looked at; before the first look, when the process began",
            registry=own,
        )
        self.looked.set_to_current_time()

    def told(self, found: Looking, now: float) -> None:
        """Set all to what one look found; products that are gone are told no more."""
        for gauge in (self.distance, self.limit, self.frames, self.unknown):
            gauge.clear()
        for one in found.drifts:
            self.distance.labels(one.product, one.of).set(one.distance)
            self.limit.labels(one.product, one.of).set(one.limit)
            self.frames.labels(one.product).set(one.frames)
        for product in found.unknown:
            self.unknown.labels(product if product in found.named else ANY_PRODUCT).inc()
        self.looked.set(now)


@dataclass(frozen=True)
class Looking:
    """What one look found.

    Attributes:
        configuration_hash: of the pack.
        named: products that the pack names. Others' names come from outside, and are as many as senders like.
        unknown: product -> why nothing can be said of it.
    """

    configuration_hash: str
    named: frozenset[str] = frozenset()
    drifts: list[Drift] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)

    @property
    def drifted(self) -> list[Drift]:
        """What is no longer as ever."""
        return [one for one in self.drifts if one.drifted]


class DriftWatch:
    """Looks at the archive.

    Args:
        champion: the pack in force, asked for before each look.
        store: the archive's bucket.
        window: how far back a look goes.
        frames: of a product, at most.
    """

    def __init__(
        self,
        champion: Callable[[], Pack],
        store: ObjectStore,
        settings: Settings,
        *,
        window: timedelta,
        frames: int = MOST_FRAMES,
        metrics: DriftMetrics | None = None,
    ) -> None:
        self._champion, self._store, self._settings = champion, store, settings
        self._window, self._frames = window, frames
        self.metrics = metrics or DriftMetrics()
        self._done, self._every, self._why = 0.0, 0.0, "no look yet"
        self._run_by = settings.model, settings.run.batch
        self._pair: tuple[str, Pair] | None = (
            None  # loaded once for each champion: a look comes every hour for months
        )

    def look(self, now: datetime) -> Looking:
        """Look once.

        Raises:
            DapoError: the registry or the archive can't be read.
        """
        pack, since = self._champion(), now - self._window
        data = ArchiveDataset(
            self._store,
            Days(since.date(), now.date()),
            {one.slug: one.word for one in pack.types},
            max_bytes=self._settings.run.max_bytes,
            since=since,
            until=now,
        )
        found = Looking(pack.configuration_hash, frozenset(pack.products))
        try:
            frames = drawn_frames(
                data,
                self._settings.archive.audit_rate,
                self._frames,
                skip=lambda product, why: found.unknown.update({product: str(why)}),
            )
        except NothingArchived as error:
            _LOG.warning("nothing to look at: %s", error)
            return self._told(found, now)
        known = {product: own for product, own in frames.items() if knows(pack, product)}
        seen = look(pack, known, *self._run_by, pair=self._loaded(pack)) if known else {}
        for product, own in sorted(frames.items()):
            if product not in known:
                found.unknown[product] = "the pack does not know what it usually looks like: retune it"
            elif product not in seen:
                found.unknown[product] = f"{len(own)} frames were kept by chance, too few to say anything"
            else:
                found.drifts.extend(drift_of(pack, product, seen[product].scores, seen[product].features))
        return self._told(found, now)

    def run(self, stop: threading.Event, every: timedelta, tell: Callable[[Looking], None]) -> None:
        """Look every so often until `stop` is set; one that fails is tried again a minute later."""
        self._every = every.total_seconds()
        while not stop.is_set():
            begun = time.monotonic()
            try:
                tell(self.look(datetime.now(UTC)))
                wait = self._every
            except DapoError as error:
                self._why = str(error)
                _LOG.warning("the line can't be looked at now: %s", error)
                wait = min(self._every, _AGAIN_S)
            stop.wait(max(0.0, wait - (time.monotonic() - begun)))

    def missing(self) -> dict[str, str]:
        """What keeps this process from being ready."""
        late = not self._done or time.monotonic() - self._done > _LATE * self._every
        return {"look": self._why} if late else {}

    def _loaded(self, pack: Pack) -> Pair:
        if self._pair is None or self._pair[0] != pack.configuration_hash:
            self._pair = None  # before the next one is loaded
            self._pair = pack.configuration_hash, Pair(pack, pack, *self._run_by)
        return self._pair[1]

    def _told(self, found: Looking, now: datetime) -> Looking:
        self.metrics.told(found, now.timestamp())
        self._done, self._why = time.monotonic(), "the last look is long ago"
        return found
