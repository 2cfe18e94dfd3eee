"""An Infer that answers with the registry's champion, whichever that is; it moves to another between two calls.

    background      a look at the pointers each second -> read the new champion -> prepare a model for it
    caller          swap, between two calls

A model server that answers under another pack is on its way to a new champion: then the pointers are looked at at once, and
the call is asked again under it. So frames wait from the server's switch until the pointer has moved, and none is lost.

A champion that can't be taken (damaged, of another image size, a type without a topic, not on the server) is left
alone: the pack before goes on, it is logged and told, and it is tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dapo.errors import DapoError
from dapo.inspection import Prediction
from dapo.pack import Pack
from pipeline.ports import Infer
from pipeline.registry.registry import Registry
from pipeline.triton.client import UnexpectedPack

_LOG = logging.getLogger(__name__)
_PERIOD_S = 1.0  # between two looks at the pointers: one request without a body
_AGAIN = 5  # a champion that could not be taken is tried again after so many of these
# A server that has switched: the pointer follows within moments. So long it is looked at again and again.
_PATIENCE_S = 2.0
_POKE_S = 0.1
_JOIN_S = 1.0  # a model that is being prepared then is closed by the thread itself, or ends with the process


class FollowingInfer:
    """See `pipeline.ports.Infer`.

    Args:
        registry: whose champion is followed.
        prepare: makes a pack ready to be asked: everything that judging with it needs. Called in the background, but for
            the first pack.
        switched: told of the pack that came in force; from the caller's thread.
        behind: told whether the champion could not be taken; from the background.
        period_s: between two looks at the pointers.

    Raises:
        RegistryError, PackError: there is no champion, or it is damaged.
        DapoError: what `prepare` raises of it.
    """

    def __init__(
        self,
        registry: Registry,
        prepare: Callable[[Pack], Infer],
        *,
        switched: Callable[[Pack], None] = lambda pack: None,
        behind: Callable[[bool], None] = lambda behind: None,
        period_s: float = _PERIOD_S,
    ) -> None:
        self._registry, self._prepare = registry, prepare
        self._switched, self._behind, self._period_s = switched, behind, period_s
        self._etag = registry.etag()  # of the pointers that this one stands by
        self._pack = registry.champion()
        self._infer = prepare(self._pack)
        self.image_size = self._infer.image_size
        self._next: tuple[Pack, Infer] | None = None
        self._change = threading.Condition()  # guards pack, model and what is next
        self._wake, self._stop = threading.Event(), threading.Event()
        self._said = self._unread = ""  # what is in the log already
        switched(self._pack)
        self._thread = threading.Thread(target=self._follow, name="follow-champion", daemon=True)
        self._thread.start()

    @property
    def pack(self) -> Pack:
        """See `pipeline.ports.Infer`."""
        return self._pack

    def infer(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]:
        """See `pipeline.ports.Infer`. A new champion that is ready comes in force before it is asked.

        Raises:
            UnexpectedPack: the server answers under a pack that the pointers do not say, or not yet.
            DapoError: as the model that is asked.
        """
        self._swap()
        try:
            return self._infer.infer(images, products)
        except UnexpectedPack:
            if not self._followed():
                raise
        return self._infer.infer(images, products)

    def close(self) -> None:
        """Stop looking, and close what was opened."""
        self._stop.set()
        self._wake.set()
        with self._change:
            held = [self._infer, *([self._next[1]] if self._next else [])]
            self._next = None
        for one in held:
            one.close()
        self._thread.join(_JOIN_S)

    def _followed(self) -> bool:
        """Look at once, for a while; whether another pack came in force by that."""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until and not self._stop.is_set():
            self._wake.set()
            with self._change:
                self._change.wait_for(lambda: self._next is not None, _POKE_S)
            if self._swap():
                return True
        return False

    def _swap(self) -> bool:
        with self._change:
            if self._next is None:
                return False
            old, (self._pack, self._infer) = self._infer, self._next
            self._next = None
        old.close()
        _LOG.info("champion %s is in force", self._pack.configuration_hash)
        self._switched(self._pack)
        return True

    def _follow(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self._period_s * (_AGAIN if self._said else 1))
            self._wake.clear()
            if self._stop.is_set():
                return
            try:
                self._look()
                self._unread = ""
            except DapoError as error:
                if str(error) != self._unread:
                    self._unread = str(error)
                    _LOG.warning(
                        "the registry can't be looked at, %s goes on: %s",
                        self._pack.configuration_hash,
                        error,
                    )
            except Exception:  # the thread must live: without it no champion would come in force any more
                _LOG.exception("following the champion")

    def _look(self) -> None:
        """Compare with the pointers, and prepare what they say."""
        etag = self._registry.etag()
        if etag == self._etag:
            return
        wanted = self._registry.pointers().champion
        if self._stands_by(wanted):
            self._settle(etag)
            return
        assert wanted is not None
        try:
            pack = self._registry.pack(wanted)
            if pack.encoder.image_size != self.image_size:
                raise DapoError(
                    f"it is for images of {pack.encoder.image_size} px, this worker runs at {self.image_size}: restart it."
                )
            ready = self._prepare(pack)
        except Exception as error:  # whatever it is: the pack before goes on
            self._refuse(wanted, error)
            return
        with self._change:
            if self._stop.is_set():
                dropped: tuple[Pack, Infer] | None = (pack, ready)
            else:
                dropped, self._next = self._next, (pack, ready)
            self._change.notify_all()
        if dropped is not None:
            dropped[1].close()
        self._settle(etag)

    def _stands_by(self, wanted: str | None) -> bool:
        """Whether nothing is to be prepared; what is prepared and not wanted any more is let go."""
        dropped: tuple[Pack, Infer] | None = None
        with self._change:
            if wanted in (None, self._pack.configuration_hash):
                dropped, self._next = self._next, None
                done = True
            else:
                done = self._next is not None and self._next[0].configuration_hash == wanted
        if dropped is not None:
            dropped[1].close()
        return done

    def _settle(self, etag: str) -> None:
        self._etag, self._said = etag, ""
        self._behind(False)

    def _refuse(self, wanted: str, error: Exception) -> None:
        said = f"{wanted}: {error!r}"
        if said != self._said:
            self._said = said
            _LOG.error(
                "champion %s can't be taken, %s goes on: %s",
                wanted,
                self._pack.configuration_hash,
                error,
                exc_info=None if isinstance(error, DapoError) else error,
            )
        self._behind(True)
