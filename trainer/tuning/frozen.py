"""The half of the model that a scope leaves as it is: from pixels to what is worth keeping, and from there to features."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dapo.encoder import Encoder
from dapo.model import DapoModel, ImageFeatures
from dapo.pack import Pack
from dapo.patches import after_stem, has_stem, patch_inputs
from dapo.preprocess import normalise
from dapo.tower import ImageTower
from dapo.vision import encode_image
from trainer.tuning.scope import Scope

Arrays = Mapping[str, NDArray[Any]]  # of one frame, by name
Tensors = Mapping[str, Tensor]  # of a batch, by name


class Frozen(Protocol):
    """What is computed once per frame.

    Attributes:
        identity: all that decides it, as plain data.
        together: frames that are computed in one run: on a CPU one.
    """

    identity: Mapping[str, Any]
    together: int

    def arrays(self, images: NDArray[np.uint8]) -> list[Arrays]:
        """RGB uint8 [B, S, S, 3] -> what is kept of each frame."""
        ...

    def features(self, model: DapoModel, kept: Tensors) -> ImageFeatures:
        """What was kept of a batch, on the model's device -> its features under the model as it is now."""
        ...

    def seen(self, tower: ImageTower, kept: Tensors) -> tuple[Tensor, ...]:
        """The same under a pack: CLS, then every tap."""
        ...


class Joint:
    """CLS and adapted patch features: what scope `text` leaves frozen. float16."""

    def __init__(self, pack: Pack, encoder: Encoder) -> None:
        self.together = _together(encoder)
        self.identity: Mapping[str, Any] = {
            "kind": "joint",
            "features": pack.features_hash,
            "device": _device(encoder).type,
        }
        self._tower = ImageTower(pack, encoder).eval().requires_grad_(False)
        self._pack, self._taps = pack, len(encoder.taps)

    def arrays(self, images: NDArray[np.uint8]) -> list[Arrays]:
        found = self.exact(images)
        both = _half(found["cls"]), _half(found["taps"])
        return [{"cls": one, "taps": its} for one, its in zip(*both, strict=True)]

    @torch.no_grad()
    def exact(self, images: NDArray[np.uint8]) -> dict[str, Tensor]:
        """The same stacked, before it is rounded."""
        device = next(self._tower.parameters()).device
        pixels = torch.from_numpy(normalise(images, self._pack.mean, self._pack.std)).to(device)
        cls, *taps = self._tower(pixels)
        return {"cls": cls, "taps": torch.stack(taps, 1)}

    def features(self, model: DapoModel, kept: Tensors) -> ImageFeatures:
        return ImageFeatures(kept["cls"].float(), list(kept["taps"][:, : self._taps].float().unbind(1)))

    def seen(self, tower: ImageTower, kept: Tensors) -> tuple[Tensor, ...]:
        return (kept["cls"].float(), *kept["taps"].float().unbind(1))


class Hidden:
    """What the blocks say under the pack's visual prompts, and the patch layer: what scope `stem` leaves frozen. float16."""

    def __init__(self, pack: Pack, encoder: Encoder) -> None:
        prompts = pack.tensors.get("prompt.visual")
        self.together = _together(encoder)
        self._prompts = None if prompts is None else torch.from_numpy(np.array(prompts, np.float32))
        said = "none" if prompts is None else hashlib.sha256(prompts.tobytes()).hexdigest()
        self.identity: Mapping[str, Any] = {
            "kind": "hidden",
            **_seen_by(encoder),
            "prompts": said,
            "alpha": pack.alpha,
        }
        self._encoder, self._alpha = encoder, pack.alpha
        self._taps = encoder.dense_taps if prompts is None else encoder.taps
        self._first = "stem" if has_stem(encoder.clip.visual) else "patches"

    @torch.inference_mode()
    def arrays(self, images: NDArray[np.uint8]) -> list[Arrays]:
        visual: Any = self._encoder.clip.visual
        device = visual.class_embedding.device
        seen = torch.from_numpy(normalise(images, self._encoder.mean, self._encoder.std)).to(device)
        prompts = None if self._prompts is None else self._prompts.to(device)
        if self._first == "stem":
            seen = visual.conv1.stem(seen)
            first = seen
            visual = after_stem(visual)
        else:
            first = visual.conv1(seen)
        out = encode_image(visual, seen, self._taps, prompts, self._alpha)
        rows = zip(_half(out.cls), _half(torch.stack(out.taps, 1)), _half(first), strict=True)
        return [{"cls": cls, "hidden": hidden, self._first: one} for cls, hidden, one in rows]

    def features(self, model: DapoModel, kept: Tensors) -> ImageFeatures:
        return model.adapted(
            kept["cls"].float(),
            kept["hidden"].float().unbind(1),
            self._patches(kept, model.patch is not None),
        )

    def seen(self, tower: ImageTower, kept: Tensors) -> tuple[Tensor, ...]:
        return tower.behind_blocks(
            kept["cls"].float(),
            kept["hidden"].float().unbind(1),
            self._patches(kept, True),
            kept[self._first].float(),
        )

    def _patches(self, kept: Tensors, wanted: bool) -> Tensor | None:
        """What the linear sees."""
        if not wanted:
            return None
        first = kept[self._first].float()
        if self._first == "stem":
            return patch_inputs(self._encoder.clip.visual, first)
        return first.flatten(2).transpose(1, 2)


class Stem:
    """What dapo-tiny's frozen stem says: the most of its work, and all of it that lies before the prompts. float16."""

    def __init__(self, encoder: Encoder) -> None:
        self.together = _together(encoder)
        self.identity: Mapping[str, Any] = {"kind": "stem", **_seen_by(encoder)}
        self._encoder = encoder

    @torch.inference_mode()
    def arrays(self, images: NDArray[np.uint8]) -> list[Arrays]:
        visual: Any = self._encoder.clip.visual
        pixels = torch.from_numpy(normalise(images, self._encoder.mean, self._encoder.std))
        said = visual.conv1.stem(pixels.to(visual.class_embedding.device))
        return [{"stem": one} for one in _half(said)]

    def features(self, model: DapoModel, kept: Tensors) -> ImageFeatures:
        return model.image_features(kept["stem"].float(), stem=True)

    def seen(self, tower: ImageTower, kept: Tensors) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = tower.behind_stem(kept["stem"].float())
        return found


class Pixels:
    """The resized frame: any other encoder has its prompts in the first block."""

    def __init__(self, encoder: Encoder) -> None:
        self.together = 1
        self.identity: Mapping[str, Any] = {"kind": "pixels", "image_size": encoder.image_size}
        self._encoder = encoder

    def arrays(self, images: NDArray[np.uint8]) -> list[Arrays]:
        return [{"pixels": image} for image in images]

    def features(self, model: DapoModel, kept: Tensors) -> ImageFeatures:
        return model.image_features(self._normalised(kept["pixels"]))

    def seen(self, tower: ImageTower, kept: Tensors) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = tower(self._normalised(kept["pixels"]))
        return found

    def _normalised(self, pixels: Tensor) -> Tensor:
        mean, std = (
            torch.tensor(values, device=pixels.device).view(1, 3, 1, 1)
            for values in (self._encoder.mean, self._encoder.std)
        )
        return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def frozen_half(scope: Scope | None, pack: Pack, encoder: Encoder, *, stem: bool = False) -> Frozen:
    """What a scope leaves frozen, as far from the pixels as it goes.

    Args:
        scope: what learns; None: nothing does.
        stem: the stem's features are wanted, however much more is frozen.
    """
    if scope is Scope.TEXT and not stem:
        return Joint(pack, encoder)
    if scope is not Scope.FULL:
        return Hidden(pack, encoder)
    return Stem(encoder) if has_stem(encoder.clip.visual) else Pixels(encoder)


def _seen_by(encoder: Encoder) -> dict[str, Any]:
    return {
        "encoder": [encoder.name, encoder.sha256, encoder.activation],
        "device": _device(encoder).type,
        "image_size": encoder.image_size,
        "mean": list(encoder.mean),
        "std": list(encoder.std),
    }


def _device(encoder: Encoder) -> torch.device:
    device: torch.device = encoder.clip.visual.class_embedding.device
    return device


def _together(encoder: Encoder) -> int:
    return 1 if _device(encoder).type == "cpu" else 16


def _half(tensor: Tensor) -> NDArray[np.float16]:
    return tensor.to(torch.float16).cpu().numpy()
