"""Names of topics, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from dapo.errors import SettingsError
from dapo.pack import Pack
from dapo.vocabulary import UNKNOWN_SLUG

PREFIX = "inspection"


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one deployment; `prefix` sets two of them on one broker apart.

    >>> Topics("plant2").defects("faulty-imprint")
    'plant2.defects.faulty-imprint'
    """

    prefix: str = PREFIX

    def __post_init__(self) -> None:
        allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-._")
        if not self.prefix or not set(self.prefix) <= allowed or len(self.prefix) > 80:
            raise SettingsError(
                f"kafka.prefix: '{self.prefix}' is no start of a topic name. Use a-z, 0-9, '-', '.' and '_', 80 at most."
            )

    @property
    def frames(self) -> str:
        return f"{self.prefix}.frames"

    @property
    def results(self) -> str:
        return f"{self.prefix}.results"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}.deadletter"

    @property
    def status(self) -> str:
        return f"{self.prefix}.status"

    @property
    def parts(self) -> str:
        return f"{self.prefix}.parts"

    @property
    def labels(self) -> str:
        return f"{self.prefix}.labels"

    def defects(self, slug: str) -> str:
        """Topic of one defect type. Slugs come from a pack, which has checked them: no text of a frame names a topic."""
        return f"{self.prefix}.defects.{slug}"

    def all(self, pack: Pack) -> list[str]:
        """Every topic that frames judged with this pack can be written to, and those read or written beside them."""
        types = sorted(
            {UNKNOWN_SLUG, *(slug for product in pack.products.values() for slug in product.types)}
        )
        fixed = [self.frames, self.results, self.dead_letters, self.status, self.parts, self.labels]
        return [*fixed, *(self.defects(slug) for slug in types)]
