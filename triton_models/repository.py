"""The files of the models: for a push, and as a repository on disk for a server's start.

A server that takes pushes starts on a *skeleton*: the folders `clip_encoder` and `dapo_head` with a config.pbtxt and no
version. Both halves of that matter (Triton 2.51, run): to load an ensemble it looks its models up on disk, and refuses
where they are not there; and it loads again from disk what it finds there, in the place of what was pushed. With no
version to be found it keeps what was pushed.

A server that nobody pushes to can start on a *fixed* repository instead, which holds its versions.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from dapo.errors import DapoError
from dapo.pack import Pack
from dapo.pack_io import pack_bytes
from triton_models.config import (
    Placement,
    as_text,
    encoder_config,
    ensemble_config,
    head_config,
    skeleton_config,
)
from triton_models.contract import ENCODER, ENSEMBLE, HEAD, Sizes, check
from triton_models.versions import Versions

PACK_FILE = "prompts.pack"
ENSEMBLE_VERSION = 1  # an ensemble has no files of its own: what changes is its configuration
_CODE = "model.py"
_CONFIG = "config.pbtxt"


class DeployError(DapoError):
    """A pack can't be put on a model server as asked; what was served before is served still."""


@dataclass(frozen=True)
class ModelFiles:
    """One model as a server takes it.

    Attributes:
        name: of the model.
        config: its configuration.
        files: "<version>/<file>" -> content.
    """

    name: str
    config: pb.ModelConfig
    files: dict[str, bytes]

    @property
    def versions(self) -> set[int]:
        """Versions that the files are of."""
        return {int(path.partition("/")[0]) for path in self.files}


def model_files(packs: Sequence[Pack], placement: Placement) -> tuple[ModelFiles, ModelFiles]:
    """Both models with a version for each pack.

    Raises:
        ContractError: a pack asks for more than the contract carries.
        DeployError: the packs differ in image size, grid or width: one server can't keep them side by side.
    """
    sizes = {Sizes.of(pack) for pack in packs}
    if len(sizes) != 1:
        named = "; ".join(f"{pack.configuration_hash[:12]}: {Sizes.of(pack)}" for pack in packs)
        raise DeployError(
            f"packs for different sizes can't be kept side by side on one server ({named}). "
            "Leave out the older ones, or give the new one a server of its own."
        )
    [common] = sizes
    encoder: dict[str, bytes] = {}
    head: dict[str, bytes] = {}
    for pack in packs:
        check(pack)
        versions, content = Versions.of(pack), pack_bytes(pack)
        # Any pack of this image side will do for the encoder; the first one stays.
        encoder.setdefault(f"{versions.encoder}/{PACK_FILE}", content)
        encoder[f"{versions.encoder}/{_CODE}"] = _code(ENCODER.name)
        head[f"{versions.head}/{PACK_FILE}"] = content
        head[f"{versions.head}/{_CODE}"] = _code(HEAD.name)
    return (
        ModelFiles(ENCODER.name, encoder_config(common, placement), encoder),
        ModelFiles(HEAD.name, head_config(common, placement), head),
    )


def ensemble_files(pack: Pack, name: str = ENSEMBLE.name, *, fixed: bool = False) -> ModelFiles:
    """The ensemble that serves a pack. Triton wants a folder for its version: one file that nobody reads makes it."""
    config = ensemble_config(Sizes.of(pack), Versions.of(pack), pack.configuration_hash, name, fixed=fixed)
    return ModelFiles(
        name, config, {f"{ENSEMBLE_VERSION}/configuration_hash": pack.configuration_hash.encode()}
    )


def write_skeleton(folder: Path) -> None:
    """A repository to push to. Writing it again changes nothing, also under a server that runs on it.

    Raises:
        DeployError: the folder can't be written.
    """
    try:
        for model in (ENCODER, HEAD):
            (folder / model.name).mkdir(parents=True, exist_ok=True)
            (folder / model.name / _CONFIG).write_text(as_text(skeleton_config(model)), encoding="utf-8")
    except OSError as error:
        raise DeployError(f"{error.filename}: can't be written: {error.strerror}.") from error


def write_repository(
    folder: Path, pack: Pack, keep: Sequence[Pack] = (), placement: Placement = Placement()
) -> None:
    """A fixed repository, whole or not at all: a server started on it with `--load-model=dapo` serves `pack`.

    Args:
        folder: must not exist, or be empty.
        keep: further packs, as versions.

    Raises:
        DeployError: the folder holds something, or can't be written.
        ContractError: see `model_files`.
    """
    models = (*model_files([pack, *keep], placement), ensemble_files(pack, fixed=True))
    partial = None
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DeployError(f"{folder}: is not an empty folder. Give another one, or remove what is in it.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        for model in models:
            for path, content in model.files.items():
                target = partial / model.name / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            (partial / model.name / _CONFIG).write_text(as_text(model.config), encoding="utf-8")
        partial.chmod(0o755)  # mkdtemp's are for their maker alone; the server may be another user
        partial.replace(folder)
    except OSError as error:
        raise DeployError(f"{folder}: can't be written: {error.strerror}.") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)  # not there any more where all went well


def _code(model: str) -> bytes:
    return (Path(__file__).parent / model / _CODE).read_bytes()
