"""The table a run ends with."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.summary import RunSummary

_WORST = 8


def summary_table(summary: RunSummary) -> Group:
    """Counts by evaluation and type, and the worst frames, for a terminal."""
    counts = Table("frames", "", "share", box=None, pad_edge=False)
    rows = [
        *sorted(summary.evaluations.items()),
        ("Failed (dead letter)", summary.failed),
        ("Aborted", summary.aborted),
    ]
    for name, count in rows:
        if count:
            counts.add_row(str(count), name, f"{100 * count / max(1, summary.frames):.1f} %")
    if not summary.frames:
        counts.add_row("0", "no frames found", "")
    # Not the table's own title, which is wrapped to the table's width; product and pack are the user's: no markup.
    blocks: list[RenderableType] = [Group(Text(_title(summary), style="table.title"), counts)]
    if summary.types:
        types = Table("frames", "regions", "defect type", box=None, pad_edge=False)
        for slug, found in sorted(summary.types.items(), key=lambda item: (-item[1].frames, item[0])):
            types.add_row(str(found.frames), str(found.regions), slug)
        blocks += [types]
    if summary.worst:
        worst = Table("score", "evaluation", "defects", "worst frames", box=None, pad_edge=False)
        for frame in summary.worst[:_WORST]:
            kinds = ", ".join(dict.fromkeys(frame.types)) or "-"
            worst.add_row(f"{frame.score:.3f}", frame.evaluation.value, Text(kinds), Text(frame.frame_id))
        blocks += [worst]
    spaced = [item for block in blocks for item in (block, Text(""))]
    return Group(*spaced[:-1])


def _title(summary: RunSummary) -> str:
    pack = f"{summary.pack_name} {summary.configuration_hash[:12]}".strip()
    return f"{summary.frames} frames in {summary.seconds:.1f} s, product {summary.product}, pack {pack}"
