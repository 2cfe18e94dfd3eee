"""The prompt pack: everything a deployment may change, as data. No torch, no pickle.

A pack names its encoder by hash, carries the text vectors (and, trained, the learned prompts and adapters), the words,
and per product its types, regions, scale and thresholds. Thresholds change without export; a new type is one new row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dapo.errors import PackError
from dapo.vocabulary import check_slugs, nearest, slugify

Polygon = tuple[tuple[float, float], ...]
ANY_PRODUCT = "*"
FORMAT = 1
Kind = Literal["dapo", "handwritten"]
# Names of the tensors that decide the features of an image begin with one of these.
IMAGE_SIDE = ("prompt.visual", "adapter.", "patch.")
REFERENCE = "reference."  # followed by the name of a product: its memory of good frames
PAIR = "text.product."  # followed by the name of a product: its own normal and defect vectors
USUAL = "usual."  # followed by the name of a product: what it looks like, to notice when it no longer does
STEM_TAP = "patch.memory"  # followed by .weight or .bias: what makes one more tap of the stem
MAX_TILES = 32  # per side; more is a setting gone wrong: 1,024 tiles of one frame


@dataclass(frozen=True)
class EncoderRef:
    """The encoder a pack was made for.

    Attributes:
        name: open_clip architecture, or "dapo-tiny".
        weights: hub tag, "bundled", "file" or "random:SEED".
        sha256: of the weights (`dapo.encoder.weights_hash`).
        image_size: side of the model's input in px.
        patch_grid: patches a side.
        joint_width: D.
        activation: "quick_gelu" or "gelu", which the hash of the weights can't tell; None: a pack from before this was
            recorded.
    """

    name: str
    weights: str
    sha256: str
    image_size: int
    patch_grid: int
    joint_width: int
    activation: str | None = None


@dataclass(frozen=True)
class TypeWord:
    """A defect type: its slug, its word, and whether the encoder was trained on the word."""

    slug: str
    word: str
    trained: bool = True


@dataclass(frozen=True)
class Tiles:
    """Cut a frame into rows x columns that overlap by a fraction of a tile's side (0 to 0.5)."""

    rows: int
    columns: int
    overlap: float = 0.1


@dataclass(frozen=True)
class Reference:
    """How a product's memory of good frames (tensor `reference.<product>`) counts, beside its words. `default` scoring only.

    Attributes:
        taps: numbers, from 0, of the taps that the memory was made of.
        middle: distance that means an anomaly of a half; what few good cells reach.
        spread: of the distances around it.
        map_weight: of its map, 0..1; the words' map has the rest.
        score_weight: of its score, 0..1; the words' score has the rest.
        frames: good ones that it was made of.
    """

    taps: tuple[int, ...]
    middle: float
    spread: float
    map_weight: float
    score_weight: float
    frames: int


@dataclass(frozen=True)
class Product:
    """What is said of one product.

    Attributes:
        types: slugs of its own defect types.
        threshold_ok: score below which a frame is OK; None: uncalibrated. What moves scores unsets both thresholds: old
            ones would give verdicts on other numbers than they were set for.
        threshold_notok: score from which a frame is NotOK; None: uncalibrated.
        type_thresholds: slug -> (ok, notok) in their place for frames whose likeliest type it is: a crack may be stopped
            sooner than a scratch.
        mask_threshold: anomaly from which a pixel is a defect, 0..1.
        min_area_px: smaller regions are dropped, in px of the frame.
        max_regions: most regions of one frame.
        roi: polygons to look at; none: the whole frame. Corners as fractions of width and height.
        ignore: polygons not to look at.
        tiles: cut before inspection, merged before judging.
        mm_per_px: scale of the frame.
        reference: its memory of good frames; None: it has none.
        calibrated: thresholds were set for the scores as they are now.
        calibration: how, by `dapo calibrate`.
    """

    types: tuple[str, ...] = ()
    threshold_ok: float | None = None
    threshold_notok: float | None = None
    type_thresholds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    mask_threshold: float = 0.5
    min_area_px: int = 16
    max_regions: int = 32
    roi: tuple[Polygon, ...] = ()
    ignore: tuple[Polygon, ...] = ()
    tiles: Tiles | None = None
    mm_per_px: float | None = None
    reference: Reference | None = None
    calibrated: bool = False
    calibration: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scoring:
    """How features become scores. The defaults served dapo-tiny best on surfaces it was not trained on (docs/encoder.md).

    Attributes:
        kind: "default": generic words detect, the product's words type; "paper": as DAPO's paper, the rest is off.
        top_k_fraction: share of the cells whose mean is the map's part of the score.
        fuse_map: 0 CLS only .. 1 map only.
        smoothing_sigma: Gaussian on the map, in patch cells; 0 none.
        type_fuse_cls: 0 types from the cells only .. 1 from CLS only.
    """

    kind: Literal["default", "paper"] = "default"
    top_k_fraction: float = 0.01
    fuse_map: float = 0.25
    smoothing_sigma: float = 0.65
    type_fuse_cls: float = 0.25


@dataclass(frozen=True)
class Pack:
    """A prompt pack; immutable. Every change gives a new one with another hash.

    Attributes:
        kind: "dapo" (learned) or "handwritten" (day zero).
        types: row order of `text.types`.
        generic_words: detect under default scoring.
        products: "*" is always there and judges every product the pack does not know.
        tensors: float32. `text.normal` [D], `text.generic` [D], `text.types` [K, D], L2-normalised; learned packs also
            `prompt.normal`, `prompt.abnormal` [E, l, Wt], `prompt.text.i` [n, Wt], `prompt.visual` [L, n, Wv],
            `adapter.i.weight` [D, Wv], `adapter.i.bias` [D], and where scope `stem` was tuned `patch.weight` [D, C]
            (`dapo.patches`). `text.product.<product>` [2, D], L2-normalised: a product's own normal and defect directions,
            which detect in the place of `text.normal` and `text.generic`. `reference.<product>` [M, R], L2-normalised:
            memories of good frames; where one is made of the stem, `patch.memory.weight` [D, C], `patch.memory.bias` [D]
            (`dapo.reference`). `usual.<product>` [F, 1+D]: anomaly score and image feature of frames that show what the
            product usually looks like (`with_usual`); they decide nothing.

    Raises:
        PackError: the parts contradict each other.
        VocabularyError: two words share a slug.
    """

    kind: Kind
    encoder: EncoderRef
    scoring: Scoring
    temperature: float
    alpha: float
    readout: Literal["eot", "reference"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    types: tuple[TypeWord, ...]
    generic_words: tuple[str, ...]
    products: Mapping[str, Product]
    provenance: Mapping[str, Any]
    tensors: Mapping[str, NDArray[np.float32]]

    def __post_init__(self) -> None:
        _check(self)

    @cached_property
    def configuration_hash(self) -> str:
        """SHA-256 over everything: canonical JSON, then each tensor by name: dtype, shape, bytes (little endian)."""
        digest = hashlib.sha256(canonical_json(self).encode())
        for name in sorted(self.tensors):
            array = np.ascontiguousarray(self.tensors[name], dtype="<f4")
            digest.update(f"{name} {array.dtype.str} {list(array.shape)}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    @cached_property
    def features_hash(self) -> str:
        """SHA-256 of the image side: all that decides the features of an image, and nothing else."""
        said = {
            "encoder": asdict(self.encoder),
            "kind": self.kind,
            "mean": self.mean,
            "std": self.std,
            "alpha": self.alpha,
        }
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        for name in sorted(self.tensors):
            if name.startswith(IMAGE_SIDE):
                array = np.ascontiguousarray(self.tensors[name], dtype="<f4")
                digest.update(f"{name} {list(array.shape)}\n".encode())
                digest.update(array.tobytes())
        return digest.hexdigest()

    @property
    def has_stem_tap(self) -> bool:
        """Whether the image side gives one tap more, for memories alone."""
        return f"{STEM_TAP}.weight" in self.tensors

    def product(self, name: str) -> Product:
        """The product, or "*" for one the pack does not know."""
        return self.products.get(name, self.products[ANY_PRODUCT])

    def with_products(self, products: Mapping[str, Product]) -> Pack:
        """The same pack with some products set."""
        return replace(self, products={**self.products, **products})


def _check(pack: Pack) -> None:
    if ANY_PRODUCT not in pack.products:
        raise PackError("products: '*' is missing. It judges every product the pack does not know: add it.")
    check_slugs(word.word for word in pack.types)
    slugs = {word.slug for word in pack.types}
    for word in pack.types:
        if word.slug != slugify(word.word):
            raise PackError(f"types: '{word.word}' has slug '{word.slug}', expected '{slugify(word.word)}'.")
    if not pack.temperature > 0:
        raise PackError(f"temperature: {pack.temperature} is not above 0.")
    for name, product in pack.products.items():
        _check_product(name, product, slugs)
        _check_reference(name, product.reference, pack)
    width = pack.encoder.joint_width
    expected = {"text.normal": (width,), "text.generic": (width,), "text.types": (len(pack.types), width)}
    expected |= {name: (2, width) for name in pack.tensors if name.startswith(PAIR)}
    for name, shape in expected.items():
        found = pack.tensors.get(name)
        if found is None:
            raise PackError(f"tensor {name}: missing.")
        if found.shape != shape:
            raise PackError(f"tensor {name}: expected shape {list(shape)}, found {list(found.shape)}.")
        with np.errstate(
            over="ignore"
        ):  # a flipped bit may make a number of 10^38: its norm is infinite, and told below
            norms = np.linalg.norm(np.atleast_2d(found), axis=-1)
        if found.size and not np.allclose(norms, 1, atol=1e-3):
            raise PackError(
                f"tensor {name}: its rows are not L2-normalised (norms {norms.min():.3f} to {norms.max():.3f})."
            )
    for name, array in pack.tensors.items():
        for prefix in (PAIR, USUAL):
            if name.startswith(prefix) and name.removeprefix(prefix) not in pack.products:
                raise PackError(f"tensor {name}: the pack has no such product.")
        if name.startswith(USUAL) and (array.ndim != 2 or array.shape[1] != 1 + width or not len(array)):
            raise PackError(f"tensor {name}: expected rows of {1 + width}, found {list(array.shape)}.")
        if array.dtype != np.float32:
            raise PackError(f"tensor {name}: expected float32, found {array.dtype}.")
        if not np.isfinite(array).all():
            raise PackError(f"tensor {name}: holds values that are not finite.")


def _check_reference(name: str, reference: Reference | None, pack: Pack) -> None:
    where, memory = f"product {name}: reference", pack.tensors.get(REFERENCE + name)
    if (reference is None) != (memory is None):
        raise PackError(
            f"{where}: needs both its figures and the tensor {REFERENCE + name}, or none of them."
        )
    if reference is None or memory is None:
        return
    expected = len(reference.taps) * pack.encoder.joint_width
    if memory.ndim != 2 or memory.shape[1] != expected or not len(memory):
        raise PackError(
            f"tensor {REFERENCE + name}: expected rows of {expected}, found {list(memory.shape)}."
        )
    if len(set(reference.taps)) != len(reference.taps) or min(reference.taps, default=-1) < 0:
        raise PackError(f"{where}: taps {reference.taps} are not different numbers from 0 on.")
    weights = (reference.map_weight, reference.score_weight)
    if not reference.spread > 0 or not all(0 <= weight <= 1 for weight in weights):
        raise PackError(f"{where}: spread must be above 0, and weights {weights} in 0..1.")


def _check_product(name: str, product: Product, slugs: set[str]) -> None:
    where = f"product {name}"
    for slug in product.types:
        if slug not in slugs:
            near = nearest(slug, slugs)
            hint = f" Did you mean '{near}'?" if near else ""
            raise PackError(f"{where}: type '{slug}' is not in the pack's vocabulary.{hint}")
    if len(set(product.types)) != len(product.types):
        raise PackError(f"{where}: a type is listed twice.")
    ok, notok = product.threshold_ok, product.threshold_notok
    if (ok is None) != (notok is None):
        raise PackError(f"{where}: set both thresholds or none (ok {ok}, notok {notok}).")
    pairs = {"": (ok, notok), **{f" of {slug}": pair for slug, pair in product.type_thresholds.items()}}
    for what, (low, high) in pairs.items():
        if low is not None and high is not None and not 0 <= low <= high <= 1:
            raise PackError(
                f"{where}: thresholds{what} must be 0 <= ok <= notok <= 1, found ok {low}, notok {high}."
            )
    if foreign := set(product.type_thresholds) - set(product.types):
        raise PackError(f"{where}: has thresholds of '{min(foreign)}', which is none of its types.")
    if product.type_thresholds and ok is None:
        raise PackError(f"{where}: has thresholds of types, but none for all others. Set them too.")
    if not 0 <= product.mask_threshold <= 1:
        raise PackError(f"{where}: mask_threshold {product.mask_threshold} is not in 0..1.")
    if product.min_area_px < 0 or product.max_regions < 1:
        raise PackError(f"{where}: min_area_px must be >= 0 and max_regions >= 1.")
    if product.mm_per_px is not None and not 0 < product.mm_per_px < float("inf"):
        raise PackError(f"{where}: mm_per_px {product.mm_per_px} is not a number above 0.")
    if (tiles := product.tiles) and not (
        1 <= tiles.rows <= MAX_TILES and 1 <= tiles.columns <= MAX_TILES and 0 <= tiles.overlap <= 0.5
    ):
        raise PackError(
            f"{where}: tiles need 1..{MAX_TILES} rows and columns and an overlap of 0..0.5, found {tiles}."
        )
    for kind, polygons in (("roi", product.roi), ("ignore", product.ignore)):
        for polygon in polygons:
            inside = all(0 <= x <= 1 and 0 <= y <= 1 for x, y in polygon)
            if len(polygon) < 3 or not inside:
                raise PackError(
                    f"{where}: {kind} needs polygons of 3 or more corners in fractions 0..1 of the frame."
                )


def as_json(pack: Pack) -> dict[str, Any]:
    """Everything of a pack but its tensors, as plain data."""
    plain = {f.name: _plain(getattr(pack, f.name)) for f in fields(pack) if f.name != "tensors"}
    if pack.encoder.activation is None:
        del plain["encoder"]["activation"]  # packs from before it was recorded keep their hash
    for product in plain["products"].values():
        for name in ("type_thresholds", "reference"):
            if not product[name]:
                del product[name]  # the same
    return plain


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(item) for name, item in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def canonical_json(pack: Pack) -> str:
    """Sorted keys, no spaces, no NaN: the same pack gives the same bytes on every machine."""
    return json.dumps(
        as_json(pack), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True
    )
