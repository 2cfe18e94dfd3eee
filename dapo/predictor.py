"""A prompt pack at work: frames in, predictions out. The text tower is never run here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dapo import head, reference
from dapo.errors import SettingsError
from dapo.inspection import Prediction
from dapo.pack import PAIR, REFERENCE, Pack, Reference, Scoring
from dapo.preprocess import normalise
from dapo.runtime import Runtime, open_run

# open_clip takes seconds to import, and a head alone does not need it: `ImageSide` imports what does.
if TYPE_CHECKING:
    from dapo.encoder import Encoder
    from dapo.model import ImageFeatures


class Predictor:
    """Inspects batches of frames under one prompt pack: an `ImageSide`, and a `Head` after it.

    A frame's numbers do not depend on the frames and products beside it in the batch.

    Args:
        pack: what to inspect with; its text vectors are read, never computed.
        weights: local file of the encoder's weights, instead of the bundle or the hub.
        device: "cpu", "cuda", "cuda:1".
        threads: on a CPU, of torch for the whole process too; None: as many as cores.
        runtime: who runs the image tower; see `dapo.runtime.open_run`.
        batch: frames per run on a GPU; fewer are filled up. On a CPU each frame runs alone; see `dapo.runtime.open_run`.
        scoring: instead of the pack's own.
        encoder: already loaded, instead of loading one; it is moved to `device`.

    Attributes:
        pack: as given.
        image_size: side S of the square input in px.
        scoring: in force.

    Raises:
        EncoderMismatch: the encoder is not the one the pack was made for.
        WeightsNotFound: no weights are found.
        SettingsError: torch can't use `device`, or the runtime can't be had.

    Example:
        predictor = Predictor(read_pack("default.pack"))
        image = resize(pixels, predictor.image_size)
        [prediction] = predictor.predict(image[None], ["bottle"])
    """

    def __init__(
        self,
        pack: Pack,
        *,
        weights: Path | None = None,
        device: str = "cpu",
        threads: int | None = None,
        runtime: Runtime = "auto",
        batch: int = 8,
        scoring: Scoring | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        self._side = ImageSide(
            pack,
            weights=weights,
            device=device,
            threads=threads,
            runtime=runtime,
            batch=batch,
            encoder=encoder,
        )
        self._head = Head(pack, device=device, scoring=scoring)
        self.pack = pack
        self.scoring = self._head.scoring
        self.image_size = self._side.image_size

    def predict(self, images: NDArray[np.uint8], products: Sequence[str]) -> list[Prediction]:
        """Inspect a batch; it may mix products.

        Args:
            images: RGB uint8 [B, S, S, 3], resized by `dapo.preprocess.resize`.
            products: name of each frame's product; an unknown one is inspected as "*".

        Returns:
            One prediction per frame. `type_map` and `type_scores` index the product's own types.
        """
        if len(images) != len(products):
            raise ValueError(f"{len(images)} images for {len(products)} products")
        if not len(images):
            return []
        return self.predictions(self.features(images), products)

    def predictions(self, features: ImageFeatures, products: Sequence[str]) -> list[Prediction]:
        """The head alone: features of a batch, name of each frame's product -> one prediction per frame."""
        return self._head.predict(features.cls, torch.stack(features.taps, 1), products)

    def features(self, images: NDArray[np.uint8]) -> ImageFeatures:
        """See `ImageSide.features`."""
        return self._side.features(images)


class ImageSide:
    """The half of a predictor that looks at pixels: encoder, visual prompts, adapters. Types do not matter to it.

    Args:
        pack, weights, device, threads, runtime, batch, encoder: see `Predictor`.

    Attributes:
        image_size: side S of the square input in px.

    Raises:
        EncoderMismatch, WeightsNotFound, SettingsError: see `Predictor`.
    """

    def __init__(
        self,
        pack: Pack,
        *,
        weights: Path | None = None,
        device: str = "cpu",
        threads: int | None = None,
        runtime: Runtime = "auto",
        batch: int = 8,
        encoder: Encoder | None = None,
    ) -> None:
        from dapo.packing import check_encoder, load_pack_encoder
        from dapo.tower import ImageTower

        if threads is not None:
            torch.set_num_threads(threads)
        target = usable_device(device)
        if encoder is None:
            encoder = load_pack_encoder(pack, weights)
        else:
            check_encoder(pack, encoder)
        self._pack = pack
        self.image_size = encoder.image_size
        tower = ImageTower(pack, encoder).eval().requires_grad_(False).to(target)
        self._run = open_run(
            tower, encoder.image_size, device=target, runtime=runtime, threads=threads, batch=batch
        )

    def features(self, images: NDArray[np.uint8]) -> ImageFeatures:
        """Image and patch features in the joint space, L2-normalised, of RGB uint8 [B, S, S, 3], B > 0."""
        from dapo.model import ImageFeatures

        size = self.image_size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise ValueError(
                f"expected uint8 [B, {size}, {size}, 3], got {images.dtype} {list(images.shape)}"
            )
        cls, *taps = self._run(normalise(images, self._pack.mean, self._pack.std))
        return ImageFeatures(cls, taps)


class Head:
    """The half of a predictor that knows words: features and text vectors to predictions. It needs no encoder.

    Args:
        pack, device, scoring: see `Predictor`.

    Attributes:
        pack: as given.
        scoring: in force.

    Raises:
        SettingsError: torch can't use `device`.
    """

    def __init__(self, pack: Pack, *, device: str = "cpu", scoring: Scoring | None = None) -> None:
        target = usable_device(device)
        self.pack = pack
        self.scoring = scoring or pack.scoring
        self._types = _tensor(pack, "text.types", target)
        self._normal = _tensor(pack, "text.normal", target)
        self._detect = torch.stack([self._normal, _tensor(pack, "text.generic", target)])
        self._pairs = {
            name: _tensor(pack, PAIR + name, target) for name in pack.products if PAIR + name in pack.tensors
        }
        self._vocabulary = torch.cat([self._normal[None], self._types])
        self._rows = {word.slug: row for row, word in enumerate(pack.types)}
        self._own: dict[tuple[str, ...], Tensor] = {}
        self._memories = {
            name: (product.reference, _tensor(pack, REFERENCE + name, target))
            for name, product in pack.products.items()
            if product.reference is not None
        }

    @torch.inference_mode()
    def predict(self, cls: Tensor, taps: Tensor, products: Sequence[str]) -> list[Prediction]:
        """Features of a batch to one prediction per frame.

        Args:
            cls: [B, D], L2-normalised.
            taps: [B, taps, N, D], L2-normalised; the stem's is the last, where the pack has one.
            products: name of each frame's product; an unknown one is inspected as "*".
        """
        return [self._inspect(*one) for one in zip(cls, taps, products, strict=True)]

    def _inspect(self, cls: Tensor, taps: Tensor, product: str) -> Prediction:
        """One frame: cls [D], taps [taps, N, D]."""
        own = self._own_types(self.pack.product(product).types)
        paper = self.scoring.kind == "paper"
        memory = None if paper else self._remembered(taps, product)
        taps = taps[:-1] if self.pack.has_stem_tap else taps
        score, cells = self._paper(cls, taps) if paper else self._default(cls, taps, product, memory)
        if len(own):
            logits = self._paper_types(taps, own) if paper else taps.mean(0) @ own.T / self.pack.temperature
            image = (cls[None] @ own.T / self.pack.temperature)[0]
            weight = 0.0 if paper else self.scoring.type_fuse_cls
            type_map = logits.argmax(-1).reshape(cells.shape)
            type_scores = head.type_distribution(logits, cells.flatten(), image, weight)
        else:
            type_map, type_scores = torch.zeros_like(cells), cells.new_empty(0)
        return Prediction(
            score=float(score),
            map=cells.cpu().numpy().astype(np.float16),
            type_map=type_map.cpu().numpy().astype(np.uint16),
            type_scores=type_scores.cpu().numpy(),
        )

    def _default(
        self, cls: Tensor, taps: Tensor, product: str, memory: tuple[Reference, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Generic words detect, or the product's own pair, and its memory where it has one. No type moves a bit of it."""
        tau, scoring = self.pack.temperature, self.scoring
        detect = self._pairs.get(product, self._detect)
        image = head.image_probabilities(cls[None], detect, tau)[0, 1]
        cells = _square((taps @ detect.T / tau).softmax(-1)[..., 1].mean(0))
        cells = head.smooth(cells, scoring.smoothing_sigma)
        score = (1 - scoring.fuse_map) * image + scoring.fuse_map * head.top_mean(
            cells, scoring.top_k_fraction
        )
        if memory is not None:
            known, far = memory
            far = head.smooth(_square(far), scoring.smoothing_sigma)
            score = torch.lerp(score, head.top_mean(far, scoring.top_k_fraction), known.score_weight)
            cells = torch.lerp(cells, far, known.map_weight)
        return score, cells

    def _remembered(self, taps: Tensor, product: str) -> tuple[Reference, Tensor] | None:
        """The product's memory, and how anomalous it finds each cell, [N]."""
        found = self._memories.get(product)
        if found is None:
            return None
        known, memory = found
        distance = reference.distances(reference.cell_features(taps, known.taps), memory)
        return known, reference.anomaly(distance, known)

    def _paper(self, cls: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
        """Method section 3 over the pack's whole vocabulary; the map divided by the taps."""
        tau = self.pack.temperature
        score = head.image_probabilities(cls[None], head.pair(self._vocabulary), tau)[0, 1]
        states = torch.stack(head.patch_states(list(taps), self._vocabulary, tau))
        return score, _square((1 - states[..., 0]).mean(0))

    def _paper_types(self, taps: Tensor, own: Tensor) -> Tensor:
        """[N, K], log of the sum over taps of S_l of the product's own types, beside the normal state."""
        text = torch.cat([self._normal[None], own])
        return torch.stack(head.patch_states(list(taps), text, self.pack.temperature)).sum(0)[:, 1:].log()

    def _own_types(self, slugs: tuple[str, ...]) -> Tensor:
        if slugs not in self._own:
            self._own[slugs] = self._types[[self._rows[slug] for slug in slugs]]
        return self._own[slugs]


def _tensor(pack: Pack, name: str, device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(pack.tensors[name], np.float32)).to(device)


def _square(cells: Tensor) -> Tensor:
    grid = round(len(cells) ** 0.5)
    return cells.reshape(grid, grid)


def usable_device(name: str) -> torch.device:
    """The device of this name, set up for results that do not differ from run to run.

    Raises:
        SettingsError: torch knows none, or can't use it.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"device {name}: torch knows no such device. Take 'cpu' or 'cuda'.") from error
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"device {name}: the model runs on 'cpu' or 'cuda' only. Take one of them.")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise SettingsError(
                f"device {name}: this machine has no CUDA device that torch can use. Take 'cpu'."
            )
        if (device.index or 0) >= torch.cuda.device_count():
            raise SettingsError(
                f"device {name}: this machine has CUDA devices 0 to {torch.cuda.device_count() - 1} only."
            )
        torch.backends.cudnn.allow_tf32 = (
            False  # TF32 moves scores in the third digit: thresholds are set in float32
        )
        torch.backends.cudnn.benchmark = False  # algorithms chosen by timing differ from run to run
    return device
