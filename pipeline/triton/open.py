"""A model server as the settings name it, ready to be asked, and kept at the pack for as long as it is used."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dapo.errors import ServiceUnavailable, SettingsError
from dapo.inspection import Prediction
from dapo.pack import Pack
from pipeline.settings import TritonSettings
from pipeline.triton.client import TritonInfer
from pipeline.triton.reconcile import Reconciler, Sight, State
from pipeline.triton.window import Patience
from triton_models.config import Placement
from triton_models.connection import Address

_LOG = logging.getLogger(__name__)


def address_of(settings: TritonSettings, url: str = "") -> Address:
    """Where a server is and how it is spoken to; `url` instead of the settings' own."""
    return Address(
        url or settings.url,
        tls=settings.tls,
        ca=settings.ssl_cafile,
        certificate=settings.ssl_certfile,
        key=settings.ssl_keyfile,
    )


def placement_of(settings: TritonSettings) -> Placement:
    """Where and how a pushed pack runs on the server.

    Raises:
        SettingsError: a GPU is no number.
    """
    if wrong := [name for name in settings.gpus if not name.isdigit()]:
        raise SettingsError(
            f'triton.gpus: \'{wrong[0]}\' is no number of a GPU. Example: triton.gpus = ["0", "1"].'
        )
    return Placement(
        settings.device,
        tuple(int(name) for name in settings.gpus),
        settings.instances,
        settings.threads,
        settings.runtime,
        settings.weights_folder,
    )


def open_triton(
    settings: TritonSettings, pack: Pack, wanted: Callable[[], bool] = lambda: True
) -> WatchedInfer:
    """The Infer port on the server that the settings name. A server that serves nothing is given the pack first.

    Args:
        wanted: asked before a server that lost the pack is given it again: whether it is still the one to serve.

    Raises:
        ServiceUnavailable: the server is away, or serves another pack. Trying again later may help.
        SettingsError, ContractError: see `TritonInfer`.
    """
    address = address_of(settings)
    patience = Patience(settings.deadline_s, window=settings.window)
    infer = TritonInfer(pack, address, patience, shared=settings.shared_memory)
    reconciler = Reconciler(pack, [address], placement=placement_of(settings))
    try:
        found = reconciler.mend(address)
        if found.state is State.FAILED:
            raise ServiceUnavailable(found.why)  # the server's own trouble, which its keepers can mend
        infer.check()
    except BaseException:
        infer.close()
        raise
    return WatchedInfer(infer, reconciler, wanted)


class WatchedInfer:
    """A `TritonInfer` whose server is looked after in the background."""

    def __init__(self, infer: TritonInfer, reconciler: Reconciler, wanted: Callable[[], bool]) -> None:
        self._infer = infer
        self.image_size = infer.image_size
        self.pack = infer.pack
        self._stop = threading.Event()
        # A daemon: a push under way must not hold up the end of the process. The next one finishes it.
        self._thread = threading.Thread(
            target=reconciler.run,
            args=(self._stop,),
            kwargs={"tell": _told, "may": wanted},
            name="triton-watch",
            daemon=True,
        )
        self._thread.start()

    def infer(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]:
        """See `TritonInfer.infer`."""
        return self._infer.infer(images, products)

    def close(self) -> None:
        """Stop looking after the server, and close the connection."""
        self._stop.set()
        self._infer.close()


def _told(address: Address, sight: Sight) -> None:
    level = logging.INFO if sight.state is State.SERVES else logging.WARNING
    _LOG.log(level, "model server %s %s %s", address.url, sight.state, sight.why)
