"""The archive's frames for a retuning that nobody watches: what can't be used is left out and told, and ends no night's run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from dapo.errors import ServiceUnavailable, SourceError
from trainer.data.archive import ArchiveDataset
from trainer.data.dataset import choose
from trainer.data.sample import Sample, State
from trainer.tuning.run import Progress


def usable(
    data: ArchiveDataset, wanted: Sequence[str], tell: Progress, say: Callable[[str], None]
) -> dict[str, tuple[Sample, ...]]:
    """The frames of each product. Names come from outside, labels from people, and pictures may be gone.

    Args:
        wanted: products; none: all.
        tell: of progress.
        say: of what is left out, a sentence each.

    Raises:
        SourceError: a product that is wanted is not there, or the store is away.
    """

    def skip(name: str, why: SourceError) -> None:
        if isinstance(why.__cause__, ServiceUnavailable):
            raise why
        say(f"{name} is left out: {why}")

    found: dict[str, list[Sample]] = {}
    for name in choose(data.products(), wanted, "the archive"):
        try:
            found[name] = [sample for sample, _ in data.judged(name, skip)]
        except SourceError as error:
            if name in wanted:
                raise
            skip(f"product {name}", error)
    labelled = [s for own in found.values() for s in own if s.state is not State.UNLABELLED]
    dropped: set[str] = set()
    for number, sample in enumerate(labelled, 1):
        try:
            sample.image()
        except SourceError as error:
            skip(sample.key, error)
            dropped.add(sample.key)
        tell("frames", number, len(labelled))
    dropped |= _copies([s for s in labelled if s.key not in dropped], say)
    return {name: tuple(s for s in own if s.key not in dropped) for name, own in found.items()}


def _copies(labelled: Sequence[Sample], say: Callable[[str], None]) -> set[str]:
    """Frames that show the very picture of an earlier one; where they are labelled otherwise, that one too.

    A camera that stands, or a day that is fed again, gives one picture to several parts, which may be on different sides.
    """
    pictures: dict[str, list[Sample]] = defaultdict(list)
    for sample in labelled:
        pictures[sample.picture.version()].append(sample)
    copies: set[str] = set()
    for same in pictures.values():
        said = sorted({", ".join(sorted(sample.words)) or sample.state.value for sample in same})
        if len(said) > 1:
            say(f"{', '.join(s.key for s in same)}: one picture, labelled {' and '.join(said)}; left out")
            copies |= {sample.key for sample in same}
        else:
            copies |= {sample.key for sample in same[1:]}
    if copies:
        say(f"{len(copies)} labelled frames are left out: each is the very picture of another")
    return copies
