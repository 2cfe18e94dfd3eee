"""This implementation against the same model used as the research code uses it: python -m benchmarks.reference

The reference's way, rebuilt from its description: 10 x (K + 1) sentences encoded for every frame, batch 1, attention without
the fused kernel, every tap's probabilities enlarged to full size. K = 7, E = 10, threads fixed. Outputs are compared (1e-4
relative) before any timing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.common import pairs, report
from dapo import head
from dapo.encoder import load_encoder
from dapo.model import DapoModel
from dapo.runtime import open_run

WORDS = ("bent", "broken", "crack", "hole", "scratch", "glue", "faulty imprint")
FRAMES = 8


class Ours:
    """As `dapo run` does it: text matrix once, image tower on the runtime that `auto` takes."""

    def __init__(self, model: DapoModel, threads: int) -> None:
        with torch.no_grad():
            self._text = model.text_matrix(WORDS).clone()
        self._temperature = model.temperature
        size = model.encoder.image_size
        self._run = open_run(_Tower(model), size, device=torch.device("cpu"), threads=threads)

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [B] and anomaly maps [B, S, S] of a batch."""
        cls, *taps = self._run(pixels.numpy())
        score = head.image_probabilities(cls, head.pair(self._text), self._temperature)[:, 1]
        maps = head.state_maps(taps, self._text, self._temperature, pixels.shape[-1])
        return score, len(taps) - maps[:, 0]


class _Tower(nn.Module):
    def __init__(self, model: DapoModel) -> None:
        super().__init__()
        self._model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        features = self._model.image_features(pixels)
        return (features.cls, *features.taps)


def reference(model: DapoModel, words: Sequence[str], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The same, frame by frame, prompts encoded each time."""
    scores, maps = [], []
    with sdpa_kernel(SDPBackend.MATH):
        for frame in pixels:
            with torch.enable_grad():  # one pass over all sentences, as a batch of 10 (K + 1)
                text = model.text_matrix(words)
            text = text.detach()
            features = model.image_features(frame[None])
            scores.append(head.image_probabilities(features.cls, head.pair(text), model.temperature)[0, 1])
            total = torch.zeros(frame.shape[-2:])
            for states in head.patch_states(features.taps, text, model.temperature):
                total = total + 1 - head.upsample(states, frame.shape[-1])[0, 0]
            maps.append(total)
    return torch.stack(scores), torch.stack(maps)


def compare(name: str, weights: str, size: int | None, repeats: int, threads: int) -> dict[str, object]:
    """Check both ways against each other, then time them in turn."""
    encoder = load_encoder(name, weights, size)
    model = DapoModel(encoder).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(FRAMES, 3, encoder.image_size, encoder.image_size, generator=generator)
    ours = Ours(model, threads)
    with torch.no_grad():
        for mine, theirs in zip(ours(pixels[:2]), reference(model, WORDS, pixels[:2]), strict=True):
            difference = float((mine - theirs).abs().max() / theirs.abs().max())
            if difference > 1e-4:
                raise SystemExit(f"{name}: both ways differ by {difference:.2e}: nothing to time")
        timed = pairs(lambda: reference(model, WORDS, pixels[:2]), lambda: ours(pixels), repeats)
    theirs_fps, ours_fps = 2 / np.array(timed.a), FRAMES / np.array(timed.b)
    return {
        "encoder": name,
        "reference frames/s": float(np.median(theirs_fps)),
        "ours frames/s": float(np.median(ours_fps)),
        "speedup": float(np.median(ours_fps / theirs_fps)),
        "largest difference": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    F.relu(torch.zeros(1))  # start the thread pool before the first timing
    rows = [
        compare("ViT-B-16", "random", 224, options.pairs, options.threads),
        compare("dapo-tiny", "bundled", None, 3 * options.pairs, options.threads),
    ]
    speedups = {str(row["encoder"]): round(float(str(row["speedup"])), 2) for row in rows}
    report(
        list(rows), {"speedup": min(speedups.values()), "by_encoder": speedups, "threads": options.threads}
    )


if __name__ == "__main__":
    main()
