"""Encoded image -> uint8 RGB, with every limit checked before the first pixel is decoded.

The dtype decides the scaling, never the pixel values: 16-bit is divided by 257, so a dark 16-bit frame stays dark.
EXIF rotation is applied, alpha dropped, the first frame of an animation taken.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dapo.errors import FrameError

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM")
_FORMATS_TEXT = "JPEG, PNG, BMP, TIFF, WebP, GIF or PPM"
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")

# The limit is ours (`Limits.max_pixels`), checked from the header. Pillow's own would warn below it.
Image.MAX_IMAGE_PIXELS = None
# Damaged input is told by the dead letter, not by OpenCV or Pillow on stderr, a line for each new kind of damage.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class DecodeError(FrameError):
    """One frame's bytes are not an image that can be inspected; `code` says why."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a frame may cost, checked before decoding.

    Attributes:
        max_bytes: of the encoded frame.
        max_pixels: width x height, from the header; a frame takes 3 bytes per pixel in memory.
        min_side: px; a smaller picture has nothing to inspect.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 100_000_000
    min_side: int = 8


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A frame's pixels: uint8 [height, width, 3] RGB, upright. `format` is Pillow's name, by content."""

    pixels: NDArray[np.uint8]
    width: int
    height: int
    format: str


def decode(data: bytes, limits: Limits | None = None) -> DecodedImage:
    """Decode one encoded image.

    Args:
        data: JPEG, PNG, BMP, TIFF, WebP, GIF or PPM, found by content; the file's name plays no part.

    Raises:
        DecodeError: empty, too-many-bytes, not-an-image, too-many-pixels, too-small, unsupported-pixels or damaged.

    Example:
        image = decode(Path("part.png").read_bytes())
    """
    limits = limits or Limits()
    check_size(len(data), limits)
    if not data:
        raise DecodeError("empty", "The file has no bytes. Was it still being written? Save it again.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            check_pixels(*picture.size, limits)
            pixels = _pixels(picture, data)
            form = picture.format or ""
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        raise DecodeError(
            "not-an-image", f"The content is no {_FORMATS_TEXT} image. Save the frame as one."
        ) from error
    except Exception as error:
        raise DecodeError(
            "damaged", f"The image is truncated or damaged ({_said(error)}). Copy or take it again."
        ) from error
    return DecodedImage(pixels, pixels.shape[1], pixels.shape[0], form)


def check_size(size: int, limits: Limits) -> None:
    """Refuse an encoded frame of too many bytes.

    Raises:
        DecodeError: too-many-bytes.
    """
    if size > limits.max_bytes:
        raise DecodeError(
            "too-many-bytes",
            f"The frame has {size:,} bytes, more than the limit of {limits.max_bytes:,}. Raise --max-bytes or compress it.",
        )


def check_pixels(width: int, height: int, limits: Limits) -> None:
    """Refuse a frame of too many or too few pixels.

    Raises:
        DecodeError: too-many-pixels or too-small.
    """
    if width * height > limits.max_pixels:
        raise DecodeError(
            "too-many-pixels",
            f"The frame has {width} x {height} pixels, more than the limit of {limits.max_pixels:,}. "
            "Raise --max-pixels or cut it.",
        )
    if min(width, height) < limits.min_side:
        raise DecodeError(
            "too-small",
            f"The frame has {width} x {height} pixels; at least {limits.min_side} a side are needed. "
            "Take the picture again, larger.",
        )


def _pixels(picture: Image.Image, data: bytes) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] of an opened picture, upright."""
    sixteen = _is_sixteen_bit(picture, data)
    orientation = _orientation(picture)
    picture.load()  # the whole file: truncation is found here, for the OpenCV path below too
    if picture.mode in _SIXTEEN_BIT or (picture.mode == "I" and picture.format == "PPM"):
        grey = _scale(np.asarray(picture))
        return _turn(np.repeat(grey[..., None], 3, axis=2), orientation)
    if picture.mode in ("I", "F"):
        raise DecodeError(
            "unsupported-pixels",
            "The image has 32-bit pixels, whose scale is not known. Save it with 8 or 16 bits.",
        )
    if sixteen and picture.mode in ("RGB", "RGBA", "LA", "RGBX"):
        deep = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED
        )  # Pillow cuts colour to 8 bits
        if deep is not None and deep.dtype == np.uint16 and deep.ndim == 3 and deep.shape[2] >= 3:
            return _turn(_scale(deep[..., 2::-1]), orientation)
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # Pillow's own way for palettes whose transparency is a table
    return _turn(np.asarray(picture.convert("RGB")), orientation)


def _is_sixteen_bit(picture: Image.Image, data: bytes) -> bool:
    """Whether a colour image holds more than 8 bits per channel (Pillow's mode does not say)."""
    if picture.format == "TIFF":
        bits = getattr(picture, "tag_v2", {}).get(258, (8,))
        return 16 in (bits if isinstance(bits, tuple) else (bits,))
    if picture.format == "PNG":
        return (
            data[24:25] == b"\x10"
        )  # IHDR's bit depth: after 8 of signature, 8 of chunk header, width and height
    return picture.format == "PPM"  # OpenCV answers with 16 bits where maxval exceeds 255, with 8 otherwise


def _scale(deep: NDArray[Any]) -> NDArray[np.uint8]:
    """0..65535 -> 0..255, rounded: (v + 128) // 257 is round(v / 257)."""
    return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation 1..8; a damaged EXIF block counts as upright: it is no reason to lose a frame."""
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:
        return 1


def _turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Upright pixels of a picture stored with an EXIF orientation."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _said(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200]
