"""Prompt packs in a bucket: immutable packs, and the pointers that say which of them is in force.

    prompts/packs/<configuration hash>.pack           written once; checked against its hash whenever it is read
    prompts/pointers.json                             moved by compare-and-set
    prompts/audit/<utc time>-<start of hash>.json     one line for each move of a pointer
    prompts/gates/<champion>-<challenger>.json        what the gate said of the two
    prompts/tests/<hash of test set>.json             how often a test set has decided
    prompts/retuning.json                             who is retuning

No object is written over blindly: whoever comes second is told, reads again and decides again.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dapo.errors import PackError
from dapo.pack import Pack
from dapo.pack_io import MAX_BYTES as MAX_PACK
from dapo.pack_io import SUFFIX, pack_bytes, unpack
from pipeline.ports import ObjectStore
from pipeline.registry.pointers import (
    MAX_BYTES,
    Lease,
    Move,
    Pointers,
    RegistryError,
    as_bytes,
    checked_hash,
    lease_document,
    move_document,
    pointers_json,
    read_lease,
    read_move,
    read_object,
    read_pointers,
)
from pipeline.store.errors import Conflict, NotFound, ObjectDamaged, StoreError, StoreUnavailable, TooLarge

_LOG = logging.getLogger(__name__)
PREFIX = "prompts"
POINTERS, RETUNING = f"{PREFIX}/pointers.json", f"{PREFIX}/retuning.json"
_PACKS, _AUDIT, _GATES, _TESTS = (f"{PREFIX}/{name}/" for name in ("packs", "audit", "gates", "tests"))
_PACK_KEY = re.compile(rf"{_PACKS}([0-9a-f]{{64}}){re.escape(SUFFIX)}")
_JSON = "application/json"
_ATTEMPTS = 50  # at one object: twenty who come at once all get their turn
_PAUSE_S = 0.05  # between two of them, at most
_SHORTEST = 4  # digits of a hash that name a pack


@dataclass(frozen=True, slots=True)
class Listed:
    """A pack as the bucket lists it."""

    digest: str
    size: int
    pushed: datetime


class Registry:
    """The registry in a bucket. May be used from any thread.

    All methods raise StoreUnavailable where the store is away, and StoreError where it refuses.

    Args:
        store: the bucket of models.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def push(self, pack: Pack) -> str:
        """Keep a pack; its hash. Twice the same is the same as once, and mends one that is damaged."""
        digest, content = pack.configuration_hash, pack_bytes(pack)
        key = _pack_key(digest)
        try:
            self._store.put_if_absent(key, content)
        except Conflict:
            try:
                self.pack(digest)
            except PackError:
                self._store.replace(key, content, self._store.stat(key).etag)
        return digest

    def pack(self, digest: str) -> Pack:
        """A pack, verified.

        Raises:
            RegistryError: there is none of this hash.
            PackError: it is damaged, or another one lies under its name.
        """
        key = _pack_key(checked_hash(digest))
        try:
            pack = unpack(self._store.get(key, max_bytes=MAX_PACK))
        except NotFound as error:
            raise RegistryError(
                f"the registry has no pack {digest}. Push its file first: 'dapo models push FILE'."
            ) from error
        except (PackError, ObjectDamaged, TooLarge) as error:
            raise PackError(f"{key}: {error} Push it again: 'dapo models push FILE'.") from error
        if pack.configuration_hash != digest:
            raise PackError(f"{key}: holds pack {pack.configuration_hash}. Push the right one again.")
        return pack

    def readable(self, digests: Iterable[str | None]) -> list[Pack]:
        """Those of these packs that can be read; of others a line goes to the log. Each once, in their order."""
        found = []
        for digest in dict.fromkeys(digests):
            if not digest:
                continue
            try:
                found.append(self.pack(digest))
            except (RegistryError, PackError) as error:
                _LOG.error("a pack of the registry can't be read: %s", error)
        return found

    def packs(self) -> Iterator[Listed]:
        """All packs, in no order that means anything."""
        for one in self._store.list(_PACKS):
            if found := _PACK_KEY.fullmatch(one.key):
                yield Listed(found[1], one.size, one.modified)

    def find(self, name: str) -> str:
        """The hash of the pack that is called so: champion, challenger, previous, a hash or its first digits.

        Raises:
            RegistryError: there is none, or more than one.
        """
        if name in ("champion", "challenger", "previous"):
            found = self.pointers().names.get(name)
            if found is None:
                raise RegistryError(f"the registry has no {name}. 'dapo models list' shows what it has.")
            return found
        if len(name) < _SHORTEST or set(name) - set("0123456789abcdef"):
            raise RegistryError(
                f"'{name}' is neither a file nor a pack: give champion, challenger, previous, or at least "
                f"{_SHORTEST} digits of a hash ('dapo models list')."
            )
        hits = [one.digest for one in self.packs() if one.digest.startswith(name)]
        if len(hits) != 1:
            said = "no pack" if not hits else f"{len(hits)} packs"
            raise RegistryError(f"{said} of the registry begin with '{name}': 'dapo models list' shows them.")
        return hits[0]

    def champion(self) -> Pack:
        """The champion, verified.

        Raises:
            RegistryError: there is none yet.
            PackError: it is damaged.
        """
        digest = self.pointers().champion
        if digest is None:
            raise RegistryError("the registry has no champion yet. Make one: 'dapo models promote PACK'.")
        return self.pack(digest)

    def etag(self) -> str:
        """Changes whenever a pointer does; empty where there is none yet."""
        try:
            return self._store.stat(POINTERS).etag
        except NotFound:
            return ""

    def pointers(self) -> Pointers:
        """What is pointed to.

        Raises:
            RegistryError: the object can't be read.
        """
        return _pointers(self._read(POINTERS)[1])

    def change(self, update: Callable[[Pointers], Pointers]) -> Pointers:
        """Move pointers: `update` is given what they are and says what they shall be, again whenever somebody was faster.

        The audit line of the last move is written out before the next one takes its place.

        Raises:
            Whatever `update` raises; nothing is changed then.
        """

        moved = False

        def move(before: bytes | None) -> bytes:
            nonlocal moved
            found = _pointers(before)
            wanted = update(found)
            moved = wanted.last != found.last
            if moved:
                self._write_out(found.last)
            return pointers_json(wanted)

        after = _pointers(self._change(POINTERS, move))
        if moved:
            with suppress(
                StoreUnavailable, StoreError
            ):  # the pointer is moved; the line is with it, and is copied later
                self._write_out(after.last)
        return after

    def history(self, limit: int | None = None) -> list[Move]:
        """Audit lines, the newest first."""
        keys = sorted((one.key for one in self._store.list(_AUDIT)), reverse=True)
        return [read_move(self._json(key)) for key in keys[:limit]]

    def gate(self, champion: str, challenger: str) -> dict[str, Any] | None:
        """What the gate said of these two, None where it was not asked; `outcome` is always there.

        Raises:
            RegistryError: the record can't be read.
        """
        key = _gate_key(champion, challenger)
        try:
            record = self._json(key)
        except NotFound:
            return None
        if not isinstance(record.get("outcome"), str):
            raise RegistryError(f"{key}: says no outcome. Ask the gate again.")
        return record

    def keep_gate(self, champion: str, challenger: str, record: Mapping[str, Any]) -> None:
        """Keep what the gate said, in the place of what it said before.

        Raises:
            RegistryError: it says no outcome, or is too large.
        """
        content = as_bytes(record)
        if not isinstance(record.get("outcome"), str) or len(content) > MAX_BYTES:
            raise RegistryError(f"a gate record needs an outcome, and has at most {MAX_BYTES} bytes.")
        self._change(_gate_key(champion, challenger), lambda before: content)

    def uses(self, test_hash: str) -> int:
        """How often a test set has decided."""
        return _uses(self._read(_test_key(test_hash))[1])

    def count(self, test_hash: str) -> int:
        """Count one more decision of a test set; how many there are by now."""
        after = self._change(_test_key(test_hash), lambda before: as_bytes({"uses": _uses(before) + 1}))
        return _uses(after)

    def change_turn(self, update: Callable[[Lease | None], Lease | None]) -> None:
        """Change who is retuning; see `pipeline.registry.turn`.

        Raises:
            RegistryError: the object can't be read. Whatever `update` raises; nothing is changed then.
        """

        def changed(before: bytes | None) -> bytes:
            lease = update(_turn(before))
            return as_bytes({"lease": None if lease is None else lease_document(lease)})

        self._change(RETUNING, changed)

    def _write_out(self, move: Move | None) -> None:
        """Copy an audit line to where it stays. It has one name, so twice is once."""
        if move is None:
            return
        stamp = move.at.strftime("%Y%m%dT%H%M%S.%fZ")
        try:
            self._store.put_if_absent(
                f"{_AUDIT}{stamp}-{move.after[:12]}.json", as_bytes(move_document(move)), content_type=_JSON
            )
        except Conflict:
            return  # it is there

    def _json(self, key: str) -> dict[str, Any]:
        return read_object(self._store.get(key, max_bytes=MAX_BYTES), key)

    def _read(self, key: str) -> tuple[str | None, bytes | None]:
        """Etag and bytes of an object, None for both where there is none."""
        try:
            etag = self._store.stat(
                key
            ).etag  # first: where the object changes in between, the etag is the old one
            return etag, self._store.get(key, max_bytes=MAX_BYTES)
        except NotFound:
            return None, None

    def _change(self, key: str, update: Callable[[bytes | None], bytes]) -> bytes:
        """Compare and set, until it was this caller's turn; the bytes that lie there then."""
        for _ in range(_ATTEMPTS):
            etag, before = self._read(key)
            after = update(before)
            if after == before:
                return after
            try:
                if etag is None:
                    self._store.put_if_absent(key, after, content_type=_JSON)
                else:
                    self._store.replace(key, after, etag, content_type=_JSON)
                return after
            except Conflict:
                time.sleep(random.uniform(0, _PAUSE_S))
            except StoreUnavailable:
                if self._read(key)[1] == after:  # it happened, and only the answer was lost
                    return after
                raise
        raise StoreUnavailable(f"{key}: others change it all the time. Try again.")


def _pack_key(digest: str) -> str:
    return f"{_PACKS}{digest}{SUFFIX}"


def _gate_key(champion: str, challenger: str) -> str:
    return f"{_GATES}{checked_hash(champion)}-{checked_hash(challenger)}.json"


def _test_key(test_hash: str) -> str:
    return f"{_TESTS}{checked_hash(test_hash)}.json"


def _pointers(data: bytes | None) -> Pointers:
    return Pointers() if data is None else read_pointers(data)


def _turn(data: bytes | None) -> Lease | None:
    found = None if data is None else read_object(data, RETUNING).get("lease")
    if found is None:
        return None
    if not isinstance(found, dict):
        raise RegistryError(f"{RETUNING}: expected a lease, found {type(found).__name__}. Remove the object.")
    return read_lease(found)


def _uses(data: bytes | None) -> int:
    if data is None:
        return 0
    count = read_object(data, "uses of a test set").get("uses")
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise RegistryError(f"uses of a test set: expected a whole number, found {count!r}.")
    return count
