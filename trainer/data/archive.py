"""The project's own archive as labelled data: rows of the manifest, joined with the labels in force by `result_id`.

    archive:30d                       the last 30 days, today among them
    archive:2026-11-01..2026-11-29    these days and all between (UTC, of the pictures)

The manifest is read once, images only when they are asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property

from dapo.errors import SourceError
from dapo.pack import Pack
from dapo.pack_io import read_pack
from dapo.vocabulary import UNKNOWN_SLUG
from pipeline.archive import labels
from pipeline.bundled import default_pack_path
from pipeline.ports import ObjectStore
from pipeline.settings import Settings, load
from pipeline.store.open import open_store
from schemas.labels import LabelRow, in_force
from trainer.data.archived import MAX_BYTES, Days, Judged, StoredPicture, judged, told
from trainer.data.dataset import ProductData, choose
from trainer.data.masks import RunLengths
from trainer.data.reading import checked_product
from trainer.data.sample import GOOD, Region, Sample, State
from trainer.data.words import Words


class NothingArchived(SourceError):
    """The archive holds no frame of the days that were asked for."""


class ArchiveDataset:
    """See `Dataset`. What is in the archive is looked up at the first question, and once.

    Labels count by what they are about, a frame: those of all its results together. A frame that has no label is
    unlabelled; one that was not inspected to the end (Failed) is there only where it has one.

    Args:
        store: the bucket of images, manifest and labels.
        known: slug -> word of the types that are known; of any other, dashes become spaces.
        words: a user's map of slugs to words, which wins.
        max_bytes: larger images are not read.
        since: pictures taken before are not there, though their day is; None: all of the days.
        until: what was judged or said later is not there; None: all that is there by now.
    """

    def __init__(
        self,
        store: ObjectStore,
        days: Days,
        known: Mapping[str, str] | None = None,
        words: Words | None = None,
        max_bytes: int = MAX_BYTES,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> None:
        self._store, self._days, self._max_bytes = store, days, max_bytes
        self._since, self._until = since, until
        self._known, self._words = known or {}, words or Words()
        self._name = f"archive:{days}"

    def products(self) -> list[str]:
        return sorted(self._frames)

    def product(self, name: str) -> ProductData:
        return ProductData(name, tuple(sample for sample, _ in self.judged(name)))

    def judged(
        self, name: str, skip: Callable[[str, SourceError], None] | None = None
    ) -> list[tuple[Sample, Judged]]:
        """The frames of a product, each with what the model said of it, in the order of their pictures.

        Args:
            skip: told of a frame whose label can't be used, by its key: it is left out; None: it is an error.

        Raises:
            SourceError: no such product, or a label can't be used.
        """
        [name] = choose(self.products(), [name], self._name)
        checked_product(name, self._name)
        found = []
        for row, said in self._frames[name]:
            try:
                found.append((self._sample(row, said), row))
            except SourceError as error:
                if skip is None:
                    raise
                skip(row.frame_key, error)
        return found

    @cached_property
    def _frames(self) -> dict[str, list[tuple[Judged, tuple[LabelRow, ...]]]]:
        """Product -> its frames, each with its labels in force."""
        newest: dict[str, Judged] = {}
        frame_of: dict[str, str] = {}
        with told(self._name):
            for row in judged(self._store, self._days):
                if not self._within(row):
                    continue
                frame_of[row.result_id] = row.frame_key
                newest[row.frame_key] = max(row, newest.get(row.frame_key, row), key=lambda one: one.standing)
            said = self._said(frame_of)
        found: dict[str, list[tuple[Judged, tuple[LabelRow, ...]]]] = defaultdict(list)
        for row in sorted(newest.values(), key=lambda one: (one.taken, one.frame_key)):
            labelled = said.get(row.frame_key, ())
            if labelled or row.result_state == "Completed":
                found[row.product].append((row, labelled))
        if not found:
            raise NothingArchived(
                f"{self._name}: no frame of these days is in s3://{self._store.bucket}/. Say other days."
            )
        return dict(found)

    def _within(self, row: Judged) -> bool:
        late = self._until is not None and row.finished_at > self._until
        return not late and (self._since is None or row.taken >= self._since)

    def _said(self, frame_of: Mapping[str, str]) -> dict[str, tuple[LabelRow, ...]]:
        """Frame -> its labels in force."""
        rows = labels.rows(self._store, about=frame_of.keys())
        if self._until is not None:
            until = self._until
            rows = (row for row in rows if row.labelled_at <= until)
        return in_force(rows, lambda row: frame_of.get(row.result_id, row.result_id))

    def _sample(self, row: Judged, said: tuple[LabelRow, ...]) -> Sample:
        words = [self._word(row.product, label.label) for label in said]
        regions = tuple(
            Region(word, _mask(label)) for word, label in zip(words, said, strict=True) if word != GOOD
        )
        unless = State.GOOD if said else State.UNLABELLED
        return Sample(
            row.frame_key,
            row.product,
            StoredPicture(self._store, row.object_key, row.image_sha256, self._max_bytes),
            State.DEFECTIVE if regions else unless,
            regions,
            group=row.group,
            day=row.taken.date(),
        )

    def _word(self, product: str, slug: str) -> str | None:
        word = self._words.word(product, slug)
        if word != slug:
            return word
        return None if slug == UNKNOWN_SLUG else self._known.get(slug, slug.replace("-", " "))


def open_archive(
    days: str,
    words: Words,
    settings: Settings | None = None,
    until: datetime | None = None,
    pack: Pack | None = None,
) -> ArchiveDataset:
    """The archive that the settings name.

    Args:
        days: "30d", or "2026-11-01..2026-11-29".
        settings: of the store, the pack whose words are known, and the limits; None: of the environment.
        until: see `ArchiveDataset`; the last day of "30d" is this one's.
        pack: whose words are known; None: of the settings.

    Raises:
        SourceError: `days` says none.
        SettingsError: no store is set.
    """
    settings = load().settings if settings is None else settings
    span = Days.parse(days, (until or datetime.now(UTC)).date())
    pack = pack or read_pack(settings.pack.path or default_pack_path())
    known = {one.slug: one.word for one in pack.types}
    return ArchiveDataset(open_store(settings.store), span, known, words, settings.run.max_bytes, until=until)


def _mask(label: LabelRow) -> RunLengths | None:
    where = f"label {label.label_id} of result {label.result_id}"
    return None if label.mask is None else RunLengths.of(label.mask, where)
