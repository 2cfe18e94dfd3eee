"""The frozen test: which frames decide, what names them, and that neither pack has seen one before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from dapo.errors import PackError, SourceError
from dapo.pack import Pack
from trainer.data.dataset import ProductData
from trainer.data.sample import Sample, State
from trainer.data.split import content_hash, together

_SHOWN = 5  # frames of a message
SEEN = ("tuned_on", "calibrated_on")  # in a pack's provenance: hashes of the frames it was made with


class Uses(Protocol):
    """Who counts how often a test has decided: asked often enough, it gives the answer that one wants.

    The registry does (`pipeline.registry`).
    """

    def uses(self, test_hash: str) -> int:
        """How often the test of this `TestSet.sha256` has decided."""
        ...

    def count(self, test_hash: str) -> int:
        """Count one more decision of it; how many there are by now."""
        ...


class ToldUses:
    """Uses as somebody told them; what is counted is not kept."""

    def __init__(self, uses: int = 0) -> None:
        self._uses = uses

    def uses(self, test_hash: str) -> int:
        """See `Uses`."""
        return self._uses

    def count(self, test_hash: str) -> int:
        """See `Uses`."""
        return self._uses + 1


@dataclass(frozen=True)
class TestSet:
    """Labelled frames that both packs are measured on.

    Attributes:
        samples: each picture once.
        hashes: of their pixels (`content_hash`), in the same order.
        unlabelled: frames that nobody has looked at: they decide nothing, and may be labelled next.
        copies: frames that were left out because they show the very picture of another one.
    """

    __test__ = False  # not for pytest

    samples: tuple[Sample, ...]
    hashes: tuple[str, ...]
    unlabelled: tuple[Sample, ...] = ()
    copies: int = 0

    @cached_property
    def sha256(self) -> str:
        """Over the frames' contents and labels, in whatever order and under whatever names they come."""
        rows = sorted(f"{digest} {_label(s)}" for digest, s in zip(self.hashes, self.samples, strict=True))
        return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogatepass")).hexdigest()


def make_test_set(
    products: Sequence[ProductData], advance: Callable[[int], None] = lambda count: None
) -> TestSet:
    """The labelled frames outside of the data's own training split; each is decoded once.

    Args:
        advance: told how many more frames are done.

    Raises:
        SourceError: a frame can't be read, or one picture has two labels.
    """
    first: dict[str, Sample] = {}
    copies = 0
    for sample in (sample for product in products for sample in product.test.samples):
        digest = content_hash(sample)
        other = first.setdefault(digest, sample)
        if other is not sample:
            if _label(other) != _label(sample):
                raise SourceError(
                    f"{sample.key} is the very picture of {other.key}, and labelled '{_label(sample)}' instead of "
                    f"'{_label(other)}'. Correct one of the labels."
                )
            copies += 1
        advance(1)
    unlabelled = [s for product in products for s in product.samples if s.state is State.UNLABELLED]
    return TestSet(tuple(first.values()), tuple(first), tuple(unlabelled), copies)


def refuse_seen(
    test: TestSet,
    packs: Mapping[str, Pack],
    others: Sequence[Sample] = (),
    by: Literal["part", "day"] = "part",
) -> None:
    """See that the test is new to both packs.

    Args:
        packs: how a pack is called in messages -> pack. Its provenance may list, under the names in `SEEN`, the content
            hashes of the frames it was made with.
        others: frames beside the test. Where a pack was made with one of them, no frame of the test may show the same part.
        by: "day": nor may one be from the same day.

    Raises:
        SourceError: names frames and pack.
        PackError: a list in the provenance is none.
    """
    seen = {(role, how): _hashes(pack, how) for role, pack in packs.items() for how in SEEN}
    found = [
        f"{sample.key}: the {role} was {_made(how)} this very picture"
        for (role, how), hashes in seen.items()
        for sample, digest in zip(test.samples, test.hashes, strict=True)
        if digest in hashes
    ]
    found += _related(test.samples, others, by, seen) if not found else []
    if found:
        more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise SourceError(
            f"{'; '.join(found[:_SHOWN])}{more}. A test must be new to both packs: take these frames out, or make the pack "
            "without them."
        )


def _related(
    tested: Sequence[Sample],
    others: Sequence[Sample],
    by: Literal["part", "day"],
    seen: Mapping[tuple[str, str], frozenset[str]],
) -> list[str]:
    groups = together([*tested, *others], by)
    shown = dict(zip(groups[: len(tested)], tested, strict=True))
    found = []
    for sample, group in zip(others, groups[len(tested) :], strict=True):
        if group not in shown:
            continue  # most frames: they need not be decoded
        digest = content_hash(sample)
        what = "part" if by == "part" else "part, or is from the same day,"
        found += [
            f"{shown[group].key} shows the same {what} as {sample.key}, which the {role} was {_made(how)}"
            for (role, how), hashes in seen.items()
            if digest in hashes
        ]
    return found


def _made(how: str) -> str:
    return how.replace("_", " ")


def _hashes(pack: Pack, name: str) -> frozenset[str]:
    listed = pack.provenance.get(name, ())
    if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in listed):
        raise PackError(f"provenance: {name} is no list of content hashes. Make the pack again.")
    return frozenset(listed)


def _label(sample: Sample) -> str:
    return ", ".join(sorted(sample.words)) or sample.state.value
