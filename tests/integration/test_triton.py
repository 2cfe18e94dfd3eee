"""A real Triton: packs pushed under load, broken ones, the way back, restarts, silence, TLS, the commands."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dapo.errors import DapoError, ServiceUnavailable
from dapo.pack_io import write_pack
from deploy.native import TritonServer
from pipeline.cli import invoke
from pipeline.triton.breaker import CircuitBreaker
from pipeline.triton.client import NotReady, TritonInfer, UnexpectedPack
from pipeline.triton.reconcile import Reconciler, Sight, State
from pipeline.triton.window import Patience
from tests.integration.triton_packs import bundled, frames, other, prompted, small
from triton_models.config import Placement
from triton_models.connection import Address, RequestRefused
from triton_models.contract import CHALLENGER, ENCODER, HEAD
from triton_models.deploy import deploy
from triton_models.probe import probe
from triton_models.repository import (
    PACK_FILE,
    DeployError,
    ModelFiles,
    ensemble_files,
    model_files,
    write_repository,
    write_skeleton,
)
from triton_models.server import ModelServer
from triton_models.versions import Versions

PACK = small(bundled())
OTHER = other(PACK)
PROMPTED = prompted(PACK)
PLACEMENT = Placement("cpu", threads=1)
PATIENT = Patience(deadline_s=120)
FRAMES = frames(8, PACK.encoder.image_size)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server of this module's own, started on a skeleton."""
    folder = tmp_path_factory.mktemp("triton-own")
    write_skeleton(folder / "models")
    with TritonServer(folder, folder / "models") as server:
        yield server


@pytest.fixture
def control(served: TritonServer) -> Iterator[ModelServer]:
    with ModelServer(Address(served.url)) as opened:
        yield opened


@pytest.fixture
def infer(served: TritonServer) -> Iterator[TritonInfer]:
    made = TritonInfer(PACK, Address(served.url), PATIENT)
    yield made
    made.close()


class Line:
    """A line that never stops asking, under whichever of two packs is served.

    Attributes:
        answers: how many under each pack.
        errors: what must not happen.
    """

    def __init__(self, url: str) -> None:
        self.answers: Counter[str] = Counter()
        self.errors: list[DapoError] = []
        self._clients = [TritonInfer(pack, Address(url), PATIENT) for pack in (PACK, OTHER)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        turn = 0
        while not self._stop.is_set():
            client = self._clients[turn % 2]
            try:
                client.infer(FRAMES[:2], ["*", "one"])
                self.answers[client.pack.configuration_hash] += 1
            except UnexpectedPack:
                turn += 1
            except DapoError as error:
                self.errors.append(error)

    def __enter__(self) -> Line:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENT.deadline_s)
        for client in self._clients:
            client.close()

    def goes_on(self, pack_hash: str) -> bool:
        """Whether it gets further answers under a pack, and still no error."""
        before = self.answers[pack_hash]
        return _eventually(lambda: self.answers[pack_hash] > before + 2) and not self.errors


def _eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    tick = threading.Event()
    return any(condition() or tick.wait(0.05) for _ in range(int(seconds / 0.05)))


def test_packs_come_and_go_without_a_frame_unanswered(served: TritonServer, control: ModelServer) -> None:
    assert deploy(control, PACK, placement=PLACEMENT, replace=True).pushed
    first, second = PACK.configuration_hash, OTHER.configuration_hash
    with Line(served.url) as line:
        assert line.goes_on(first)

        # A second pack keeps the first, and takes only a head where the image side is the same.
        assert deploy(control, OTHER, [PACK], PLACEMENT).pushed == ("dapo_head", "dapo")
        assert control.ready(HEAD.name) == {Versions.of(PACK).head, Versions.of(OTHER).head}
        assert line.goes_on(second), line.errors

        # A pack that is damaged on the server, and one whose model code fails: both kept are served on.
        for name, content in ((PACK_FILE, b"damaged"), ("model.py", b"raise ImportError('no such library')")):
            with pytest.raises(DeployError, match=r"version 5 .*(not a prompt pack|no such library)"):
                _push_broken(control, name, content)
            assert control.ready(HEAD.name) == {Versions.of(PACK).head, Versions.of(OTHER).head}
            assert line.goes_on(second), line.errors

        # Back is only to point.
        assert deploy(control, PACK, [OTHER], PLACEMENT).pushed == ("dapo",)
        assert line.goes_on(first), line.errors
    assert not line.errors


def _push_broken(control: ModelServer, name: str, content: bytes) -> None:
    _, head = model_files([PACK, OTHER], PLACEMENT)
    version = Versions.of(PACK).head
    own = {f"5/{file}": head.files[f"{version}/{file}"] for file in ("model.py", PACK_FILE)}
    control.push(ModelFiles(HEAD.name, head.config, {**head.files, **own, f"5/{name}": content}))


def test_an_ensemble_that_cannot_be_pointed_points_back(
    control: ModelServer, infer: TritonInfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(control, PACK, [OTHER], PLACEMENT)
    wrong, right = ensemble_files(OTHER), ensemble_files(PACK)
    wrong.config.ensemble_scheduling.step[1].model_version = 77
    monkeypatch.setattr(
        "triton_models.deploy.ensemble_files", lambda pack, name: wrong if pack is OTHER else right
    )
    with pytest.raises(DeployError, match="77 is not loaded"):
        deploy(control, OTHER, [PACK], PLACEMENT)
    infer.check()
    assert len(infer.infer(FRAMES, ["*"] * 8)) == 8


def test_heads_and_encoders_of_different_packs_sign_nothing(
    control: ModelServer, served: TritonServer
) -> None:
    deploy(control, PACK, [OTHER], PLACEMENT)
    deploy(control, PROMPTED, [PACK, OTHER], PLACEMENT, ensemble=CHALLENGER)
    assert control.ready(ENCODER.name) == {Versions.of(PACK).encoder, Versions.of(PROMPTED).encoder}
    challenger = TritonInfer(PROMPTED, Address(served.url), PATIENT, ensemble=CHALLENGER)
    assert len(challenger.infer(FRAMES, ["*"] * 8)) == 8
    crossed = ensemble_files(PROMPTED, CHALLENGER)
    crossed.config.ensemble_scheduling.step[0].model_version = Versions.of(PACK).encoder
    control.push(crossed)
    with pytest.raises(UnexpectedPack, match="under pack 0000"):
        challenger.infer(FRAMES, ["*"] * 8)
    challenger.close()


def test_what_only_a_real_server_says(control: ModelServer, served: TritonServer) -> None:
    deploy(control, PACK, [OTHER, PROMPTED], PLACEMENT)
    infer = TritonInfer(PACK, Address(served.url), PATIENT)
    infer._index = {**infer._index, "*": 99}  # a client that numbers products otherwise
    with pytest.raises(RequestRefused, match="product 99"):
        infer.infer(FRAMES, ["*"] * 8)
    with pytest.raises(RequestRefused, match="INVALID_ARGUMENT"):
        infer.infer(np.zeros((1, 32, 32, 3), np.uint8), ["one"])
    absent = TritonInfer(PACK, Address(served.url), PATIENT, ensemble="nobody")
    with pytest.raises(ServiceUnavailable, match="NOT_FOUND"):
        absent.infer(FRAMES, ["*"] * 8)
    with pytest.raises(NotReady):
        absent.check()
    for client in (infer, absent):
        client.close()


def test_the_known_answer_is_what_clients_get(control: ModelServer) -> None:
    """`deploy` ends with it; here again, many times, for what would only go wrong now and then."""
    deploy(control, PACK, [OTHER, PROMPTED], PLACEMENT)
    for _ in range(50):
        probe(control, PACK)


def test_a_server_without_the_skeleton_says_what_it_lacks(tmp_path: Path) -> None:
    with (
        TritonServer(tmp_path) as bare,
        ModelServer(Address(bare.url)) as control,
        pytest.raises(DeployError, match=r"lacks clip_encoder and dapo_head.*dapo triton repository"),
    ):
        deploy(control, PACK)


def test_silence_and_kills_are_outlived(tmp_path: Path) -> None:
    write_skeleton(tmp_path / "models")
    with TritonServer(tmp_path, tmp_path / "models") as server:
        address = Address(server.url)
        stop, both = threading.Event(), [_Sights(), _Sights()]  # as of two workers
        watches = [Reconciler(PACK, [address], placement=PLACEMENT) for _ in both]
        threads = [
            threading.Thread(target=watch.run, args=(stop, 0.2, sights))
            for watch, sights in zip(watches, both, strict=True)
        ]
        for thread in threads:
            thread.start()
        assert all(sights.wait(State.SERVES) for sights in both)
        infer = TritonInfer(PACK, address, Patience(deadline_s=20), CircuitBreaker(pause_s=0.2), shared=True)
        known = infer.infer(FRAMES, ["*"] * 8)

        server.pause()
        impatient = TritonInfer(PACK, address, Patience(deadline_s=1))
        with pytest.raises(ServiceUnavailable, match="DEADLINE_EXCEEDED"):
            impatient.infer(FRAMES, ["*"] * 8)
        server.resume()
        assert len(impatient.infer(FRAMES[:1], ["*"])) == 1
        impatient.close()

        server.kill()
        with pytest.raises(ServiceUnavailable):
            infer.infer(FRAMES, ["*"] * 8)
        with pytest.raises(ServiceUnavailable):
            infer.check()
        for sights in both:
            sights.forget()
        server.start()
        assert all(sights.wait(State.SERVES) for sights in both)
        assert not any(State.FAILED in sights.states for sights in both)
        again = _patiently(lambda: infer.infer(FRAMES, ["*"] * 8))
        assert [one.map.tobytes() for one in again] == [one.map.tobytes() for one in known]
        infer.close()
        stop.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()


def _patiently(call: Callable[[], list]) -> list:
    found: list = []

    def answered() -> bool:
        try:
            found[:] = call()
        except ServiceUnavailable:
            return False
        return True

    assert _eventually(answered)
    return found


class _Sights:
    """What a reconciler told."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.states: list[State] = []

    def __call__(self, address: Address, sight: Sight) -> None:
        with self._changed:
            self.states.append(sight.state)
            self._changed.notify_all()

    def forget(self) -> None:
        with self._changed:
            self.states.clear()

    def wait(self, state: State) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: state in self.states, 180)


def test_a_fixed_repository_starts_by_itself_and_takes_no_push(tmp_path: Path) -> None:
    """Also: Triton takes every config.pbtxt as it is written."""
    write_repository(tmp_path / "models", OTHER, [PACK], PLACEMENT)
    with TritonServer(tmp_path, tmp_path / "models", load_models=["dapo"]) as server:
        infer = TritonInfer(OTHER, Address(server.url), PATIENT)
        infer.check()
        assert len(infer.infer(FRAMES, ["few"] * 8)) == 8
        infer.close()
        with ModelServer(Address(server.url)) as control:
            for model in (*model_files([OTHER, PACK], PLACEMENT), ensemble_files(OTHER, fixed=True)):
                assert control.has(model), f"Triton reads {model.name} otherwise than it is written"
            with pytest.raises(DeployError, match="fixed versions"):
                deploy(control, PACK, [OTHER], PLACEMENT)
        log = server.log.read_text(errors="replace")
    assert "as_numpy" not in log


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a server's and a client's certificate by it; and an authority that nobody knows."""
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for name in ("ca", "stranger"):
        own = ["-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "2", "-subj", f"/CN={name}"]
        subprocess.run(["openssl", "req", "-x509", *key, *own], cwd=folder, check=True, capture_output=True)
    for name in ("server", "client"):
        own = ["-keyout", f"{name}.key", "-out", "request", "-subj", f"/CN={name}"]
        subprocess.run(["openssl", "req", *key, *own], cwd=folder, check=True, capture_output=True)
        signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
        sign = ["openssl", "x509", "-req", "-in", "request", *signed, "-out", f"{name}.crt"]
        subprocess.run(sign, cwd=folder, check=True, capture_output=True)
    return folder


def test_tls_lets_in_whom_it_knows(tmp_path: Path, certificates: Path) -> None:
    files = {
        name: certificates / name
        for name in ("ca.crt", "stranger.crt", "client.crt", "client.key", "server.crt")
    }
    arguments = [
        "--grpc-use-ssl=true",
        "--grpc-use-ssl-mutual=true",
        f"--grpc-server-cert={files['server.crt']}",
        f"--grpc-server-key={certificates / 'server.key'}",
        f"--grpc-root-cert={files['ca.crt']}",
    ]
    with TritonServer(tmp_path, arguments=arguments) as server:
        client = {"certificate": files["client.crt"], "key": files["client.key"]}
        with ModelServer(Address(server.url, ca=files["ca.crt"], **client)) as known:
            assert known.served() is None
            assert known.ready(HEAD.name) == set()
        strangers = {
            "a server by an authority we do not know": Address(
                server.url, ca=files["stranger.crt"], **client
            ),
            "a client without a certificate": Address(server.url, ca=files["ca.crt"]),
            "no TLS": Address(server.url),
        }
        for address in strangers.values():
            infer = TritonInfer(PACK, address, Patience(deadline_s=2))
            with pytest.raises(ServiceUnavailable):
                infer.infer(FRAMES, ["*"] * 8)
            infer.close()


def test_the_commands_do_the_same(
    served: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, pack in (("a.pack", PACK), ("b.pack", OTHER), ("c.pack", PROMPTED)):
        write_pack(pack, tmp_path / name)
    a, b, c = (str(tmp_path / f"{name}.pack") for name in "abc")
    url, where = ["--url", served.url], ["--device", "cpu", "--threads", "1"]
    assert invoke(["triton", "deploy", a, *url, *where, "--keep", b, "--keep", c]) == 0
    assert invoke(["triton", "status", a, *url]) == 0
    assert "serves the pack" in capsys.readouterr().out
    assert invoke(["triton", "status", b, *url, "--url", "127.0.0.1:9"]) == 1
    said = capsys.readouterr().out
    assert f"serves pack {PACK.configuration_hash}" in said
    assert "does not answer" in said
    assert invoke(["triton", "deploy", b, *url, *where]) == 1
    assert "--keep" in capsys.readouterr().err
    assert invoke(["triton", "deploy", b, *url, *where, "--keep", a, "--keep", c]) == 0
    assert f"serves {OTHER.configuration_hash} (pushed dapo)" in capsys.readouterr().out
