"""The label row on `inspection.labels`: what a person says of a result. Training reads them, nothing is ever changed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from schemas.columns import MASK, TIME, Contract, column
from schemas.ids import label_id

GOOD = "good"  # the label of a frame without a defect; no defect type may have this name
SOURCES = ("cli", "import", "console")
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MAX_SLUG = 240  # characters: a defect type's slug ends the name of a topic, which may have 249


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """One label. A frame with two defects has two; a correction is a new one that names the one it replaces."""

    label_id: str = column(
        pa.utf8(), "UUIDv5 of result, label, author and time; drop duplicates by it", null=False
    )
    result_id: str = column(pa.utf8(), "the result it is about", null=False, opc="ResultMetaData.ResultId")
    frame_key: str | None = column(pa.utf8(), "the frame of that result")
    label: str = column(pa.utf8(), f"slug of the defect's type, `unknown`, or `{GOOD}`", null=False)
    mask: dict[str, Any] | None = column(
        MASK, "where the defect is, run lengths in the whole frame; null where nobody drew it", shown="mask"
    )
    author: str | None = column(pa.utf8(), "who says so")
    labelled_at: datetime = column(TIME, "when", null=False)
    source: str = column(pa.utf8(), "cli, import or console", null=False)
    comment: str | None = column(pa.utf8(), "free text")
    supersedes: str | None = column(pa.utf8(), "label_id of the label that this one replaces")


CONTRACT = Contract.of(LabelRow, "label", 1)


def label_row(
    result_id: str,
    label: str,
    labelled_at: datetime,
    source: str,
    *,
    author: str | None = None,
    frame_key: str | None = None,
    mask: Mapping[str, Any] | None = None,
    comment: str | None = None,
    supersedes: str | None = None,
) -> LabelRow:
    """A label with the id that follows from it: the same label made twice is one label.

    Raises:
        ValueError: `label` is no slug, `source` is not known, a good frame has a mask, or the time has no zone.
    """
    if source not in SOURCES:
        raise ValueError(f"label source '{source}': expected one of {', '.join(SOURCES)}")
    check_label(label, mask)
    return LabelRow(
        label_id=label_id(result_id, label, author, labelled_at),
        result_id=result_id,
        frame_key=frame_key,
        label=label,
        mask=None if mask is None else dict(mask),
        author=author,
        labelled_at=labelled_at,
        source=source,
        comment=comment,
        supersedes=supersedes,
    )


def check_label(label: str, mask: Mapping[str, Any] | None) -> None:
    """See that a label says something.

    Raises:
        ValueError: it is no slug, or a good frame has a mask.
    """
    if len(label) > _MAX_SLUG or not _SLUG.fullmatch(label):
        raise ValueError(f"label '{label:.80}': expected the slug of a defect type ([a-z0-9-]) or '{GOOD}'")
    if label == GOOD and mask is not None:
        raise ValueError(f"label '{GOOD}': a frame without a defect has no mask")


def in_force(
    rows: Iterable[LabelRow], about: Callable[[LabelRow], str] = lambda row: row.result_id
) -> dict[str, tuple[LabelRow, ...]]:
    """What people say of each result by now: the last word counts, in whatever order labels come, and however often.

    - A label that another one replaces is out.
    - In order of time (`labelled_at`, then `label_id`), "good" takes back all that was said before, and a defect takes back
      "good". Defects stand together.
    - Of one type, labels without masks are one: the latest.

    Args:
        about: what a label is about, where results are taken together.

    Returns:
        Labels in order of time, at least one: "good" alone, or defects. What has no label left is missing.
    """
    once: dict[str, LabelRow] = {}
    for row in rows:
        other = once.get(row.label_id)
        # Sent again with another mask or comment, one id has two contents: either order of them must give the same.
        once[row.label_id] = row if other is None else max(row, other, key=repr)
    replaced = {row.supersedes for row in once.values()}
    found: dict[str, list[LabelRow]] = defaultdict(list)
    for row in sorted(once.values(), key=lambda row: (row.labelled_at, row.label_id)):
        if row.label_id not in replaced:
            here = about(row)
            before = [] if row.label == GOOD else [one for one in found[here] if not _taken_back(one, row)]
            found[here] = [*before, row]
    return {here: tuple(labels) for here, labels in found.items()}


def _taken_back(earlier: LabelRow, defect: LabelRow) -> bool:
    """Whether a defect that is named later leaves nothing of what was said before."""
    said_again = earlier.label == defect.label and earlier.mask is None and defect.mask is None
    return earlier.label == GOOD or said_again
