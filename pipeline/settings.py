"""Settings: one typed tree, each value with its origin. Defaults < TOML file < environment DAPO_* < options.

dapo.toml:     [run]                environment:  DAPO_RUN__BATCH=16
               batch = 16
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from dapo.errors import SettingsError
from dapo.vocabulary import nearest

PREFIX = "DAPO_"
FILE = "dapo.toml"
# Environment names that belong to tools beside the settings tree.
_OTHER = ("DAPO_CONFIG", "DAPO_EVAL_DATA")
SECRETS = frozenset(
    {"kafka.password", "store.access_key", "store.secret_key"}
)  # never shown, not even where wrong
# A secret may lie in a file instead, as containers are given theirs: DAPO_STORE__SECRET_KEY_FILE=/run/secrets/...
SECRET_FILES = {f"{key}_file": key for key in SECRETS}
_MAX_SECRET = 64 * 1024  # bytes


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


# The environment has only text: names come separated by commas.
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunSettings(_Section):
    """`dapo run`."""

    out: Path = Field(default=Path("dapo-out"), description="folder for results")
    batch: int = Field(default=8, ge=1, le=256, description="model inputs per batch")
    max_bytes: int = Field(default=64 * 2**20, ge=1, description="largest encoded image, bytes")
    max_pixels: int = Field(
        default=100_000_000, ge=1, description="largest image, pixels; checked before decoding"
    )
    camera_stall_s: float = Field(
        default=20.0, gt=0, description="a camera that gives nothing for so long is reopened, s"
    )


class PackSettings(_Section):
    """The prompt pack."""

    path: Path | None = Field(default=None, description="prompt pack; none: the bundled one")
    follow: bool = Field(
        default=False, description="a worker judges with the registry's champion, whichever that is"
    )


class ModelSettings(_Section):
    """The encoder."""

    device: str = Field(default="cpu", description="cpu, cuda or cuda:N")
    threads: int | None = Field(default=None, ge=1, description="CPU threads; none: as many as cores")
    runtime: Literal["auto", "torch", "openvino"] = Field(
        default="auto", description="who runs the encoder; auto: OpenVINO on a CPU, torch on a GPU"
    )
    weights: Path | None = Field(default=None, description="local file of the encoder's weights")


class KafkaSettings(_Section):
    """The broker, and how it is spoken to."""

    bootstrap: str = Field(
        default="127.0.0.1:9092", min_length=1, description="host:port, several with commas"
    )
    prefix: str = Field(default="inspection", description="start of every topic's name")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="encryption and authentication"
    )
    ssl_cafile: Path | None = Field(
        default=None, description="PEM file of the authority that signed the brokers"
    )
    ssl_certfile: Path | None = Field(default=None, description="PEM file of this client's certificate")
    ssl_keyfile: Path | None = Field(default=None, description="PEM file of this client's key")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="how credentials are proven"
    )
    username: str = Field(default="", description="SASL user")
    password: SecretStr | None = Field(default=None, description="SASL password; better in the environment")
    max_message_bytes: int = Field(
        default=8 * 2**20, ge=1024, description="largest message; larger frames go through the object store"
    )


class TritonSettings(_Section):
    """The model server."""

    url: str = Field(
        default="", description="host:port of its gRPC endpoint; none: the model runs in the worker"
    )
    deadline_s: float = Field(default=10.0, gt=0, description="of one request, s")
    window: int = Field(default=4, ge=1, le=64, description="requests under way at once")
    ssl_cafile: Path | None = Field(
        default=None, description="PEM file of the authority that signed the server"
    )
    ssl_certfile: Path | None = Field(default=None, description="PEM file of this client's certificate")
    ssl_keyfile: Path | None = Field(default=None, description="PEM file of this client's key")
    tls: bool = Field(default=False, description="speak TLS")
    shared_memory: bool = Field(
        default=False, description="the server runs on this host: hand frames over in shared memory"
    )
    device: Literal["auto", "cpu", "gpu"] = Field(default="auto", description="where a pushed pack runs")
    gpus: Names = Field(default=(), description="numbers of its GPUs; none: all")
    instances: int = Field(default=1, ge=1, description="copies of the encoder, per GPU")
    threads: int | None = Field(default=None, ge=1, description="CPU threads of each copy")
    runtime: Literal["auto", "torch", "openvino"] = Field(
        default="auto", description="who runs each copy, as model.runtime"
    )
    weights_folder: str = Field(
        default="", description="folder on the server with weights named by their hash"
    )


class StoreSettings(_Section):
    """The object store: any S3 server."""

    endpoint: str = Field(default="", description="host:port; none: no store, large frames are refused")
    access_key: SecretStr | None = Field(default=None, description="better in the environment")
    secret_key: SecretStr | None = Field(default=None, description="better in the environment")
    bucket: str = Field(default="inspection", description="images, manifest and large frames")
    models_bucket: str = Field(default="models", description="prompt packs and which of them is in force")
    region: str = Field(default="us-east-1", description="as the server names it")
    tls: bool = Field(default=False, description="speak TLS")
    ssl_cafile: Path | None = Field(
        default=None, description="PEM file of the authority that signed the server"
    )
    timeout_s: float = Field(default=10.0, gt=0, description="of one request, s")


class WorkerSettings(_Section):
    """`dapo worker`."""

    group: str = Field(
        default="inspect", min_length=1, description="consumer group; workers of one share the frames"
    )
    slot: str = Field(
        default="", description="stable name of this worker in its group; none: the first free on this host"
    )
    realtime_lines: Names = Field(
        default=(), description="lines that may drop frames, oldest first; '*': all"
    )
    deadline_ms: float | None = Field(default=None, gt=0, description="promised time from capture to result")
    max_frames: int = Field(default=200, ge=1, description="frames that wait for the model")
    max_in_flight_bytes: int = Field(
        default=256 * 2**20, ge=2**20, description="of frames that wait for the model"
    )
    transaction_frames: int = Field(
        default=100, ge=1, le=1000, description="results of one transaction, at most"
    )
    transaction_ms: float = Field(
        default=150.0, ge=1, le=5000, description="the first result waits so long, at most"
    )
    shutdown_s: float = Field(default=20.0, gt=0, description="to finish what is under way after SIGTERM, s")
    metrics_host: str = Field(
        default="127.0.0.1", description="address it listens on; 0.0.0.0 inside a container"
    )
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="of /metrics, /healthz, /readyz; none: off"
    )


class ArchiveSettings(_Section):
    """`dapo archive`: which images are kept, and for how long. NotOK, NotDecidable and Failed frames always are."""

    group: str = Field(default="archive", min_length=1, description="consumer group of the archiver")
    labels_group: str = Field(
        default="dapo-labels-sync", min_length=1, description="consumer group of 'dapo labels sync'"
    )
    near_margin: float = Field(
        default=0.1, ge=0, le=1, description="OK frames from (1 - this) * threshold_ok on are kept"
    )
    audit_rate: float = Field(
        default=0.01, ge=0, le=1, description="share of OK frames kept, drawn by their hash"
    )
    ok_per_day: int = Field(default=500, ge=0, description="most OK frames kept per camera and day")
    batch: int = Field(
        default=256, ge=1, le=1000, description="results archived and committed together, at most"
    )
    batch_s: float = Field(default=10.0, gt=0, description="a batch waits so long for more results, s")
    keep_not_ok_days: int = Field(
        default=365, ge=0, description="days that NotOK images are kept; 0: for ever"
    )
    keep_not_decidable_days: int = Field(
        default=180, ge=0, description="days of NotDecidable images; 0: for ever"
    )
    keep_failed_days: int = Field(default=30, ge=0, description="days of frames that failed; 0: for ever")
    keep_audit_days: int = Field(default=90, ge=0, description="days of audit images; 0: for ever")
    keep_near_threshold_days: int = Field(
        default=90, ge=0, description="days of nearly-NotOK images; 0: for ever"
    )


class Settings(_Section):
    """The whole tree."""

    run: RunSettings = Field(default_factory=RunSettings)
    pack: PackSettings = Field(default_factory=PackSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    triton: TritonSettings = Field(default_factory=TritonSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    archive: ArchiveSettings = Field(default_factory=ArchiveSettings)


@dataclass(frozen=True)
class Loaded:
    """Settings, and per dotted key where its value came from: "default", the file, the variable, or "option"."""

    settings: Settings
    origins: Mapping[str, str]


def load(
    options: Mapping[str, Any] | None = None,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Loaded:
    """Merge all layers.

    Args:
        options: dotted key -> value, from the command line; None values are not given.
        config: TOML file; None: DAPO_CONFIG, or dapo.toml in the working directory if it is there.
        environment: None: the process's own.

    Raises:
        SettingsError: an unknown key (names the nearest known one), a wrong value, or an unreadable file.
    """
    environment = os.environ if environment is None else environment
    known = set(keys())
    values: dict[str, Any] = {}
    origins = dict.fromkeys(known, "default")
    layers = (*_from_file(config, environment), *_from_environment(environment))
    given = tuple((key, value, "option") for key, value in (options or {}).items() if value is not None)
    for key, value, origin in (*layers, *given):
        if key not in known:
            near = nearest(key, known)
            raise SettingsError(
                f"{origin}: unknown setting '{key}'." + (f" Did you mean '{near}'?" if near else "")
            )
        values[key], origins[key] = value, origin
    tree: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, name = key.split(".", 1)
        tree.setdefault(section, {})[name] = value
    try:
        return Loaded(Settings.model_validate(tree), origins)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        found = "" if key in SECRETS else f", found {first['input']!r}"
        raise SettingsError(
            f"{origins.get(key, 'settings')}: {key}: {first['msg'].lower()}{found}."
        ) from error


def keys() -> list[str]:
    """All dotted keys, in the order of the tree."""
    found = []
    for section, definition in Settings.model_fields.items():
        model = definition.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        found += [f"{section}.{name}" for name in model.model_fields]
    return found


def _from_file(config: Path | None, environment: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    named = config or (Path(environment["DAPO_CONFIG"]) if environment.get("DAPO_CONFIG") else None)
    path = named or Path(FILE)
    if named is None and not path.exists():
        return []
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: can't be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid TOML: {error}.") from error
    found = []
    for section, body in document.items():
        if not isinstance(body, Mapping):
            found.append((section, body, str(path)))
            continue
        found += [(f"{section}.{name}", value, str(path)) for name, value in body.items()]
    return found


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    found: list[tuple[str, Any, str]] = []
    for name, value in sorted(environment.items()):
        if name.startswith(PREFIX) and name not in _OTHER:
            key, origin = name[len(PREFIX) :].lower().replace("__", "."), f"environment {name}"
            if key in SECRET_FILES:
                key, value = SECRET_FILES[key], _secret(Path(value), origin)
            if any(key == known for known, _, _ in found):
                raise SettingsError(
                    f"{origin}: {key} is given twice, as it is and as a file. Give one of them."
                )
            found.append((key, value, origin))
    return found


def _secret(path: Path, origin: str) -> str:
    """What a file holds, without the line's end that editors add."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_MAX_SECRET + 1).rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"{origin}: {path}: can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{origin}: {path}: is not UTF-8 text.") from error
    if not text or len(text) > _MAX_SECRET or "\n" in text:
        raise SettingsError(f"{origin}: {path}: expected one line with the secret.")
    return text


def shown(loaded: Loaded) -> list[tuple[str, str, str]]:
    """(key, value, origin) of every setting, secrets masked."""
    rows = []
    for key in keys():
        section, name = key.split(".", 1)
        value = getattr(getattr(loaded.settings, section), name)
        text = "********" if isinstance(value, SecretStr) else "" if value is None else str(value)
        rows.append((key, text, loaded.origins[key]))
    return rows
