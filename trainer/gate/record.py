"""`gate.json`: what a run of the gate found, for machines and for the registry."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from trainer.gate.bootstrap import Difference
from trainer.gate.rules import Rules
from trainer.gate.run import Gated


def record_of(gated: Gated) -> dict[str, Any]:
    """A run as plain data."""
    decision, rules = gated.decision, gated.rules
    parts = gated.parts.values()
    return {
        "outcome": decision.outcome.value,
        "question": decision.question.value,
        "rule": decision.decisive.rule,
        "said": decision.decisive.said,
        "label_more": decision.label_more,
        "champion": gated.champion,
        "challenger": gated.challenger,
        "test": {
            "sha256": gated.test.sha256,
            "uses_before": gated.uses,
            "frames": len(gated.compared),
            "good_parts": sum(not defective for defective in parts),
            "defective_parts": sum(parts),
            "types": dict(
                sorted(Counter(word for one in gated.compared for word in one.sample.words).items())
            ),
            "unlabelled": len(gated.test.unlabelled),
            "copies": gated.test.copies,
            "unusable": len(gated.unusable),
        },
        "auroc": _difference(decision.auroc, rules),
        "average_precision": _difference(decision.average_precision, rules),
        "products": {name: _difference(found, rules) for name, found in decision.products.items()},
        "changed_verdicts": len(gated.changed),
        "findings": [{**asdict(finding), "outcome": finding.outcome.value} for finding in decision.findings],
        "label_next": [{**asdict(one), "reason": one.reason.value} for one in gated.proposals],
        "rules": {**asdict(rules), "recall": dict(rules.recall)},
    }


def _difference(found: Difference | None, rules: Rules) -> dict[str, float | int] | None:
    if found is None:
        return None
    return {
        "champion": found.champion,
        "challenger": found.challenger,
        "difference": found.value,
        "error": found.error,
        "lower": found.lower(rules.level),
        "upper": found.upper(rules.level),
        "parts": found.parts,
        "parts_for_margin": found.parts_for(rules.margin, rules.level, rules.power),
    }
