"""Prompt packs on disk: one safetensors file, JSON in its header, verified against its own hash when read."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import struct
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dapo.errors import DapoError, PackError
from dapo.pack import FORMAT, Pack, canonical_json
from dapo.vocabulary import nearest

SUFFIX = ".pack"
_KEY = "dapo_pack"
MAX_BYTES = 512 * 2**20  # ViT-L's learned parts are 13 MB; a pack with a coreset stays under 100 MB
MAX_HEADER = 16 * 2**20  # thousands of products with polygons fit
T = TypeVar("T")


def pack_bytes(pack: Pack) -> bytes:
    """The file of a pack; the same pack gives the same bytes."""
    document = {"format": FORMAT, "hash": pack.configuration_hash, "pack": json.loads(canonical_json(pack))}
    # One metadata key only: safetensors does not keep the order of several.
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return save({name: np.ascontiguousarray(array) for name, array in pack.tensors.items()}, {_KEY: text})


def write_pack(pack: Pack, path: Path) -> str:
    """Write a pack in one step: a reader finds the old file or the whole new one.

    Returns:
        The configuration hash.

    Raises:
        PackError: the file can't be written.
    """
    with _partial(path) as partial:
        with open(partial, "wb") as file:
            file.write(pack_bytes(pack))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    return pack.configuration_hash


def check_writable(path: Path) -> None:
    """Whether `write_pack` can write there, asked before long work and not after it.

    Raises:
        PackError: it can't.
    """
    with _partial(path) as partial:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        partial.touch()


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A name beside `path` to write under; nothing is left of it."""
    partial = path.parent / f"{path.name}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
    except OSError as error:
        raise PackError(
            f"{path}: the pack can't be written: {error.strerror}. The old file, if any, is unchanged. "
            "Give another file with --out."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def read_pack(path: Path) -> Pack:
    """Read and verify a pack.

    Raises:
        PackError: no such file, too large, not a pack, another format, damaged, or contradicting itself; the message
            says which and what to do.
    """
    try:
        if path.exists() and not path.is_file():
            raise PackError(f"{path}: not a file. A prompt pack is one file; check the path.")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)  # whatever size is claimed: no more than this is held
    except OSError as error:
        raise PackError(
            f"{path}: can't be read: {error.strerror}. Check the path, or make one with 'dapo pack new'."
        ) from error
    if len(data) > MAX_BYTES:
        raise PackError(f"{path}: more than the {MAX_BYTES} bytes a pack may have. This is another file.")
    try:
        return unpack(data)
    except DapoError as error:
        raise PackError(f"{path}: {error}") from error


def unpack(data: bytes) -> Pack:
    """Bytes of a pack file -> pack, verified.

    Raises:
        PackError: as `read_pack`, without the path.
    """
    if len(data) < 8 or (header := struct.unpack("<Q", data[:8])[0]) > min(MAX_HEADER, len(data) - 8):
        raise PackError("not a prompt pack (no safetensors header). Make one with 'dapo pack new'.")
    try:
        metadata = json.loads(data[8 : 8 + header]).get("__metadata__", {})
        tensors = load(data)
    except (SafetensorError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise PackError(f"damaged: {error}. Copy it again from where it came from.") from error
    if not isinstance(metadata, dict) or _KEY not in metadata:
        raise PackError("a safetensors file, but not a prompt pack. Make one with 'dapo pack new'.")
    try:
        document = json.loads(metadata[_KEY])
        version, claimed, body = document["format"], document["hash"], document["pack"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PackError("damaged: its JSON can't be read. Copy it again from where it came from.") from error
    if version != FORMAT:
        raise PackError(
            f"format {version}; this program reads format {FORMAT}. Upgrade the program or export the pack again."
        )
    pack = _build(Pack, {**body, "tensors": tensors} if isinstance(body, dict) else body, "pack")
    if pack.configuration_hash != claimed:
        raise PackError(
            f"damaged: its content has hash {pack.configuration_hash}, it claims {claimed}. "
            "Copy it again from where it came from."
        )
    return pack


def _build(kind: type[T], body: Any, where: str) -> T:
    """A dataclass from plain data; unknown and missing keys are named."""
    if not isinstance(body, Mapping):
        raise PackError(f"{where}: expected an object, found {type(body).__name__}.")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(typing.cast(Any, kind))}
    for key in body:
        if key not in known:
            near = nearest(str(key), known)
            raise PackError(f"{where}: unknown key '{key}'." + (f" Did you mean '{near}'?" if near else ""))
    values: dict[str, Any] = {}
    for name, definition in known.items():
        if name in body:
            values[name] = (
                body[name] if name == "tensors" else _convert(hints[name], body[name], f"{where}.{name}")
            )
        elif definition.default is dataclasses.MISSING and definition.default_factory is dataclasses.MISSING:
            raise PackError(f"{where}: key '{name}' is missing.")
    return kind(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise PackError(f"{where}: expected a list, found {type(value).__name__}.")
        if arguments[-1] is Ellipsis:
            return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(arguments) != len(value):
            raise PackError(f"{where}: expected {len(arguments)} values, found {len(value)}.")
        return tuple(_convert(a, item, where) for a, item in zip(arguments, value, strict=True))
    if origin is typing.Literal:
        if value not in arguments:
            raise PackError(f"{where}: '{value}' is none of {', '.join(map(str, arguments))}.")
        return value
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, where)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise PackError(f"{where}: expected an object, found {type(value).__name__}.")
        item = arguments[1]
        return (
            value if item is Any else {key: _convert(item, v, f"{where}.{key}") for key, v in value.items()}
        )
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise PackError(f"{where}: expected {hint.__name__}, found {type(value).__name__}.")
    return value
