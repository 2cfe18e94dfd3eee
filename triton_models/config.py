"""config.pbtxt of each model, made from the contract: as text for a repository on disk, as JSON for a push."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb

from triton_models.contract import ENCODER, ENSEMBLE, HEAD, MAX_BATCH, Model, Sizes, Tensor
from triton_models.versions import Versions

# A frame waits at most so long for others to share its run; small beside the 10 ms and more of the encoder.
QUEUE_DELAY_US = 1000
# Names of the parameters that model code reads.
THREADS = "threads"
RUNTIME = "runtime"
WEIGHTS_FOLDER = "weights_folder"
PLACEMENT = "placement"
CONFIGURATION_HASH = "configuration_hash"
FIXED = "fixed"  # set in a repository that holds its versions on disk


Device = Literal["auto", "cpu", "gpu"]
Runtime = Literal["auto", "torch", "openvino"]  # as dapo.runtime, which needs torch; this file does not
_KINDS = {
    "auto": pb.ModelInstanceGroup.KIND_AUTO,
    "cpu": pb.ModelInstanceGroup.KIND_CPU,
    "gpu": pb.ModelInstanceGroup.KIND_GPU,
}


@dataclass(frozen=True)
class Placement:
    """Where and how the models run on a server.

    Attributes:
        device: "auto" takes the GPUs where the server has some.
        gpus: their numbers; none: all.
        instances: copies of the encoder (per GPU), each a process with its own weights.
        threads: of each copy on a CPU; None: one per core.
        runtime: who runs the encoder; see `dapo.runtime.open_run`.
        weights_folder: folder on the server with weights named <sha256>.safetensors (or .pt), as packs name them;
            none: only bundled encoders are found.
    """

    device: Device = "auto"
    gpus: tuple[int, ...] = ()
    instances: int = 1
    threads: int | None = None
    runtime: Runtime = "auto"
    weights_folder: str = ""

    def parameters(self) -> dict[str, str]:
        """As model code and the next deployment read it."""
        where = f"{self.device} {','.join(map(str, self.gpus))}".strip()
        return {
            PLACEMENT: f"{where} x{self.instances}",
            THREADS: str(self.threads or ""),
            RUNTIME: "" if self.runtime == "auto" else self.runtime,
            WEIGHTS_FOLDER: self.weights_folder,
        }


def encoder_config(sizes: Sizes, placement: Placement) -> pb.ModelConfig:
    """Configuration of `clip_encoder`."""
    return _backend_config(ENCODER, sizes, placement)


def head_config(sizes: Sizes, placement: Placement) -> pb.ModelConfig:
    """Configuration of `dapo_head`. It takes a millisecond a frame of one thread: one copy serves many encoders."""
    return _backend_config(HEAD, sizes, replace(placement, instances=1, threads=1))


def ensemble_config(
    sizes: Sizes, versions: Versions, configuration_hash: str, name: str, *, fixed: bool = False
) -> pb.ModelConfig:
    """Configuration of the ensemble, each step pinned to one version: a push moves no client by itself.

    Args:
        configuration_hash: of the pack that these versions are, for whoever asks what is served.
        name: "dapo", or of a second ensemble over the same models (a challenger).
        fixed: the server's repository holds the versions on disk: nothing can be pushed to it.
    """
    config = pb.ModelConfig(name=name, platform="ensemble", max_batch_size=MAX_BATCH)
    _tensors(config, ENSEMBLE, sizes)
    for model, version in ((ENCODER, versions.encoder), (HEAD, versions.head)):
        step = config.ensemble_scheduling.step.add(model_name=model.name, model_version=version)
        step.input_map.update({tensor.name: tensor.name for tensor in model.inputs})
        step.output_map.update({tensor.name: tensor.name for tensor in model.outputs})
    _parameters(config, {CONFIGURATION_HASH: configuration_hash, FIXED: "yes" if fixed else ""})
    return config


def skeleton_config(model: Model) -> pb.ModelConfig:
    """Configuration of a model whose versions are pushed later; see `triton_models.repository`."""
    return pb.ModelConfig(name=model.name, backend="python", max_batch_size=MAX_BATCH)


def as_text(config: pb.ModelConfig) -> str:
    """The content of config.pbtxt."""
    return str(text_format.MessageToString(config))


def as_json(config: pb.ModelConfig) -> str:
    """The same for `load_model`, which takes JSON."""
    return str(json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None))


def essence(config: pb.ModelConfig) -> tuple[object, ...]:
    """What two configurations have in common when they do the same: a server fills in what it was not told."""
    tensors = [
        (tensor.name, tensor.data_type, list(tensor.dims)) for tensor in (*config.input, *config.output)
    ]
    steps = [(step.model_name, step.model_version) for step in config.ensemble_scheduling.step]
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    return config.max_batch_size, tensors, steps, parameters


def parameter(config: pb.ModelConfig, name: str) -> str:
    """A parameter of a configuration; empty where it is not set."""
    return str(config.parameters[name].string_value) if name in config.parameters else ""


def _backend_config(model: Model, sizes: Sizes, placement: Placement) -> pb.ModelConfig:
    config = pb.ModelConfig(name=model.name, backend="python", max_batch_size=MAX_BATCH)
    _tensors(config, model, sizes)
    # No default_queue_policy: with one, Triton 2.51 lets a quarter of all requests stall. Clients bound what they send.
    config.dynamic_batching.max_queue_delay_microseconds = QUEUE_DELAY_US
    # All versions that a push carries stay loaded; which one is asked is the ensemble's matter.
    config.version_policy.all.SetInParent()
    config.instance_group.add(count=placement.instances, kind=_KINDS[placement.device], gpus=placement.gpus)
    # The first run allocates and compiles: not at a frame's expense. It must pass for the version to become ready.
    warm_up = config.model_warmup.add(name="zeros", batch_size=1)
    for tensor in model.inputs:
        dims = [1 if dim == -1 else dim for dim in sizes.dims(tensor)]
        warm_up.inputs[tensor.name].data_type = pb.DataType.Value(f"TYPE_{tensor.dtype}")
        warm_up.inputs[tensor.name].dims.extend(dims)
        warm_up.inputs[tensor.name].zero_data = True
    _parameters(config, placement.parameters())
    return config


def _tensors(config: pb.ModelConfig, model: Model, sizes: Sizes) -> None:
    for fields, tensors in ((config.input, model.inputs), (config.output, model.outputs)):
        for tensor in tensors:
            fields.add(**_described(tensor, sizes))


def _described(tensor: Tensor, sizes: Sizes) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "data_type": pb.DataType.Value(f"TYPE_{tensor.dtype}"),
        "dims": sizes.dims(tensor),
    }


def _parameters(config: pb.ModelConfig, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        if value:
            config.parameters[name].string_value = value
