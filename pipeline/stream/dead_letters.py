"""Dead letters: found by what went wrong, and sent back once that is mended.

A replay sends a letter's frame as it first came: key, value and headers untouched but for `inspect.attempt`, which counts.
The frame keeps its id, so it gets a second row with the same `frame_key`; one that fails again is a new dead letter.

Each letter is sent once per selection: the place that a replay has come to is kept with what it writes, in one
transaction. A replay that was killed goes on there, one that is run again later sends only what has come since.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from dapo.errors import SettingsError
from pipeline.ports import Message, Record
from pipeline.stream.feed import Outlet
from pipeline.stream.frames import ATTEMPT

_MAX_FRAMES, _MAX_BYTES = 64, 4 * 2**20  # of one transaction, as `dapo feed` has them
_MAX_ATTEMPTS = 1000  # a frame that says more is refused by the worker
_OURS = re.compile(r"__connect\.errors\..*|inspect\.(stage|code|attempt)")
_PLACE = re.compile(r"([0-9]{1,9})/([0-9]{1,19})")


@dataclass(frozen=True, slots=True)
class Letter:
    """What a dead letter says of itself. All texts are outside text, made printable.

    Attributes:
        place: "partition/offset" in the dead letters: its name on the command line.
        attempt: how often the frame had been sent again before it came here.
        size: bytes of the frame.
    """

    place: str
    at: datetime
    camera: str
    frame_id: str
    stage: str
    code: str
    message: str
    attempt: int
    size: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters; empty fields choose all. `since` is as the user wrote it; whoever reads the topic heeds it."""

    code: str = ""
    stage: str = ""
    camera: str = ""
    since: str = ""

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is among them."""
        wanted = ((self.code, letter.code), (self.stage, letter.stage), (self.camera, letter.camera))
        return all(not name or name == has for name, has in wanted)

    def replay_name(self, topic: str, partition: int) -> str:
        """Under what a replay of this selection keeps the place it has come to in a partition."""
        texts = (topic, self.code, self.stage, self.camera, self.since)
        digest = hashlib.sha256("".join(f"{len(text)}:{text}" for text in texts).encode()).hexdigest()
        return f"dapo-replay-{digest[:24]}-{partition}"


@dataclass(slots=True)
class Replayed:
    """What a replay did. `before`: letters that were sent by an earlier one."""

    sent: int = 0
    bytes: int = 0
    before: int = 0


def read_letter(record: Record) -> Letter:
    """What a message of the dead letters says. Never raises for what is in it."""
    said = {name: printable(value) for name, value in record.headers}  # ours are last, and win
    camera = said.get("camera_id") or said.get("ce_source") or printable(record.key or b"")
    return Letter(
        place=f"{record.partition}/{record.offset}",
        at=record.timestamp,
        camera=camera,
        frame_id=said.get("ce_id", ""),
        stage=said.get("inspect.stage", ""),
        code=said.get("inspect.code", ""),
        message=said.get("__connect.errors.exception.message", ""),
        attempt=_attempt(record),
        size=len(record.value),
    )


def chosen(records: Iterable[Record], selection: Selection) -> Iterator[tuple[Letter, Record]]:
    """Letters of a selection, in the order of the records."""
    for record in records:
        letter = read_letter(record)
        if selection.takes(letter):
            yield letter, record


def original(record: Record, topic: str) -> Message:
    """The frame's message as it first came, and how often it has been sent again now."""
    own = tuple((name, value) for name, value in record.headers if not _OURS.fullmatch(name))
    attempt = str(min(_attempt(record) + 1, _MAX_ATTEMPTS)).encode()
    return Message(topic, record.key, record.value, (*own, (ATTEMPT, attempt)))


def parse_place(text: str) -> tuple[int, int]:
    """Partition and offset of "3/17".

    Raises:
        SettingsError: it is no such place.
    """
    found = _PLACE.fullmatch(text)
    if not found:
        raise SettingsError(
            f"'{text}' is no place of a dead letter. 'dapo dead-letters list' shows them: 3/17 is the 17 of partition 3."
        )
    return int(found[1]), int(found[2])


def replay(
    records: Iterable[Record],
    selection: Selection,
    topic: str,
    open_outlet: Callable[[], Outlet],
    *,
    again: bool = False,
    limit: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Replayed:
    """Send back what a selection has in one partition.

    Args:
        records: of one partition of the dead letters, in order.
        topic: of frames.
        open_outlet: where to; its position is the offset that the replay has come to. Not asked where nothing is chosen.
        again: also what was sent before.
        limit: letters to send, at most.
        stopped: ends it early; asked before each letter.
    """
    done, outlet, start = Replayed(), None, 0
    waiting: list[Message] = []
    size = position = 0
    for letter, record in chosen(records, selection):
        if stopped() or (limit is not None and done.sent + len(waiting) >= limit):
            break
        if outlet is None:
            outlet = open_outlet()
            if again:
                outlet.write([], 0)  # from here on as if it had never been: a kill does not undo that
            start = outlet.position()
        if record.offset < start:
            done.before += 1
            continue
        if waiting and (len(waiting) >= _MAX_FRAMES or size + letter.size > _MAX_BYTES):
            _send(outlet, waiting, position, done)
            waiting, size = [], 0
        waiting.append(original(record, topic))
        size, position = size + letter.size, record.offset + 1
    if outlet is not None and waiting:
        _send(outlet, waiting, position, done)
    return done


def _send(outlet: Outlet, messages: list[Message], position: int, done: Replayed) -> None:
    outlet.write(messages, position)
    done.sent += len(messages)
    done.bytes += sum(len(message.value) for message in messages)


def _attempt(record: Record) -> int:
    for name, value in record.headers:
        if name == ATTEMPT and re.fullmatch(rb"[0-9]{1,4}", value):
            return int(value)
    return 0


def printable(value: bytes) -> str:
    """Outside text for a terminal: no control characters, no broken UTF-8.

    >>> printable(b"a\x1b[2J")
    'a\ufffd[2J'
    """
    text = value.decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "�" for letter in text)
