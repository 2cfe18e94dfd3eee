"""`retune.json`: what a retuning came to, for machines."""

from __future__ import annotations

from typing import Any

from dapo.pack import Pack
from trainer.tuning.run import Retuned


def summary(done: Retuned, base: Pack) -> dict[str, Any]:
    """What a machine wants to know of a retuning."""
    old, new = (done.before.products, done.after.products) if done.before and done.after else ({}, {})
    return {
        "configuration_hash": done.pack.configuration_hash,
        "base": base.configuration_hash,
        "frames": done.counts,
        "before": done.before and done.before.mean,
        "after": done.after and done.after.mean,
        "products": {name: {"before": old[name], "after": new[name]} for name in new},
        "losses": done.history and vars(done.history),
        "notes": done.notes,
    }
