"""An archive with labels, a registry with a champion, and a line that only notes what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from dapo.encoder import Encoder
from dapo.errors import ServiceUnavailable
from dapo.pack import Pack
from dapo.pack_io import read_pack
from dapo.packing import load_pack_encoder
from pipeline.archive import labels
from pipeline.archive.archiver import Archiver, Item
from pipeline.archive.policy import Policy as Keeping
from pipeline.bundled import default_pack_path
from pipeline.ports import ObjectStore
from pipeline.registry.registry import Registry
from pipeline.settings import Settings, load
from schemas.labels import GOOD, label_row
from schemas.rle import encode_mask
from tests.contract.archive_tree import result
from tests.unit.trainer.tuning.plates import PRODUCTS, plates
from trainer.data.archive import ArchiveDataset
from trainer.data.archived import Days
from trainer.data.sample import Sample
from trainer.periodic.work import Policy

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
DAYS = Days(NOON.date(), NOON.date())
SALT = "92"  # under which each side has good and defective parts of both products
FRESH = 24  # frames of each product that nobody has labelled


@cache
def encoder() -> Encoder:
    return load_pack_encoder(champion())


@cache
def champion() -> Pack:
    """The bundled pack, which names both products."""
    pack = read_pack(default_pack_path())
    return pack.with_products({name: pack.product("*") for name in PRODUCTS})


def settings() -> Settings:
    """Every frame is in the audit sample."""
    return load({"archive.audit_rate": 1.0, "model.threads": 2}, environment={}).settings


def archive(store: ObjectStore, scratch: Path, *, labelled: bool = True) -> ArchiveDataset:
    """Two products: thirty frames each that are labelled, and as many good ones as `FRESH` that are not."""
    items, said = [], []
    known = plates(scratch / "known", good=18, each=6)
    fresh = [s for s in plates(scratch / "fresh", good=FRESH, each=1, seed=500) if not s.defective]
    for number, sample in enumerate([*known, *fresh]):
        row = result(
            sample.key if sample in known else f"fresh/{sample.key}",
            product_id=sample.product,
            part_id=f"part {number}",
            captured_at=NOON + timedelta(seconds=number),
        )
        items.append(Item(row, sample.picture.read(), 0, number))
        if labelled and sample in known:
            said.append((row, sample))
    Archiver(store, Keeping(audit_rate=1.0)).archive(items)
    rows = []
    for row, sample in said:
        word = sample.word or GOOD
        mask = None if not sample.defective else encode_mask(_mask(sample))
        rows.append(label_row(row.result_id, word, NOON, "cli", author="ann", mask=mask))
    labels.write(store, [labels.Entry(row, 0, number) for number, row in enumerate(rows)])
    return dataset(store)


def dataset(store: ObjectStore) -> ArchiveDataset:
    return ArchiveDataset(store, DAYS, {word.slug: word.word for word in champion().types})


def backwards() -> Pack:
    """A champion that takes good frames for defective ones: any tuning is better."""
    tensors = champion().tensors
    swapped = {"text.normal": tensors["text.generic"], "text.generic": tensors["text.normal"]}
    return replace(champion(), tensors={**tensors, **swapped})


def registry(store: ObjectStore, pack: Pack | None = None) -> Registry:
    made = Registry(store)
    digest = made.push(pack or champion())
    made.change(lambda now: replace(now, champion=digest))
    return made


def _mask(sample: Sample) -> Any:
    [region] = sample.regions
    assert region.mask is not None
    return region.mask.at(region.mask.shape()[0])


class NotedLine:
    """See `trainer.periodic.work.Line`."""

    def __init__(self, agreement: float | None = 1.0, most: int = 1000) -> None:
        self.did: list[tuple[str, str]] = []
        self.away = False
        self._agreement, self._most = agreement, most

    def check(self, policy: Policy) -> None:
        if self.away:
            raise ServiceUnavailable("the line is away")

    def shadow(self, digest: str, frames: int) -> Mapping[str, Any]:
        self.did.append(("shadow", digest))
        seen = 0 if self._agreement is None else min(frames, self._most)
        return {
            "frames": seen,
            "agreement": self._agreement,
            "types_changed": 0,
            "rank_correlation": 0.9,
            "changed": [],
        }

    def promote(self, digest: str) -> None:
        self.did.append(("promote", digest))


__all__ = [
    "DAYS",
    "FRESH",
    "NOON",
    "PRODUCTS",
    "SALT",
    "NotedLine",
    "archive",
    "backwards",
    "champion",
    "dataset",
    "encoder",
    "plates",
    "registry",
    "settings",
]
