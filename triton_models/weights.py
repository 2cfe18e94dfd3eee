"""Find an encoder's weights on the model server: only packs travel, weights are there by their hash."""

from __future__ import annotations

from pathlib import Path

from dapo.errors import WeightsNotFound
from dapo.pack import EncoderRef

_SUFFIXES = (".safetensors", ".pt", ".bin")
_BUNDLED = ("bundled", "random")  # come with the program, or are drawn from a seed


def find_weights(encoder: EncoderRef, folder: str) -> Path | None:
    """The file of an encoder's weights; None where the program has them itself. Nothing is downloaded.

    Args:
        encoder: as a pack names it. Whoever loads the file checks its content against the same hash.
        folder: where weights lie as <sha256>.safetensors, .pt or .bin; empty: there is none.

    Raises:
        WeightsNotFound: names the file to place.
    """
    if folder:
        for suffix in _SUFFIXES:
            path = Path(folder) / f"{encoder.sha256}{suffix}"
            if path.is_file():
                return path
    if encoder.weights.partition(":")[0] in _BUNDLED:
        return None
    where = folder or "a folder on this server, and name it with --weights-folder when you deploy"
    raise WeightsNotFound(
        f"the weights of {encoder.name} / {encoder.weights} are not on this server. "
        f"Place them as {encoder.sha256}.safetensors in {where}."
    )
