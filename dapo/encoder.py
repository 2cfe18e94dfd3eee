"""Load a frozen CLIP: any open_clip ViT by architecture and hub tag, a local file, random weights, or
dapo-tiny.

Everything stays in open_clip's own modules; `dapo.vision` and `dapo.text` walk them.
"""

from __future__ import annotations

from dapo.lean import open_clip

# isort: split
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.factory import load_checkpoint
from open_clip.model import CLIP, CustomTextCLIP, resize_pos_embed
from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

from dapo.attention import fuse_attention
from dapo.errors import SettingsError, WeightsNotFound
from dapo.preprocess import CLIP_MEAN, CLIP_STD

TINY = "dapo-tiny"
TAPS = 4  # patch features are read this often, evenly spaced over the depth: after blocks 6, 12, 18, 24 of 24

Triple = tuple[float, float, float]

_NO_VIT = (
    "the image tower is not open_clip's plain ViT (it is a ResNet, a timm model, or pools by attention). "
    "Choose a ViT."
)
_NO_TEXT = "the text tower is not open_clip's own transformer. Choose another encoder."


@dataclass(frozen=True)
class Encoder:
    """A frozen CLIP with all that the model needs to know of it.

    Attributes:
        name: open_clip architecture, or "dapo-tiny".
        weights: hub tag, "bundled", "file", or "random" ("random:7" with another seed).
        clip: open_clip model, float32, eval mode, no parameter requires a gradient.
        tokenize: sentences -> int64 [N, L].
        sha256: hash of the weights before the position embedding is resized, so it does not depend on the
            image size.
        image_size: side of the square input in px, a multiple of the patch size.
        grid: patches per side.
        joint_width: D, width of the space both towers share.
        vision_width: width of the image tower.
        text_width: width of the text tower.
        patch_size: side of a patch in px.
        taps: block numbers, from 1, after which patch features are read.
        dense_taps: the taps whose patches are already in the joint space (ln_post and projection, no
            adapter).
        mean: per channel, of pixels in [0, 1].
        std: the same.
        activation: of both towers' blocks, "quick_gelu" or "gelu"; no weights file says which.
        knows: whether a word was trained as such; None where the tokenizer splits any word into pieces.
        normal_template_noun: what the templates speak of.
    """

    name: str
    weights: str
    clip: Any  # open_clip has no type annotations of its own towers
    tokenize: Callable[[Sequence[str]], Tensor]
    sha256: str
    image_size: int
    grid: int
    joint_width: int
    vision_width: int
    text_width: int
    patch_size: int
    taps: tuple[int, ...]
    dense_taps: tuple[int, ...]
    mean: Triple = CLIP_MEAN
    std: Triple = CLIP_STD
    activation: str = "gelu"
    knows: Callable[[str], bool] | None = None
    normal_template_noun: str = "object"


def load_encoder(
    name: str,
    weights: str = "openai",
    image_size: int | None = None,
    path: Path | None = None,
    *,
    seed: int = 0,
) -> Encoder:
    """Load an encoder, frozen.

    Args:
        name: open_clip architecture ("ViT-L-14-336-quickgelu") or "dapo-tiny".
        weights: hub tag ("openai"), "file" (weights of one's own, give `path`), "random" or "random:SEED";
            dapo-tiny's are always "bundled".
        image_size: side of the square input in px; None for the architecture's own.
        path: local weights: safetensors, or a state dict without pickled code. Beside a hub tag it is that tag's
            file: activation, mean and standard deviation are the tag's.
        seed: of "random".

    Raises:
        WeightsNotFound: no such file and no network; the message names the file to place and the option to
            give.
        SettingsError: unknown architecture or tag, one that is no ViT, or an image size that patches do not
            fill.
    """
    if name == TINY:
        return _load_tiny(weights, image_size, path)
    quick_gelu, mean, std = False, CLIP_MEAN, CLIP_STD
    kind, _, number = weights.partition(":")
    if path is None and weights == "file":
        raise WeightsNotFound(
            f"{name}: its weights come from a file of your own, and none was given. "
            f"Give it with --weights FILE."
        )
    if kind not in ("file", "random"):
        hub = _hub_entry(name, weights)
        # The same whether the file was fetched by hand or is downloaded here: it does not say these itself.
        quick_gelu = bool(hub.get("quick_gelu", False))
        mean, std = _triple(hub.get("mean"), CLIP_MEAN), _triple(hub.get("std"), CLIP_STD)
        path = path or _download(name, weights, hub)
    if kind == "random":
        weights = weights if number or not seed else f"random:{seed}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(number) if number else seed)
            clip = _build(name, quick_gelu)
    else:
        clip = _build(name, quick_gelu)
    if path is not None:
        _load_file(clip, name, path)
    return describe(clip, open_clip.get_tokenizer(name), name, weights, image_size, mean=mean, std=std)


def describe(
    clip: nn.Module,
    tokenize: Callable[[Sequence[str]], Tensor],
    name: str,
    weights: str,
    image_size: int | None = None,
    *,
    taps: tuple[int, ...] | None = None,
    dense_taps: tuple[int, ...] | None = None,
    mean: Triple = CLIP_MEAN,
    std: Triple = CLIP_STD,
    knows: Callable[[str], bool] | None = None,
) -> Encoder:
    """Freeze an open_clip model, resize its position embedding to `image_size` and read its sizes off its
    modules.

    Raises:
        SettingsError: the model is not open_clip's plain ViT, or the image size is no multiple of the patch
            size.
    """
    visual: Any = clip.visual
    if (
        not isinstance(visual, VisionTransformer)
        or visual.attn_pool is not None
        or visual.pool_type == "none"
    ):
        raise SettingsError(f"{name}: {_NO_VIT}")
    text: Any = text_tower(clip)
    if not hasattr(text, "token_embedding") or getattr(text, "cls_emb", None) is not None:
        raise SettingsError(f"{name}: {_NO_TEXT}")
    clip.float().eval().requires_grad_(False)
    fuse_attention(clip)
    sha256 = weights_hash(clip.state_dict())
    patch = int(visual.patch_size[0])
    size = int(visual.image_size[0]) if image_size is None else image_size
    if size < patch or size % patch:
        raise SettingsError(
            f"image size {size}: {name} has patches of {patch} px; "
            f"take a multiple of it, such as {max(1, round(size / patch)) * patch}."
        )
    _resize(clip, size, patch)
    blocks = len(visual.transformer.resblocks)
    taps = taps or spaced_taps(blocks)
    return Encoder(
        name=name,
        weights=weights,
        clip=clip,
        tokenize=tokenize,
        sha256=sha256,
        image_size=size,
        grid=size // patch,
        joint_width=int(visual.proj.shape[1]),
        vision_width=int(visual.class_embedding.shape[0]),
        text_width=int(text.token_embedding.weight.shape[1]),
        patch_size=patch,
        taps=taps,
        dense_taps=dense_taps or (blocks,),
        mean=mean,
        std=std,
        activation=_activation(visual),
        knows=knows,
    )


def text_tower(clip: nn.Module) -> Any:
    """The module that owns the text tower's parts: open_clip keeps them in the model itself or in `.text`."""
    return getattr(clip, "text", clip)


def spaced_taps(blocks: int, taps: int = TAPS) -> tuple[int, ...]:
    """Numbers, from 1, of the blocks after which patch features are read; the last block is always one.

    >>> spaced_taps(24)
    (6, 12, 18, 24)
    """
    count = min(taps, blocks)
    return tuple(round(blocks * (index + 1) / count) for index in range(count))


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names (sorted), dtypes, shapes and bytes; floating-point tensors count as float32."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.float()
        array = tensor.contiguous().numpy()
        digest.update(f"{name} {array.dtype} {list(array.shape)}\n".encode())
        digest.update(array.reshape(-1).data)
    return digest.hexdigest()


def _resize(clip: nn.Module, size: int, patch: int) -> None:
    visual: Any = clip.visual
    if size == visual.image_size[0]:
        return
    visual.image_size, visual.grid_size = (size, size), (size // patch, size // patch)
    state = {"visual.positional_embedding": visual.positional_embedding.data}
    resize_pos_embed(state, clip)  # bicubic with antialias, as the reference does
    visual.positional_embedding = nn.Parameter(state["visual.positional_embedding"], requires_grad=False)


def _build(name: str, quick_gelu: bool) -> nn.Module:
    config = open_clip.get_model_config(name)
    if config is None:
        raise SettingsError(f"{name}: open_clip knows no such architecture. 'dapo-tiny' is the bundled one.")
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision or not isinstance(vision["layers"], int) or "multimodal_cfg" in config:
        raise SettingsError(f"{name}: {_NO_VIT}")
    if "hf_model_name" in text:
        raise SettingsError(f"{name}: {_NO_TEXT}")
    kind = CustomTextCLIP if config.pop("custom_text", False) else CLIP
    model: nn.Module = kind(**{**config, "quick_gelu": quick_gelu or config.get("quick_gelu", False)})
    return model


def _activation(visual: Any) -> str:
    return "quick_gelu" if isinstance(visual.transformer.resblocks[0].mlp.gelu, QuickGELU) else "gelu"


def _seed(number: str) -> int:
    if not number.isdigit() or int(number) >= 2**63:  # what torch takes as a seed
        raise SettingsError(f"random:{number}: expected a seed after the colon, such as random:7.")
    return int(number)


def _hub_entry(name: str, tag: str) -> dict[str, Any]:
    entry: dict[str, Any] = get_pretrained_cfg(name, tag)
    if not entry:
        tags = ", ".join(list_pretrained_tags_by_model(name)) or "none"
        raise SettingsError(
            f"{name} / {tag}: open_clip knows no such weights. Tags of this architecture: {tags}. "
            f"For a file of your own the tag is 'file'."
        )
    return entry


def _download(name: str, tag: str, hub: Mapping[str, Any]) -> Path:
    try:
        return Path(download_pretrained(dict(hub)))
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    repository, _, file = str(hub.get("hf_hub", "")).rpartition("/")
    source = f"https://huggingface.co/{repository}" if repository else str(hub.get("url", ""))
    file = file or ("open_clip_model.safetensors" if repository else source.rpartition("/")[2])
    raise WeightsNotFound(
        f"{name} / {tag}: the weights are not cached and can't be downloaded ({reason}). "
        f"Fetch {file} from {source} on a machine with a network, copy it to this one (any folder), "
        f"and give its path with --weights FILE."
    )


def _load_file(clip: nn.Module, name: str, path: Path) -> None:
    try:
        if not path.is_file():
            raise WeightsNotFound(
                f"{path}: no such file. Place the weights of {name} there, or give --weights FILE."
            )
        load_checkpoint(clip, str(path))
    except WeightsNotFound:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        reason = " ".join(str(error).split())[:400]
        raise WeightsNotFound(f"{path}: not weights of {name}. {reason}") from error
    except Exception as error:  # safetensors and unpickling errors share no narrower base class
        raise WeightsNotFound(
            f"{path}: can't be read as safetensors or as a state dict ({error})."
        ) from error


def _load_tiny(weights: str, image_size: int | None, path: Path | None) -> Encoder:
    from dapo import tiny  # its own file is only needed for this encoder

    loaded = tiny.load_tiny(path)
    return describe(
        loaded.clip,
        loaded.tokenizer,
        TINY,
        "file" if path is not None else "bundled",
        image_size,
        dense_taps=tiny.TAPS,
        knows=loaded.tokenizer.knows,
    )


def _triple(values: Sequence[float] | None, default: Triple) -> Triple:
    return default if values is None else (float(values[0]), float(values[1]), float(values[2]))
