"""What the registry points to, in one small JSON object: so champion and previous move together, or not at all.

The object is read as if an enemy had written it: bounded, every field checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dapo.errors import DapoError

FORMAT = 1
MAX_BYTES = 64 * 1024  # of a JSON object in the registry: names, times and a sentence or two
_MAX_TEXT = 2000  # characters of a reason; longer ones are cut when they are written
_HASH = re.compile(r"[0-9a-f]{64}")
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class RegistryError(DapoError):
    """The registry does not have what is asked for, or holds what can't be right."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who is promoting.

    Attributes:
        pack: configuration hash of what is promoted.
        by: user and host.
        until: UTC; afterwards somebody else may take it over.
        token: tells this promotion from every other.
    """

    pack: str
    by: str
    until: datetime
    token: str


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a pointer: an audit line.

    Attributes:
        at: UTC.
        by: user and host.
        what: "promote", "rollback" or "challenger".
        before, after: configuration hashes of what was pointed to.
        evidence: what allowed it: the gate's outcome, that no score moves, or that it was forced.
        why: as it was given; may be empty.
    """

    at: datetime
    by: str
    what: str
    before: str | None
    after: str
    evidence: str
    why: str


@dataclass(frozen=True, slots=True)
class Pointers:
    """Configuration hashes by role; None where there is none.

    Attributes:
        champion: what lines are judged with.
        challenger: what is to be measured next.
        previous: the champion before this one, to go back to.
        lease: who is promoting.
        last: the last move. It is written with the pointers, so no move is without its audit line.
    """

    champion: str | None = None
    challenger: str | None = None
    previous: str | None = None
    lease: Lease | None = None
    last: Move | None = None

    @property
    def names(self) -> dict[str, str]:
        """Role -> hash of those that are set."""
        found = {"champion": self.champion, "challenger": self.challenger, "previous": self.previous}
        return {name: digest for name, digest in found.items() if digest is not None}


def cleaned(text: str) -> str:
    """A text as it may be kept: one line, bounded.

    >>> cleaned("two\\nlines")
    'two lines'
    """
    return _NOT_TEXT.sub(" ", text)[:_MAX_TEXT]


def pointers_json(pointers: Pointers) -> bytes:
    """The object's bytes; the same pointers give the same bytes."""
    lease, last = pointers.lease, pointers.last
    document = {
        "format": FORMAT,
        "champion": pointers.champion,
        "challenger": pointers.challenger,
        "previous": pointers.previous,
        "lease": None if lease is None else lease_document(lease),
        "last": None if last is None else move_document(last),
    }
    return as_bytes(document)


def read_pointers(data: bytes) -> Pointers:
    """Pointers from the object's bytes.

    Raises:
        RegistryError: it is none.
    """
    document = read_object(data, "pointers")
    if document.get("format") != FORMAT:
        raise RegistryError(
            f"pointers: format {document.get('format')!r}; this program reads format {FORMAT}. Upgrade the program."
        )
    lease, last = document.get("lease"), document.get("last")
    return Pointers(
        champion=_hash_or_none(document, "champion"),
        challenger=_hash_or_none(document, "challenger"),
        previous=_hash_or_none(document, "previous"),
        lease=None if lease is None else read_lease(_mapping(lease, "lease")),
        last=None if last is None else read_move(_mapping(last, "last")),
    )


def lease_document(lease: Lease) -> dict[str, Any]:
    """A lease as plain data."""
    return {
        "pack": lease.pack,
        "by": cleaned(lease.by),
        "until": lease.until.isoformat(),
        "token": lease.token,
    }


def read_lease(document: Mapping[str, Any]) -> Lease:
    """A lease from plain data.

    Raises:
        RegistryError: it is none.
    """
    return Lease(
        pack=checked_hash(_text(document, "pack")),
        by=_text(document, "by"),
        until=_time(document, "until"),
        token=_text(document, "token"),
    )


def move_document(move: Move) -> dict[str, Any]:
    """An audit line as plain data."""
    return {
        "at": move.at.isoformat(),
        "by": cleaned(move.by),
        "what": move.what,
        "from": move.before,
        "to": move.after,
        "evidence": cleaned(move.evidence),
        "why": cleaned(move.why),
    }


def read_move(document: Mapping[str, Any]) -> Move:
    """An audit line from plain data.

    Raises:
        RegistryError: it is none.
    """
    return Move(
        at=_time(document, "at"),
        by=_text(document, "by"),
        what=_text(document, "what"),
        before=_hash_or_none(document, "from"),
        after=checked_hash(_text(document, "to")),
        evidence=_text(document, "evidence"),
        why=_text(document, "why"),
    )


def as_bytes(document: Mapping[str, Any]) -> bytes:
    """Canonical JSON."""
    return json.dumps(document, sort_keys=True, indent=1, allow_nan=False).encode()


def read_object(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        RegistryError: the bytes are none.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{what}: is no JSON: {error}. Somebody else has written it.") from error
    return _mapping(document, what)


def checked_hash(text: str) -> str:
    """`text` itself, where it is a configuration hash.

    Raises:
        RegistryError: it is none.
    """
    if not _HASH.fullmatch(text):
        raise RegistryError(f"'{cleaned(text)[:80]}' is no hash: expected 64 of 0-9 a-f.")
    return text


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RegistryError(f"{what}: expected a JSON object, found {type(value).__name__}.")
    return value


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise RegistryError(f"{name}: expected a text, found {type(value).__name__}.")
    return cleaned(value)


def _hash_or_none(document: Mapping[str, Any], name: str) -> str | None:
    return None if document.get(name) is None else checked_hash(_text(document, name))


def _time(document: Mapping[str, Any], name: str) -> datetime:
    text = _text(document, name)
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise RegistryError(f"{name}: '{text[:80]}' is no time.") from error
