"""Compare this implementation with numbers of the research code: `python -m dapo.parity FILE`.

FILE is a safetensors file of weights, inputs and expected values (tests/data/golden.safetensors; other sizes
and seeds of that layout will do). Exit code 1 if any tensor is beyond its tolerance.
"""

from __future__ import annotations

import dapo.lean  # noqa: F401  # before open_clip, which then takes a third of the time

# isort: split
import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip import SimpleTokenizer
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F

from dapo.checkpoint import Checkpoint, load_checkpoint, reference_names
from dapo.encoder import describe
from dapo.errors import DapoError, SettingsError
from dapo.head import image_probabilities, pair, patch_states, state_maps
from dapo.model import DapoModel
from dapo.objective import LOCAL_WEIGHT, objective, type_masks
from dapo.preprocess import CLIP_MEAN, CLIP_STD, normalise, resize
from dapo.prompts import defect_sentence, normal_sentence
from dapo.text import Readout, encode_prompts
from dapo.vision import encode_image

FORWARD = 1e-5  # relative to the tensor's largest value: three times what float32 against float64 differs by
GRADIENT = 2e-5
PARAMETER = 1e-6  # absolute: a step moves a parameter by the learning rate, 1e-3
EXACT = 0.0
PIXEL = 3e-7  # absolute, of inputs prepared from raw images: rounding of the normalisation only


@dataclass(frozen=True)
class Comparison:
    """One tensor against its expected value; `difference` is relative or absolute as `kind` says."""

    name: str
    difference: float
    tolerance: float
    kind: str

    @property
    def passed(self) -> bool:
        """Within tolerance; NaN is not."""
        return self.difference <= self.tolerance


class _Tensors(dict[str, Tensor]):
    """Tensors by name without their prefix; asking for one that is not there is a message."""

    def __init__(self, values: Mapping[str, Tensor], path: Path, prefix: str = "") -> None:
        super().__init__(values)
        self._path, self._prefix = path, prefix

    def __missing__(self, name: str) -> Tensor:
        raise SettingsError(f"{self._path}: expected a tensor {self._prefix}{name}, found none.")

    def under(self, prefix: str) -> _Tensors:
        """Those whose names begin with `prefix`."""
        found = {name.removeprefix(prefix): value for name, value in self.items() if name.startswith(prefix)}
        return _Tensors(found, self._path, prefix)


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Tensors that contradict each other end in many kinds of errors deep inside torch: one message."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:400]
        raise SettingsError(f"{path}: its tensors or settings do not fit together: {reason}") from error


class Golden:
    """A file of expected values, and the model built from its weights.

    Args:
        path: safetensors file.
        vision_head_width: width of an attention head of the image tower where the file's settings give none.
        text_head_width: the same of the text tower.
        quick_gelu: activation where the file's settings give none.

    Raises:
        SettingsError: the file can't be read, or a tensor is missing.
    """

    def __init__(
        self, path: Path, *, vision_head_width: int = 64, text_head_width: int = 64, quick_gelu: bool = True
    ) -> None:
        try:
            with safe_open(path, "pt") as file:
                self.settings: dict[str, Any] = json.loads((file.metadata() or {}).get("settings", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise SettingsError(
                f"{path}: can't be read as safetensors with JSON settings: {error}"
            ) from error
        self.path = path
        self.tensors = _Tensors(tensors, path)
        with _fitting(path):
            self._build(vision_head_width, text_head_width, quick_gelu)

    def _build(self, vision_head_width: int, text_head_width: int, quick_gelu: bool) -> None:
        self.temperature = float(self.settings.get("temperature", 0.07))
        self.alpha = float(self.settings.get("alpha", 0.01))
        self.images = self["in.images"]
        self.ids = self["in.token_ids"]
        config = self.settings.get("config", {})
        vision_head_width = config.get("vision_cfg", {}).get("head_width", vision_head_width)
        text_heads = config.get("text_cfg", {}).get("heads")
        clip = self._clip(
            vision_head_width, text_heads, text_head_width, config.get("quick_gelu", quick_gelu)
        )
        taps = self.settings.get("feature_layers")
        encoder = describe(
            clip,
            SimpleTokenizer(),
            "golden",
            "file",
            self.images.shape[-1],
            taps=tuple(taps) if taps else None,
        )
        learned = self.tensors.under("learned.")
        normal = learned["prompt_learner.learnable_normal_tokens"]
        self.model = DapoModel(
            encoder,
            prompts=normal.shape[0],
            context=normal.shape[1],
            tokens=learned["visual_prompt.learnable_visual_tokens"].shape[1],
            text_depth=sum(".learnable_layer_tokens." in name for name in learned),
            alpha=self.alpha,
            temperature=self.temperature,
        )
        load_checkpoint(self.model, Checkpoint(learned))

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def _clip(
        self, vision_head_width: int, text_heads: int | None, text_head_width: int, quick_gelu: bool
    ) -> CLIP:
        state = self.tensors.under("clip.")
        ids, rows = state["token_embedding.ids"], state["token_embedding.rows"]
        for stored in ("ids", "rows", "mean", "std"):  # in the place of the table itself
            state.pop(f"token_embedding.{stored}", None)
        table = torch.zeros(
            int(ids.max()) + 1, rows.shape[1]
        )  # the rows in use; CLIP's end token has the highest id
        table[ids] = rows
        state["token_embedding.weight"] = table
        width, _, patch, _ = state["visual.conv1.weight"].shape
        grid = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
        model = CLIP(
            embed_dim=state["visual.proj"].shape[1],
            quick_gelu=quick_gelu,
            vision_cfg=CLIPVisionCfg(
                image_size=grid * patch,
                patch_size=patch,
                width=width,
                layers=_blocks(state, "visual.transformer.resblocks."),
                head_width=vision_head_width,
            ),
            text_cfg=CLIPTextCfg(
                context_length=len(state["positional_embedding"]),
                vocab_size=len(table),
                width=rows.shape[1],
                heads=text_heads or rows.shape[1] // text_head_width,
                layers=_blocks(state, "transformer.resblocks."),
            ),
        )
        model.load_state_dict(state)
        return model


def compare(golden: Golden) -> list[Comparison]:
    """Every expected tensor against this implementation's; trains the model on the way.

    Raises:
        SettingsError: an expected value is missing, or the tensors do not fit together.
    """
    with _fitting(golden.path):
        with torch.no_grad():
            expected = [*_inputs(golden), *_text(golden), *_image(golden), *_multi(golden)]
        expected += _training(golden)
    found = [_compare(name, got, golden[name], tolerance, kind) for name, got, tolerance, kind in expected]
    checked = {comparison.name for comparison in found}
    results = (name for name in golden.tensors if name.startswith(("text.", "image.", "multi.", "train.")))
    unknown = sorted(set(results) - checked - {"multi.columns", "train.labels"})
    return found + [
        Comparison(f"{name} (not computed here)", float("nan"), FORWARD, "relative") for name in unknown
    ]


_READOUTS: tuple[tuple[str, Readout], ...] = (("", "reference"), (".at_true_eot", "eot"))
Expected = tuple[str, Tensor, float, str]


def _inputs(golden: Golden) -> Iterator[Expected]:
    size = golden.images.shape[-1]
    images = golden.images.clone()
    for index in range(len(images)):
        if f"in.raw{index}" in golden.tensors:
            raw = golden[f"in.raw{index}"].numpy()
            images[index] = torch.from_numpy(normalise(resize(raw, size)[None], CLIP_MEAN, CLIP_STD)[0])
    yield "in.images", images, PIXEL, "absolute"
    if "in.raw_mask0" in golden.tensors:
        mask = Image.fromarray(golden["in.raw_mask0"].numpy()).resize((size, size), Image.Resampling.BILINEAR)
        masks = golden["in.masks"].clone()
        masks[0, 0] = torch.from_numpy(np.asarray(mask, np.float32) / 255)
        yield "in.masks", masks, PIXEL, "absolute"
    if "multi.script_preprocess0" in golden.tensors:
        cropped = torch.from_numpy(_shortest_side_and_crop(golden["in.raw0"].numpy(), size))
        yield "multi.script_preprocess0", cropped, PIXEL, "absolute"
    if words := golden.settings.get("words"):
        context = golden.model.prompts.normal.shape[1]
        sentences = [
            normal_sentence(context, "object"),
            *(defect_sentence(word, context, "object") for word in words),
        ]
        ids = golden.model.encoder.tokenize(sentences)
        yield "in.token_ids", ids, EXACT, "absolute"


def _text(golden: Golden) -> Iterator[Expected]:
    model = golden.model
    context = model.prompts.context(len(golden.ids), normal_first=True)
    deep = list(model.prompts.text)
    for depth in range(len(deep) + 1):
        for suffix, readout in _READOUTS:
            name = f"text.depth{depth}{suffix}"
            whole = depth == len(deep) and not suffix
            if not whole and f"{name}.t" not in golden.tensors:
                continue
            encoded = encode_prompts(model.clip, golden.ids, context, deep[:depth], golden.alpha, readout)
            yield f"{name}.mean", encoded.mean(1), FORWARD, "relative"
            yield f"{name}.t", F.normalize(encoded.mean(1), dim=-1), FORWARD, "relative"
    yield "text.pair", pair(_matrix(golden)), FORWARD, "relative"


def _image(golden: Golden) -> Iterator[Expected]:
    model = golden.model
    visual = model.clip.visual
    yield "image.pos_embed", visual.positional_embedding, FORWARD, "relative"
    raw = encode_image(visual, golden.images, model.encoder.taps, model.prompts.visual, golden.alpha)
    features, text = model.image_features(golden.images), _matrix(golden)
    yield "image.cls_raw", raw.cls, FORWARD, "relative"
    yield "image.cls", features.cls, FORWARD, "relative"
    adapted = model.adapters(raw.taps)
    states = patch_states(features.taps, text, golden.temperature)
    for index, (before, after, probabilities) in enumerate(zip(raw.taps, adapted, states, strict=True)):
        yield f"image.tap{index}.before", before, FORWARD, "relative"
        yield f"image.tap{index}.after", after, FORWARD, "relative"
        yield f"image.tap{index}.probs", probabilities, FORWARD, "relative"
    score = image_probabilities(features.cls, pair(text), golden.temperature)[:, 1]
    yield "image.score", score, FORWARD, "relative"
    maps = state_maps(features.taps, text, golden.temperature, golden.images.shape[-1])
    yield "image.map", maps[:, 1:].sum(1), FORWARD, "relative"


def _multi(golden: Golden) -> Iterator[Expected]:
    if "multi.columns" not in golden.tensors:
        return
    features = golden.model.image_features(golden.images)
    text = _matrix(golden)[golden["multi.columns"]]
    maps = state_maps(features.taps, text, golden.temperature, golden.images.shape[-1])
    yield "multi.maps", maps.permute(0, 2, 3, 1), FORWARD, "relative"
    score = image_probabilities(features.cls, text, golden.temperature)[:, 1:].sum(1)
    yield "multi.score", score, FORWARD, "relative"
    masks = golden["in.masks"]
    yield "multi.mask_ids", (masks > 0.5).long(), EXACT, "absolute"


def _training(golden: Golden) -> Iterator[Expected]:
    model = golden.model.train()
    masks, labels = golden["in.masks"][:, 0], golden["train.labels"]
    words = golden.settings.get("words", [])
    word = golden.settings.get("train_word")
    row = words.index(word) + 1 if word in words else int(golden["train.type_ids"].max())
    types = type_masks(masks, labels * row, exact=True)
    yield "train.type_ids", types[:, None], EXACT, "absolute"
    yield "train.binary", (types > 0).long()[:, None], EXACT, "absolute"
    adam = golden.settings.get("adam", {"lr": 1e-3, "betas": [0.5, 0.999], "eps": 1e-8})
    optimizer = torch.optim.Adam(
        model.trainable(), lr=adam["lr"], betas=tuple(adam["betas"]), eps=adam["eps"]
    )
    for step in range(1, int(golden.settings.get("steps", 2)) + 1):
        prefix = f"train.step{step}."
        optimizer.zero_grad()
        losses = objective(
            model.image_features(golden.images), _matrix(golden), types, labels, golden.temperature
        )
        torch.autograd.backward(losses.total)
        parts = {
            "image_loss": losses.image,
            "local_loss_x4": LOCAL_WEIGHT * losses.local,
            "total": losses.total,
            "focal": losses.focal,
            "dice_normal": losses.dice_normal,
            "dice_abnormal": losses.dice_abnormal,
        }
        for name, value in parts.items():
            yield prefix + name, value.detach(), FORWARD, "relative"
        for name, parameter in reference_names(model).items():
            if parameter.grad is None:
                raise SettingsError(f"{name}: got no gradient.")
            if step > 1 and f"{prefix}grad.{name}" not in golden.tensors:
                continue
            yield f"{prefix}grad.{name}", parameter.grad.clone(), GRADIENT, "relative"
        optimizer.step()
        for name, parameter in reference_names(model).items():
            yield f"{prefix}after.{name}", parameter.detach().clone(), PARAMETER, "absolute"


def _matrix(golden: Golden) -> Tensor:
    return F.normalize(golden.model.text_means(golden.ids, "reference"), dim=-1)


def _shortest_side_and_crop(image: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """The research code's other preprocessing: shortest side to `size`, centre crop."""
    height, width = image.shape[:2]
    short = min(height, width)
    box = (int(size * width / short), int(size * height / short))
    scaled = np.asarray(Image.fromarray(image).resize(box, Image.Resampling.BICUBIC))
    top, left = round((box[1] - size) / 2), round((box[0] - size) / 2)
    cropped: NDArray[np.float32] = normalise(scaled[None, top : top + size, left : left + size])[0]
    return cropped


def _blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})


def _compare(name: str, got: Tensor, expected: Tensor, tolerance: float, kind: str) -> Comparison:
    if got.shape != expected.shape:
        raise SettingsError(f"{name}: expected shape {list(expected.shape)}, computed {list(got.shape)}.")
    difference = (got.double() - expected.double()).abs().max().item()
    if kind == "relative":
        difference /= max(expected.double().abs().max().item(), torch.finfo(torch.float32).tiny)
    return Comparison(name, difference, tolerance, kind)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 within tolerance, 1 beyond, 2 if the file can't be used."""
    parser = argparse.ArgumentParser(prog="python -m dapo.parity", description=__doc__)
    parser.add_argument("file", type=Path, help="safetensors file of expected values")
    parser.add_argument(
        "--vision-head-width", type=int, default=64, help="where the file's settings give none"
    )
    parser.add_argument("--text-head-width", type=int, default=64, help="where the file's settings give none")
    parser.add_argument(
        "--gelu", action="store_true", help="GELU, not QuickGELU, where the file's settings give none"
    )
    options = parser.parse_args(arguments)
    try:
        golden = Golden(
            options.file,
            vision_head_width=options.vision_head_width,
            text_head_width=options.text_head_width,
            quick_gelu=not options.gelu,
        )
        results = compare(golden)
    except DapoError as error:
        print(error, file=sys.stderr)
        return 2
    width = max(len(result.name) for result in results)
    print(f"{'tensor':<{width}}  difference  tolerance  kind")
    for result in results:
        verdict = "" if result.passed else "  BEYOND"
        figures = f"{result.difference:10.2e}  {result.tolerance:9.0e}"
        print(f"{result.name:<{width}}  {figures}  {result.kind}{verdict}")
    failed = [result.name for result in results if not result.passed]
    worst = {
        kind: max((r.difference for r in results if r.kind == kind and r.tolerance), default=0.0)
        for kind in ("relative", "absolute")
    }
    print(json.dumps({"parity": not failed, "tensors": len(results), "failed": failed, "worst": worst}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
