"""Put a worker together from settings: log, model, stages, store, ledger, health."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TypeVar

from kafka.errors import KafkaError

from dapo.errors import DapoError, FrameError, LogRefused, ServiceUnavailable, SettingsError
from dapo.pack import Pack
from dapo.pack_io import read_pack
from pipeline.archive.archiver import Archiver
from pipeline.archive.keys import CLAIMS, image_key_of, media_of
from pipeline.archive.policy import OF_OK_FRAMES, Policy, Reason, reason_to_keep
from pipeline.bundled import default_pack_path
from pipeline.decode import Limits as FrameLimits
from pipeline.infer import InProcessInfer
from pipeline.inspect import Inspector, Preparer
from pipeline.kafka.beats import Beats
from pipeline.kafka.frames import FrameReader
from pipeline.kafka.log import KafkaLog
from pipeline.kafka.topics import TopicAdmin
from pipeline.ports import Frame, Infer, ObjectStore
from pipeline.registry.registry import Registry
from pipeline.settings import Settings
from pipeline.store.errors import OF_ONE_OBJECT, NotFound, StoreUnavailable
from pipeline.store.open import open_store
from pipeline.stream.archiving import ArchiveMetrics, Archiving
from pipeline.stream.frames import REFERENCE
from pipeline.stream.health import serve
from pipeline.stream.inspection import Fetch, Inspection
from pipeline.stream.ledger import Ledger
from pipeline.stream.metrics import Metrics
from pipeline.stream.patience import PatientInfer
from pipeline.stream.slots import Slot
from pipeline.stream.standing import NotedInfer, Standing
from pipeline.stream.topics import Topics
from pipeline.stream.verdicts import Teller
from pipeline.stream.worker import Limits, Worker
from schemas.results import ResultRow

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


@contextmanager
def worker(settings: Settings, stop: threading.Event, say: Callable[[str], None]) -> Iterator[Worker]:
    """A worker as configured, ready to run; everything it opened is closed behind it.

    A broker or model server that is not up yet is waited for until `stop` is set; the worker's health, metrics and (as
    soon as there is a broker) beats say so meanwhile.

    Args:
        say: told, for people, what is waited for and what was opened.

    Raises:
        SettingsError, PackError, LogRefused: what can't be mended by waiting.
        ServiceUnavailable: `stop` was set while something was waited for.
    """
    own, topics = settings.worker, Topics(settings.kafka.prefix)
    path = settings.pack.path or default_pack_path()
    with ExitStack() as held:
        registry = _registry(settings, held) if settings.pack.follow else None
        slot = held.enter_context(Slot(own.group, own.slot))
        name = f"{own.group}-{slot.name}"
        metrics, realtime = Metrics(), _realtime(own.realtime_lines)
        standing = Standing(stop, say, named(settings))
        ledger = Ledger(
            metrics,
            worker_id=name,
            realtime=realtime,
            waiting_for=standing.waiting_for,
        )

        def in_force(pack: Pack) -> None:
            if ledger.configuration_hash not in ("", pack.configuration_hash):
                metrics.switches.inc()
            ledger.configuration_hash = pack.configuration_hash
            metrics.configuration.info({"hash": pack.configuration_hash, "encoder": pack.encoder.name})

        def prepare(pack: Pack) -> Infer:
            check_topics(settings, topics, pack)
            assert registry is not None
            return open_model(settings, pack, partial(is_champion, registry, pack))

        def open_infer() -> Infer:
            if registry is None:
                return open_model(settings, pack)
            from pipeline.registry.follow import FollowingInfer

            return FollowingInfer(registry, prepare, switched=in_force, behind=metrics.behind.set)

        serve(
            held,
            own.metrics_port,
            own.metrics_host,
            metrics.registry,
            lambda: _missing(ledger, standing),
            say,
        )
        with standing.beating(lambda: ledger.beat(0, None, None, stop.is_set())):
            pack = read_pack(path) if registry is None else standing.until("pack", registry.champion)
            in_force(pack)
            standing.until("broker", lambda: check_topics(settings, topics, pack))
            beats = standing.until("broker", lambda: _open_beats(settings, topics.status, name))
            held.callback(beats.close)
            ledger.send = beats.send
            infer = standing.until("model", open_infer)
            held.callback(infer.close)
            log = standing.until("broker", lambda: _open_log(settings, topics.frames, own.group, slot.name))
            held.callback(log.close)
        model = PatientInfer(NotedInfer(infer, standing), stop)
        store = open_store(settings.store) if settings.store.endpoint else None
        limits = FrameLimits(max_bytes=settings.run.max_bytes, max_pixels=settings.run.max_pixels)
        fetch = fetch_from(store, settings.store.bucket, limits)

        def fetched(frame: Frame) -> bytes:
            with standing.asking("store"):
                return fetch(frame)

        batch = settings.run.batch
        inspection = Inspection(
            Preparer(model, limits),
            Inspector(model, batch=batch, pack_name=path.name if registry is None else ""),
            fetch=fetched,
            ahead=2 * batch,
            stop=stop,
        )
        teller = Teller(
            topics,
            own.deadline_ms,
            image_uri=uri_of_kept(settings.store.bucket, settings.archive.audit_rate) if store else None,
        )
        said = "configuration" if registry is None else "the registry's champion, now"
        say(f"worker {name}: frames of {topics.frames}, {said} {infer.pack.configuration_hash[:12]}")
        yield Worker(
            log,
            inspection,
            teller.tell,
            ledger,
            limits=Limits(
                own.max_frames,
                own.max_in_flight_bytes,
                own.transaction_frames,
                own.transaction_ms,
                own.shutdown_s,
            ),
            realtime=realtime,
            stop=stop,
        )


@contextmanager
def archiving(
    settings: Settings,
    slot: str,
    stop: threading.Event,
    say: Callable[[str], None],
    metrics_port: int | None = None,
) -> Iterator[Archiving]:
    """An archiver as configured, ready to run.

    Args:
        metrics_port: of /metrics, /healthz and /readyz; None: off.

    Raises:
        SettingsError, LogRefused, StoreError: what can't be mended by waiting.
        ServiceUnavailable: `stop` was set while something was waited for.
    """
    own, topics = settings.archive, Topics(settings.kafka.prefix)
    store = open_store(settings.store)
    with ExitStack() as held:
        held.callback(store.close)
        name = held.enter_context(Slot(own.group, slot)).name
        metrics, standing = ArchiveMetrics(), Standing(stop, say, _store_or_broker)
        missing = standing.missing
        serve(
            held, metrics_port, settings.worker.metrics_host, metrics.registry, lambda: missing(), say
        )  # what `missing` is by then
        log = standing.until("broker", lambda: _open_log(settings, topics.results, own.group, name))
        frames = FrameReader(settings.kafka, topics.frames)
        held.callback(frames.close)
        fetch = claims_of(store, settings.run.max_bytes)
        policy = Policy(own.near_margin, own.audit_rate, own.ok_per_day)
        loop = Archiving(
            log,
            Archiver(store, policy),
            frames,
            fetch,
            batch=own.batch,
            batch_s=own.batch_s,
            metrics=metrics,
            standing=standing,
            stop=stop,
        )
        missing = loop.missing
        say(f"archiver {own.group}-{name}: results of {topics.results} to s3://{store.bucket}/")
        yield loop


def _registry(settings: Settings, held: ExitStack) -> Registry:
    """The registry whose champion is followed.

    Raises:
        SettingsError: no store is set, or a pack is named beside it.
    """
    if settings.pack.path is not None:
        raise SettingsError(
            "pack.path and pack.follow: a worker judges with one file, or with the registry's champion. Set one of them."
        )
    store = open_store(settings.store, settings.store.models_bucket)
    held.callback(store.close)
    return Registry(store)


def check_topics(settings: Settings, topics: Topics, pack: Pack) -> None:
    """Refuse to start where a topic is missing: a verdict must have somewhere to go before a frame is read.

    Raises:
        LogRefused: names the missing ones.
        ServiceUnavailable: no broker answers.
    """
    admin = TopicAdmin(settings.kafka)
    try:
        wanted = topics.all(pack)
        missing = sorted(set(wanted) - set(admin.find(wanted)))
    finally:
        admin.close()
    if missing:
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        raise LogRefused(f"the broker lacks {shown}. Make them with 'dapo topics create'.")


def is_champion(registry: Registry, pack: Pack) -> bool:
    """Whether a pack is still the one to serve: a worker that waits for frames may hold on to the champion of before.

    A registry that is away keeps no line from coming back.
    """
    try:
        return registry.pointers().champion == pack.configuration_hash
    except DapoError:
        return True


def open_model(settings: Settings, pack: Pack, wanted: Callable[[], bool] = lambda: True) -> Infer:
    """The model server where one is named, else the model in this process.

    Args:
        wanted: see `pipeline.triton.open.open_triton`.
    """
    if settings.triton.url:
        from pipeline.triton.open import open_triton

        return open_triton(settings.triton, pack, wanted)
    model = settings.model
    return InProcessInfer(
        pack,
        batch=settings.run.batch,
        weights=model.weights,
        device=model.device,
        threads=model.threads,
        runtime=model.runtime,
    )


def fetch_from(store: ObjectStore | None, bucket: str, limits: FrameLimits) -> Fetch:
    """How the image of a claim check is got: from among our own, and from nowhere else, whatever the message says.

    What is wrong with one image is a FrameError. A store that refuses us is no fault of the frame: its StoreError ends
    the worker, and the frame waits on its topic until credentials, bucket or clock are mended.
    """
    prefix = _claims(bucket)

    def fetch(frame: Frame) -> bytes:
        uri = frame.headers[REFERENCE]
        if store is None:
            raise FrameError(
                "no-store",
                f"The image lies at {uri}, and this worker has no object store. Set store.endpoint.",
            )
        if not uri.startswith(prefix):
            raise FrameError(
                "foreign-reference", f"The image lies at {uri}; only {prefix}... is read. Correct the sender."
            )
        try:
            return store.get(f"{CLAIMS}/{uri.removeprefix(prefix)}", max_bytes=limits.max_bytes)
        except NotFound as error:
            raise FrameError(
                "not-found", f"{uri} is not in the store (any more). Send the frame again."
            ) from error
        except OF_ONE_OBJECT as error:
            raise FrameError("unreadable", f"{uri} can't be read: {error}") from error

    return fetch


def claims_of(store: ObjectStore, max_bytes: int) -> Callable[[str], bytes | None]:
    """How the archiver gets the image of a claim check by its URI; None where that image will never be had.

    As for the worker, a store that refuses us raises StoreError: an image that is there is never told as gone.
    """
    prefix = _claims(store.bucket)

    def fetch(uri: str) -> bytes | None:
        if not uri.startswith(prefix):
            _LOG.error("%s: only %s... is read", uri, prefix)
            return None
        try:
            return store.get(f"{CLAIMS}/{uri.removeprefix(prefix)}", max_bytes=max_bytes)
        except OF_ONE_OBJECT as error:
            _LOG.error("%s can't be had: %s", uri, error)
            return None

    return fetch


def _claims(bucket: str) -> str:
    return f"s3://{bucket}/{CLAIMS}/"


def uri_of_kept(bucket: str, audit_rate: float) -> Callable[[ResultRow, bytes], str | None]:
    """Where the archiver will put the image, for frames that it keeps whatever its quotas say; None for all others."""
    policy = Policy(near_margin=0.0, audit_rate=audit_rate)

    def uri(row: ResultRow, data: bytes) -> str | None:
        reason = reason_to_keep(row, policy)
        sure = reason is not None and (reason not in OF_OK_FRAMES or reason is Reason.AUDIT)
        return f"s3://{bucket}/{image_key_of(row, media_of(data).suffix)}" if sure and data else None

    return uri


def _open_log(settings: Settings, topic: str, group: str, slot: str) -> KafkaLog:
    return _reached(settings, lambda: KafkaLog(settings.kafka, topic, group, slot))


def _open_beats(settings: Settings, topic: str, client: str) -> Beats:
    return _reached(settings, lambda: Beats(settings.kafka, topic, client))


def _reached(settings: Settings, connect: Callable[[], T]) -> T:
    try:
        return connect()
    except KafkaError as error:
        raise ServiceUnavailable(f"no broker answers at {settings.kafka.bootstrap}: {error}") from error


def _realtime(lines: tuple[str, ...]) -> Callable[[str], bool]:
    named = frozenset(lines)
    return lambda line: "*" in named or line in named


def named(settings: Settings) -> Callable[[str, ServiceUnavailable], str]:
    """What is waited for where one does not answer: a model server with another pack is there, and the pack is not."""

    def name(who: str, error: ServiceUnavailable) -> str:
        if isinstance(error, StoreUnavailable):
            return who if who == "store" else "pack"  # the registry that says which
        if who == "model" and settings.triton.url:
            from pipeline.triton.client import UnexpectedPack

            return "pack" if isinstance(error, UnexpectedPack) else who
        return who

    return name


def _store_or_broker(who: str, error: ServiceUnavailable) -> str:
    """What an archiver waits for: a frame that can't be read back is the broker's."""
    return "store" if isinstance(error, StoreUnavailable) else "broker"


def _missing(ledger: Ledger, standing: Standing) -> dict[str, str]:
    """What keeps the worker from being ready. A store that is away does not: most frames have their image with them."""
    missing = {what: why for what, why in standing.missing().items() if what != "store"}
    if not ledger.beating:
        missing["broker"] = "no turn of the worker within the last seconds: it waits for the broker"
    return missing
