"""A model server in this process, for tests: Triton's gRPC protocol over the very model code, with trouble on demand.

    with FakeTriton(small_encoder()) as triton:
        with ModelServer(Address(triton.url)) as server:
            deploy(server, pack)
        triton.refuse("UNAVAILABLE")       # the next request
        triton.forget()                    # as a restart does

It behaves as Triton 2.51 was seen to: a push replaces all versions of a model, a version that can't be loaded fails
the push and leaves the others, an ensemble that can't be loaded is gone.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import grpc
import numpy as np
import torch
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from dapo.encoder import Encoder
from dapo.errors import DapoError
from dapo.pack import Pack
from dapo.pack_io import unpack
from dapo.predictor import Head, ImageSide
from triton_models.contract import ENCODER, HEAD
from triton_models.encode import Encode
from triton_models.predict import Predict
from triton_models.repository import PACK_FILE
from triton_models.settings import Unanswerable


def stub(*, broken: bool = False) -> ModuleType:
    """What model code imports inside Triton as `triton_python_backend_utils`.

    Args:
        broken: values change on their way through, as they do in a stub that does not fit.
    """

    class Tensor:
        def __init__(self, name: str, values: torch.Tensor) -> None:
            self._name, self._values = name, values

        def name(self) -> str:
            return self._name

        def to_dlpack(self) -> Any:
            return (torch.zeros_like(self._values) if broken else self._values).__dlpack__()

        @staticmethod
        def from_dlpack(name: str, values: torch.Tensor) -> Tensor:
            assert values.is_contiguous(), "Triton's stub takes tensors in C order only"
            return Tensor(name, values)

    class TritonError:
        INVALID_ARG = "INVALID_ARGUMENT"

        def __init__(self, message: str, code: str) -> None:
            self.message, self.code = message, code

    class InferenceResponse:
        def __init__(self, output_tensors: list[Tensor], error: TritonError | None = None) -> None:
            self.output_tensors, self.error = output_tensors, error

    class Request:
        def __init__(self, tensors: list[Tensor]) -> None:
            self.tensors = tensors

    module = ModuleType("triton_python_backend_utils")
    module.__dict__.update(
        Tensor=Tensor,
        TritonError=TritonError,
        InferenceResponse=InferenceResponse,
        Request=Request,
        get_input_tensor_by_name=lambda request, name: next(t for t in request.tensors if t.name() == name),
    )
    return module


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # made by grpc's generator
    """Serves what is pushed to it.

    Args:
        encoder: of all packs that are pushed.

    Attributes:
        url: host:port.
        alter: changes an ensemble's answer before it is sent.
        models: name -> version -> what answers for it.
        configs: name -> configuration it was loaded with.
        repository: models that are there on disk, without a version.
        regions: shared memory that clients registered, by name.
        states: model -> state in the index, instead of READY.
        broken: nothing can be loaded.
        asked: frames of each request to an ensemble.
        pushes: models that were loaded, in order.
        at_once: most requests that were under way at the same time.
        hold: while cleared, requests to an ensemble wait.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.models: dict[str, dict[int, Any]] = {}
        self.repository = {ENCODER.name, HEAD.name}
        self.configs: dict[str, Any] = {}
        self._troubles: deque[str] = deque()
        self._lock = threading.Lock()
        self._under_way = 0
        self.states: dict[str, str] = {}
        self.regions: dict[str, Path] = {}
        self.broken = False
        self.asked: list[int] = []
        self.pushes: list[str] = []
        self.at_once = 0
        self.alter: Callable[[dict[str, torch.Tensor]], None] = lambda answer: None
        self.hold = threading.Event()
        self.hold.set()
        self._server = self._serve("127.0.0.1:0")
        self.url = f"127.0.0.1:{self._port}"

    def _serve(self, address: str) -> Any:
        server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, server)
        self._port = server.add_insecure_port(address)
        server.start()
        return server

    def refuse(self, status: str, times: int = 1) -> None:
        """Let the next requests to an ensemble fail with a gRPC status ("UNAVAILABLE")."""
        self._troubles.extend([status] * times)

    def forget(self) -> None:
        """Lose everything that was pushed."""
        self.models.clear()
        self.configs.clear()
        self.regions.clear()

    def stop(self) -> None:
        """Go away."""
        self.hold.set()
        self._server.stop(0).wait()

    def start(self) -> None:
        """Come back, on the same port, as empty as a restarted server."""
        self.forget()
        self._server = self._serve(self.url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # The protocol; names are Triton's.

    def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        """States of all versions."""
        answer = service_pb2.RepositoryIndexResponse()
        for name, versions in self.models.items():
            for version in versions:
                answer.models.add(name=name, version=str(version), state=self.states.get(name, "READY"))
        for name in (self.repository | self.states.keys()) - self.models.keys():
            answer.models.add(
                name=name, version="1" if name in self.states else "", state=self.states.get(name, "")
            )
        return answer

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether a model is there."""
        return service_pb2.ModelReadyResponse(ready=bool(self.models.get(request.name)))

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Its configuration."""
        if request.name not in self.configs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {request.name}")
        return service_pb2.ModelConfigResponse(config=self.configs[request.name])

    def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take a region of this host's memory."""
        if request.name in self.regions:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"region '{request.name}' already in manager")
        self.regions[request.name] = Path("/dev/shm") / request.key.lstrip("/")
        return service_pb2.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Forget it."""
        self.regions.pop(request.name, None)
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Load a model with the versions of its files, or fail and leave it as it was."""
        name = request.model_name
        config = model_config_pb2.ModelConfig()
        json_format.ParseDict(json.loads(request.parameters["config"].string_param), config)
        files = {
            path.removeprefix("file:"): value.bytes_param
            for path, value in request.parameters.items()
            if path.startswith("file:")
        }
        if self.broken:
            context.abort(grpc.StatusCode.INTERNAL, "out of disk")
        self.pushes.append(name)
        steps = {step.model_name: step.model_version for step in config.ensemble_scheduling.step}
        if steps:
            self.models.pop(name, None)
            for model, version in steps.items():
                if version not in self.models.get(model, {}):
                    context.abort(
                        grpc.StatusCode.INVALID_ARGUMENT, f"{model} version {version} is not loaded"
                    )
            self.models[name] = {1: steps}
        else:
            try:
                self.models[name] = {
                    int(path.partition("/")[0]): self._load(name, content)
                    for path, content in files.items()
                    if path.endswith(PACK_FILE)
                }
            except DapoError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"load failed: {error}")
        self.configs[name] = config
        return service_pb2.RepositoryModelLoadResponse()

    def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take a model away."""
        self.models.pop(request.model_name, None)
        self.configs.pop(request.model_name, None)
        return service_pb2.RepositoryModelUnloadResponse()

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer, after whatever trouble was asked for."""
        if request.model_name in (ENCODER.name, HEAD.name):
            model = self.models[request.model_name][int(request.model_version)]
            return self._answer(request, model(self._inputs(request, context)))
        with self._lock:
            self.asked.append(request.inputs[0].shape[0])
            self._under_way += 1
            self.at_once = max(self.at_once, self._under_way)
            trouble = self._troubles.popleft() if self._troubles else None
        try:
            self.hold.wait()
            if trouble is not None:
                context.abort(getattr(grpc.StatusCode, trouble), "trouble that a test asked for")
            if request.model_name not in self.models:
                context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {request.model_name}")
            steps = self.models[request.model_name][1]
            tensors = self._inputs(request, context)
            tensors |= self.models[ENCODER.name][steps[ENCODER.name]](tensors)
            found = self.models[HEAD.name][steps[HEAD.name]](tensors)
            self.alter(found)
            return self._answer(request, found)
        except Unanswerable as error:
            return context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            with self._lock:
                self._under_way -= 1

    def _load(
        self, name: str, content: bytes
    ) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
        pack: Pack = unpack(content)
        if name == ENCODER.name:
            return Encode(ImageSide(pack, encoder=self._encoder), pack.features_hash)
        return Predict(Head(pack))

    def _answer(self, request: Any, found: dict[str, torch.Tensor]) -> Any:
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, tensor in found.items():
            array = tensor.contiguous().numpy()
            answer.outputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
            answer.raw_output_contents.append(array.tobytes())
        return answer

    def _inputs(self, request: Any, context: Any) -> dict[str, torch.Tensor]:
        found = {}
        contents = iter(request.raw_input_contents)
        for tensor in request.inputs:
            region = tensor.parameters["shared_memory_region"].string_param
            if not region:
                raw = next(contents)
            elif region in self.regions:
                offset = tensor.parameters["shared_memory_offset"].int64_param
                size = tensor.parameters["shared_memory_byte_size"].int64_param
                raw = self.regions[region].read_bytes()[offset : offset + size]
            else:
                context.abort(grpc.StatusCode.NOT_FOUND, f"Unable to find shared memory region: '{region}'")
            array = np.frombuffer(raw, triton_to_np_dtype(tensor.datatype)).reshape(tensor.shape)
            found[tensor.name] = torch.from_numpy(array.copy())
        return found
