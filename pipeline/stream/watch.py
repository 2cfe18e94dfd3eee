"""What `dapo watch` shows: the last verdicts, how many of each kind, and which lines live."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Group
from rich.table import Table
from rich.text import Text

from dapo.errors import SettingsError
from schemas.results import EVALUATIONS, ResultRow
from schemas.status import StatusRow

DEAD_S = 5.0  # a beat comes each second; without one for so long the line is dead, or its broker is
_MAX_BEATS = 1000  # workers and lines told apart: their names come from outside
_STYLES = {"OK": "green", "NotOK": "bold red", "NotDecidable": "yellow", "Undefined": "dim"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which verdicts are shown; empty fields take all.

    Raises:
        SettingsError: an evaluation is none.
    """

    line: str = ""
    camera: str = ""
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if strange := sorted(set(self.only) - set(EVALUATIONS)):
            raise SettingsError(
                f"--only: '{strange[0]}' is no evaluation. Choose from {', '.join(EVALUATIONS)}."
            )

    def takes(self, row: ResultRow) -> bool:
        """Whether a verdict is among them."""
        return (
            (not self.line or row.line_id == self.line)
            and (not self.camera or row.camera_id == self.camera)
            and (not self.only or row.evaluation in self.only)
        )


@dataclass(slots=True)
class Board:
    """The state of the screen.

    Args:
        wanted: what is shown.
        rows: how many verdicts.

    Attributes:
        shown: verdicts that were wanted so far.
    """

    wanted: Wanted
    rows: int = 20
    shown: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    _last: deque[ResultRow] = field(default_factory=deque)
    _beats: dict[tuple[str, str], StatusRow] = field(default_factory=dict)

    def add(self, row: ResultRow) -> bool:
        """Take a verdict; whether it is wanted."""
        if not self.wanted.takes(row):
            return False
        self.shown += 1
        self.counts[row.evaluation if row.result_state == "Completed" else row.result_state] += 1
        self._last.append(row)
        if len(self._last) > self.rows:
            self._last.popleft()
        return True

    def beat(self, row: StatusRow) -> None:
        """Take a beat.

        A worker that was restarted has met no line yet: until it does, it answers for those that it had before.
        """
        had = [line for line, worker in self._beats if worker == row.worker_id]
        for line in had if row.line_id is None else ["", row.line_id]:
            self._beats.pop((line, row.worker_id), None)
        for line in (had or [""]) if row.line_id is None else [row.line_id]:
            if not (self.wanted.line and line and line != self.wanted.line):
                self._beats[(line, row.worker_id)] = row
        while len(self._beats) > _MAX_BEATS:
            del self._beats[next(iter(self._beats))]

    def render(self, now: datetime) -> Group:
        """The screen.

        Args:
            now: UTC; ages of beats are measured against it.
        """
        return Group(self._lines(now), Text(), self._verdicts(), Text(), self._counted())

    def _lines(self, now: datetime) -> Table:
        table = Table("line", "worker", "state", "beat", box=None, pad_edge=False)
        for title in ("in", "Failed", "Aborted", "late", "gaps", "lag"):
            table.add_column(title, justify="right")
        for (line, worker), beat in sorted(self._beats.items()):
            age = max(0.0, (now - beat.at).total_seconds())
            said = beat.state + (f" for {beat.waiting_for}" if beat.waiting_for else "")
            dead = age > DEAD_S
            style = "bold red" if dead else "yellow" if beat.state != "running" else ""
            numbers = (beat.frames_in, beat.failed, beat.aborted, beat.late, beat.gaps, beat.lag)
            table.add_row(
                _text(line or "-"),
                _text(worker),
                f"DEAD (was {said})" if dead else said,
                f"{age:.0f} s ago",
                *("-" if number is None else str(number) for number in numbers),
                style=style,
            )
        if not self._beats:
            table.add_row("no beat yet: no worker runs, or its line has another name", style="yellow")
        return table

    def _verdicts(self) -> Table:
        table = Table(
            "time",
            "evaluation",
            "score",
            "line",
            "camera",
            "part",
            "frame",
            "defects",
            box=None,
            pad_edge=False,
        )
        for row in self._last:
            said, style = verdict_of(row), _STYLES.get(row.evaluation, "")
            cells = fields_of(row)
            table.add_row(cells[0], Text(said, style), *(_text(cell) for cell in cells[2:]))
        return table

    def _counted(self) -> Text:
        names = [*EVALUATIONS, "Failed", "Aborted"]
        return Text("   ".join(f"{name} {self.counts[name]}" for name in names))


def verdict_of(row: ResultRow) -> str:
    """The evaluation, or why there is none."""
    said = row.evaluation if row.result_state == "Completed" else row.result_state
    return f"{said} ({row.reason_code})" if row.reason_code else said


def fields_of(row: ResultRow) -> tuple[str, ...]:
    """Time, verdict, score, line, camera, part, frame, types of defects: as text, empty where there is none."""
    types = sorted({defect["type"] for defect in row.defects or ()})
    return (
        f"{row.finished_at:%H:%M:%S}",
        verdict_of(row),
        "" if row.anomaly_score is None else f"{row.anomaly_score:.3f}",
        row.line_id or "",
        row.camera_id or "",
        row.part_id or "",
        row.frame_id,
        ",".join(types),
    )


def plain(row: ResultRow) -> str:
    """One verdict as one line, its fields with tabs between them, for pipes."""
    return "\t".join(_clean(cell) for cell in fields_of(row))


def _clean(text: str) -> str:
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _text(text: str) -> Text:
    return Text(_clean(text))
