"""Why a pack may become champion: the gate said so, or no score can move."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from dapo.errors import DapoError
from dapo.pack import Pack, as_json
from pipeline.registry.pointers import Pointers, RegistryError, read_object
from pipeline.registry.registry import Registry

PROMOTE = "promote"  # the gate's outcome that allows it
_OF_WORDS = {"types", "products", "provenance"}  # parts of a pack that may differ where words were added
_WORDS = "text.types"
_MAX_FILE = 2**20  # bytes of a gate.json: its findings, and twenty frames to label


class NotProven(DapoError):
    """Nothing shows that a pack may replace the champion."""


def evidence(registry: Registry, pointers: Pointers, pack: Pack) -> str:
    """What allows a pack to become champion, in words.

    Raises:
        NotProven: nothing does; says what was found and what to do.
    """
    if pointers.champion is None:
        return "first champion"
    champion = registry.pack(pointers.champion)
    moved = moves_scores(champion, pack)
    if moved is None:
        return "no score moves: only words were added, so it is no worse by construction"
    record = registry.gate(champion.configuration_hash, pack.configuration_hash)
    if record is not None and record["outcome"] == PROMOTE:
        return "gate: promote"
    said = "has not been asked" if record is None else f"says {str(record['outcome'])[:40]}"
    raise NotProven(
        f"pack {pack.configuration_hash[:12]} may not replace champion {champion.configuration_hash[:12]}: the gate {said}, "
        f"and scores or verdicts can move ({moved}). Ask 'dapo gate' and give its gate.json with --gate, or promote with "
        "--force REASON."
    )


def keep_gate_file(registry: Registry, path: Path) -> None:
    """Keep in the registry what `dapo gate` wrote (gate.json), for the two packs that it names.

    Raises:
        RegistryError: the file can't be read, or is none.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise RegistryError(f"{path}: can't be read: {error.strerror}.") from error
    if len(data) > _MAX_FILE:
        raise RegistryError(f"{path}: more than {_MAX_FILE} bytes: no gate.json that 'dapo gate' writes.")
    record = read_object(data, str(path))
    champion, challenger = record.get("champion"), record.get("challenger")
    if not isinstance(champion, str) or not isinstance(challenger, str):
        raise RegistryError(
            f"{path}: names no champion and challenger. Give the gate.json that 'dapo gate' wrote."
        )
    # What to label next is for people, and is long.
    registry.keep_gate(champion, challenger, {name: record[name] for name in record if name != "label_next"})


def moves_scores(old: Pack, new: Pack) -> str | None:
    """What lets a score or a verdict of the new pack differ from the old one's; None where only words were added.

    Under default scoring generic words detect and a product's words only type: with one more, every anomaly score and
    every evaluation stays equal to the bit. A product that only one of both names is judged as '*' under the other.
    """
    if old.scoring.kind != "default" or new.scoring.kind != "default":
        return "under paper scoring every score is a mean over all types"
    before, after = as_json(old), as_json(new)
    for name in sorted(before.keys() | after.keys()):
        if name not in _OF_WORDS and before.get(name) != after.get(name):
            return f"{name} differs"
    for name in sorted({*old.tensors, *new.tensors}):
        tensor, newer = old.tensors.get(name), new.tensors.get(name)
        if name == _WORDS and tensor is not None and newer is not None:
            newer = newer[: len(tensor)]
        if tensor is None or newer is None or not np.array_equal(tensor, newer):
            return f"tensor {name} differs"
    if new.types[: len(old.types)] != old.types:
        return "a word was taken away or changed"
    for name in sorted({*old.products, *new.products}):
        one, other = old.product(name), new.product(name)
        if not set(one.types) <= set(other.types):
            return f"product {name} loses a type"
        if one.type_thresholds and one.types != other.types:
            return f"product {name} has thresholds of single types, from which another type can take frames"
        if replace(one, types=other.types) != other:
            return f"product {name} differs in more than its types"
    return None
