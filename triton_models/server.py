"""A running model server under explicit model control: what it serves, and how it is given more."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.utils import InferenceServerException

from triton_models.config import CONFIGURATION_HASH, FIXED, as_json, essence, parameter
from triton_models.connection import TRANSIENT, Address, explained, status, translated
from triton_models.contract import CHALLENGER, ENCODER, ENSEMBLE, HEAD
from triton_models.repository import DeployError, ModelFiles
from triton_models.versions import Versions

_READY, _LOADING = "READY", "LOADING"
_ASK_S = 5.0  # the server only has to look into its memory
_LOAD_S = 600.0  # a large encoder on a busy disk, several versions one after the other


@dataclass(frozen=True)
class Served:
    """What an ensemble serves.

    Attributes:
        configuration_hash: of the pack, as whoever deployed it said. Each answer says it again, by itself.
        versions: of the two models it is pinned to.
        fixed: the versions lie on the server's disk; nothing can be pushed.
    """

    configuration_hash: str
    versions: Versions
    fixed: bool


class ModelServer:
    """A connection for model control. Use as a context manager, or close it.

    All methods raise ServiceUnavailable where the server is away, and RequestRefused where it does not let us.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.client = address.connect()

    def served(self, ensemble: str = ENSEMBLE.name) -> Served | None:
        """What an ensemble serves; None where it is not ready."""
        if (config := self._config(ensemble)) is None:
            return None
        steps = {step.model_name: step.model_version for step in config.ensemble_scheduling.step}
        versions = Versions(steps.get(ENCODER.name, 0), steps.get(HEAD.name, 0))
        return Served(parameter(config, CONFIGURATION_HASH), versions, bool(parameter(config, FIXED)))

    def ensembles(self) -> dict[str, Served]:
        """What each ensemble on this server serves, by name."""
        found = {name: self.served(name) for name in (ENSEMBLE.name, CHALLENGER)}
        return {name: one for name, one in found.items() if one is not None}

    def known(self) -> set[str]:
        """Models in the server's repository, loaded or not."""
        return {model.name for model in self._index()}

    def ready(self, model: str) -> set[int]:
        """Versions of a model that are ready."""
        return {version for name, version in self._ready() if name == model}

    def loading(self) -> bool:
        """Whether something is being loaded right now, by whomever."""
        return any(model.state == _LOADING for model in self._index())

    def has(self, files: ModelFiles) -> bool:
        """Whether the server already serves exactly this: the same versions under the same configuration."""
        if self.ready(files.name) != files.versions:
            return False
        config = self._config(files.name)
        return config is not None and essence(config) == essence(files.config)

    def push(self, files: ModelFiles) -> None:
        """Load a model with exactly these versions. All others of this model are unloaded.

        Raises:
            DeployError: the server can't load it; versions that were ready before still are.
        """
        named = {f"file:{path}": content for path, content in files.files.items()}
        try:
            self.client.load_model(
                files.name, config=as_json(files.config), files=named, client_timeout=_LOAD_S
            )
        except InferenceServerException as error:
            if status(error) in TRANSIENT:
                raise translated(self.address.url, error) from error
            raise DeployError(
                f"model server {self.address.url} can't load {files.name}: {error.message().strip()}"
            ) from error

    def unload(self, model: str) -> None:
        """Take a model away; one that is not there is no error."""
        with explained(self.address.url):
            self.client.unload_model(model, client_timeout=_ASK_S)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ready(self) -> set[tuple[str, int]]:
        return {(model.name, int(model.version)) for model in self._index() if model.state == _READY}

    def _index(self) -> list[Any]:
        with explained(self.address.url):
            return list(self.client.get_model_repository_index(client_timeout=_ASK_S).models)

    def _config(self, model: str) -> pb.ModelConfig | None:
        """A model's configuration, None where it is not ready."""
        try:
            if not self.client.is_model_ready(model, client_timeout=_ASK_S):
                return None
            return self.client.get_model_config(model, client_timeout=_ASK_S).config
        except InferenceServerException as error:
            # It may go between the two questions; Triton answers for an unknown one with either status.
            if status(error) in {"NOT_FOUND", "INVALID_ARGUMENT"}:
                return None
            raise translated(self.address.url, error) from error
