"""The models and their tensors: what config.pbtxt, README.md, the model code and the client are made from.

image ------> clip_encoder --> cls, taps, features_hash --> dapo_head --> score, map, type_map, type_scores, pack_hash
product ------------------------------------------------------^
"""

from __future__ import annotations

from dataclasses import dataclass

from dapo.errors import DapoError
from dapo.pack import Pack

# Frames of one request, and of one run. More fills a GPU no better at these sizes and makes the last frame wait.
MAX_BATCH = 8
# `type_map` is UINT8: its 255 is the last index. One less leaves a value that means nothing.
MAX_TYPES = 255
HASH_BYTES = 32  # SHA-256


class ContractError(DapoError):
    """A pack asks for more than the contract with the model server can carry."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of the contract.

    Attributes:
        name: as Triton knows it.
        dtype: as Triton names it ("UINT8").
        dims: of one frame, without the batch: numbers, or symbols of `Sizes`.
        meaning: one line for people.
    """

    name: str
    dtype: str
    dims: tuple[str | int, ...]
    meaning: str


@dataclass(frozen=True)
class Model:
    """One model of the repository: its name, what goes in and what comes out."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    meaning: str


@dataclass(frozen=True)
class Sizes:
    """Sizes that all versions kept on one server share; Triton checks every request against them.

    Attributes:
        image: S, side of the model's input in px.
        grid: G, patches a side.
        width: D, width of the joint space.
    """

    image: int
    grid: int
    width: int

    @classmethod
    def of(cls, pack: Pack) -> Sizes:
        """The sizes of a pack's encoder."""
        return cls(pack.encoder.image_size, pack.encoder.patch_grid, pack.encoder.joint_width)

    def dims(self, tensor: Tensor) -> list[int]:
        """Dimensions of a tensor as Triton's configuration has them: -1 where versions differ (L, K_max)."""
        known = {"S": self.image, "G": self.grid, "N": self.grid**2, "D": self.width}
        return [known.get(dim, -1) if isinstance(dim, str) else dim for dim in tensor.dims]


IMAGE = Tensor("image", "UINT8", ("S", "S", 3), "RGB, resized by `dapo.preprocess.resize`")
PRODUCT = Tensor("product", "INT64", (1,), "index in the pack's product names, sorted by code point")
CLS = Tensor("cls", "FP32", ("D",), "image feature, L2-normalised")
TAPS = Tensor("taps", "FP32", ("L", "N", "D"), "patch features of L taps, L2-normalised")
FEATURES_HASH = Tensor("features_hash", "UINT8", (HASH_BYTES,), "which image side made the features")
SCORE = Tensor("score", "FP32", (1,), "anomaly score in 0..1")
MAP = Tensor("map", "FP16", ("G", "G"), "anomaly per patch cell in 0..1")
TYPE_MAP = Tensor(
    "type_map", "UINT8", ("G", "G"), "likeliest type per cell, index in the product's own types"
)
TYPE_SCORES = Tensor(
    "type_scores", "FP32", ("K_max",), "distribution over the product's own types, then -inf up to K_max"
)
PACK_HASH = Tensor(
    "pack_hash",
    "UINT8",
    (HASH_BYTES,),
    "configuration hash of the pack; zeros: the features are of another pack",
)

ENCODER = Model(
    "clip_encoder",
    (IMAGE,),
    (CLS, TAPS, FEATURES_HASH),
    "encoder with the pack's visual prompts and adapters",
)
HEAD = Model(
    "dapo_head",
    (CLS, TAPS, FEATURES_HASH, PRODUCT),
    (SCORE, MAP, TYPE_MAP, TYPE_SCORES, PACK_HASH),
    "text vectors, products and scoring of the pack",
)
CHALLENGER = "dapo_challenger"  # a second ensemble, over other versions of the same models
ENSEMBLE = Model(
    "dapo", (IMAGE, PRODUCT), HEAD.outputs, "what clients ask: both models, each pinned to one version"
)


def product_names(pack: Pack) -> list[str]:
    """The pack's products in the order that `product` indexes."""
    return sorted(pack.products)


def max_types(pack: Pack) -> int:
    """K_max of a pack: the most types of one product, at least 1 (Triton knows no empty tensors)."""
    return max(1, *(len(product.types) for product in pack.products.values()))


def check(pack: Pack) -> None:
    """Refuse a pack that the contract can't carry.

    Raises:
        ContractError: a product has more types than `type_map` can name.
    """
    for name, product in sorted(pack.products.items()):
        if len(product.types) > MAX_TYPES:
            raise ContractError(
                f"product {name}: {len(product.types)} types, but a model server answers with at most {MAX_TYPES} "
                "of one product (type_map is UINT8). Give the product only the types that occur on it."
            )
