"""Open a data set by what a user types: `mvtec:/data/mvtec`, a path whose layout tells what it is, or `archive:30d`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dapo.errors import SourceError
from dapo.vocabulary import nearest
from pipeline.settings import Settings
from trainer.data.archive import open_archive
from trainer.data.coco import CocoFile, Unannotated
from trainer.data.dataset import Dataset, Groups, ProductData
from trainer.data.folder import PlainFolder
from trainer.data.label_studio import LabelStudioExport
from trainer.data.mvtec import MvtecLayout
from trainer.data.reading import is_file, is_folder, read_json
from trainer.data.real_iad import RealIadLayout
from trainer.data.visa import VisaLayout
from trainer.data.words import Words


@dataclass(frozen=True)
class Options:
    """What is said beside the path.

    Attributes:
        words: a user's map of names to words.
        groups: which frames show one part.
        unannotated: what an image of a COCO file without annotation is.
        settings: of the archive's store and the pack that names its types; None: of the environment.
    """

    words: Path | None = None
    groups: Path | None = None
    unannotated: Unannotated = "unlabelled"
    settings: Settings | None = None


_Open = Callable[[Path, Options], Dataset]
FORMATS: Mapping[str, _Open] = {
    "mvtec": lambda path, o: MvtecLayout(path, Words(("mvtec",), o.words)),
    "mpdd": lambda path, o: MvtecLayout(path, Words(("mpdd",), o.words)),
    "mad": lambda path, o: MvtecLayout(path, Words(("mad",), o.words)),
    "visa": lambda path, o: VisaLayout(path, Words(("visa",), o.words)),
    "real-iad": lambda path, o: RealIadLayout(path, Words(("real_iad",), o.words)),
    "folder": lambda path, o: PlainFolder(path, Words((), o.words)),
    "coco": lambda path, o: CocoFile(path, Words((), o.words), unannotated=o.unannotated),
    "label-studio": lambda path, o: LabelStudioExport(path, Words((), o.words)),
    "archive": lambda path, o: open_archive(str(path), Words((), o.words), o.settings),
}


class Grouped:
    """A data set with the groups of a file."""

    def __init__(self, data: Dataset, groups: Groups) -> None:
        self._data, self._groups = data, groups

    def products(self) -> list[str]:
        return self._data.products()

    def product(self, name: str) -> ProductData:
        return self._groups.applied(self._data.product(name))


def open_dataset(name: str, options: Options | None = None) -> Dataset:
    """Open a data set; nothing is decoded yet.

    Args:
        name: FORMAT:PATH, a path alone, or archive:DAYS.

    Raises:
        SourceError: there is nothing, or it is of no layout that is known; says what was looked for.

    Example:
        data = open_dataset("visa:/data/VisA").product("candle")
    """
    options = options or Options()
    kind, _, rest = name.partition(":")
    if rest and kind in FORMATS:
        data = FORMATS[kind](Path(rest), options)
    elif rest and kind.replace("-", "_").isidentifier() and not Path(name).parent.is_dir():
        near = nearest(kind, FORMATS)
        hint = f" Did you mean '{near}'?" if near else f" Known: {', '.join(FORMATS)}."
        raise SourceError(f"{name}: no such path, and '{kind}' is no format of data sets.{hint}")
    else:
        data = _found(Path(name), options)
    return data if options.groups is None else Grouped(data, Groups.read(options.groups))


def _found(path: Path, options: Options) -> Dataset:
    if is_file(path):
        document = read_json(path)
        if CocoFile.fits(document):
            return FORMATS["coco"](path, options)
        if LabelStudioExport.fits(document):
            return FORMATS["label-studio"](path, options)
        raise SourceError(
            f"{path}: expected {CocoFile.expected} (COCO), or {LabelStudioExport.expected} (Label Studio)."
        )
    if not is_folder(path):
        raise SourceError(f"{path}: no such folder or file. Expected labelled images: {_EXPECTED}.")
    if RealIadLayout.fits(path):
        return FORMATS["real-iad"](path, options)
    if VisaLayout.fits(path):
        return FORMATS["visa"](path, options)
    if MvtecLayout.fits(path):
        # The three sets of this layout share no name of a folder with another meaning.
        return MvtecLayout(path, Words(("mvtec", "mpdd", "mad"), options.words, lists=False))
    if PlainFolder.fits(path):
        return FORMATS["folder"](path, options)
    raise SourceError(f"{path}: no labelled images in it that are understood. Expected {_EXPECTED}.")


_EXPECTED = (
    f"{MvtecLayout.expected} (MVTec, MPDD, MAD); {VisaLayout.expected} (VisA); {RealIadLayout.expected} (Real-IAD); "
    f"{PlainFolder.expected} (plain); or a JSON file of COCO or Label Studio"
)
