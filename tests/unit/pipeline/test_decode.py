"""Decoding: what works, and what is refused with which code, before memory is spent on it."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.decode import DecodeError, Limits, decode
from pipeline.testing import encoded, surface

RANDOM = np.random.default_rng(3)


def _save(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def _png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has hardly any data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG"])
def test_formats_decode_to_rgb(form: str) -> None:
    pixels = surface(1)
    options = {"lossless": True} if form == "WEBP" else {}
    image = decode(_save(Image.fromarray(pixels), form, **options))
    assert (image.width, image.height, image.format) == (96, 64, form)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == (64, 96, 3)
    assert np.abs(image.pixels.astype(int) - pixels).mean() < (8 if form == "JPEG" else 0.01)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr"])
def test_pixel_modes_decode_to_rgb(mode: str) -> None:
    picture = Image.fromarray(surface(2)).convert("L" if mode in ("LA", "PA") else "RGB").convert(mode)
    image = decode(_save(picture, "TIFF" if mode in ("CMYK", "YCbCr", "PA") else "PNG"))
    assert np.array_equal(image.pixels, np.asarray(picture.convert("RGB")))


def test_a_palette_with_a_transparency_table_decodes() -> None:
    picture = Image.fromarray(surface(2)).convert("P")
    image = decode(_save(picture, transparency=bytes(range(256))))
    assert np.array_equal(image.pixels, np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm"])
@pytest.mark.parametrize(
    "top", [65535, 4095]
)  # 12 bits in 16: stays dark, or a frame's scale would depend on its content
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_divided_by_257(suffix: str, top: int, channels: int) -> None:
    deep: NDArray[np.uint16] = RANDOM.integers(0, top + 1, (40, 50, channels)).astype(np.uint16)
    name = ".pgm" if suffix == ".ppm" and channels == 1 else suffix
    data = cv2.imencode(name, deep[..., ::-1])[1].tobytes()
    expected = np.broadcast_to(np.round(deep / 257), (40, 50, 3))
    assert np.array_equal(decode(data).pixels, expected)


def test_sixteen_bits_with_alpha_keep_their_colours() -> None:
    deep = RANDOM.integers(0, 65536, (20, 30, 4), dtype=np.uint16)
    data = cv2.imencode(".png", deep[..., [2, 1, 0, 3]])[1].tobytes()
    assert np.array_equal(decode(data).pixels, np.round(deep[..., :3] / 257))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    tag = Image.Exif()
    tag[0x0112] = orientation
    data = _save(Image.fromarray(surface(4, defect=True)), exif=tag)
    assert np.array_equal(
        decode(data).pixels, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    )


def test_exif_rotation_is_applied_to_sixteen_bits() -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    deep = RANDOM.integers(0, 65536, (20, 30), dtype=np.uint16)
    data = _save(Image.fromarray(deep), exif=tag)
    assert np.array_equal(decode(data).pixels[..., 0], np.round(np.rot90(deep, -1) / 257))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken(form: str) -> None:
    first, second = (Image.fromarray(np.full((20, 20, 3), value, np.uint8)) for value in (40, 200))
    options = {"lossless": True} if form == "WEBP" else {}
    data = _save(first, form, save_all=True, append_images=[second], **options)
    assert np.abs(decode(data).pixels.astype(int) - 40).max() <= 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"not an image at all", "not-an-image"),
        (b"%PDF-1.7 ...", "not-an-image"),
        (encoded(surface())[:900], "damaged"),
        (encoded(surface(), "JPEG")[:1500], "damaged"),
        (encoded(surface(), "TIFF")[:2000], "damaged"),
        (encoded(surface(), "BMP")[:2000], "damaged"),
        (_png_header(30000, 30000), "too-many-pixels"),
        (encoded(surface(width=1, height=1)), "too-small"),
        (_save(Image.fromarray(RANDOM.random((20, 20)).astype(np.float32)), "TIFF"), "unsupported-pixels"),
        (
            _save(Image.fromarray(RANDOM.integers(0, 2**31, (20, 20)).astype(np.int32)), "TIFF"),
            "unsupported-pixels",
        ),
    ],
)
def test_bad_input_says_what_is_wrong(data: bytes, code: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(data)
    assert caught.value.code == code
    assert str(caught.value).endswith(".")


def test_bytes_are_limited() -> None:
    data = encoded(surface())
    assert decode(data, Limits(max_bytes=len(data))).width == 96
    with pytest.raises(DecodeError, match=r"more than the limit of 100\b"):
        decode(data, Limits(max_bytes=100))


def test_a_bomb_is_refused_from_its_header() -> None:
    bomb = _save(Image.new("L", (12_000, 12_000)))  # 144 MB of pixels in 140 kB
    assert len(bomb) < 200_000
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="12000 x 12000") as caught:
            decode(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code == "too-many-pixels"
    assert peak < 10 * 2**20


def test_damaged_exif_does_not_lose_the_frame() -> None:
    data = _save(Image.fromarray(surface()), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert decode(data).width == 96


@pytest.mark.filterwarnings(
    "ignore::UserWarning:PIL"
)  # Pillow warns of what it finds in garbage before it gives up
@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from(["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM"]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=20),
    keep=st.floats(0, 1),
)
def test_whatever_the_bytes_the_answer_is_an_image_or_a_decode_error(
    form: str, edits: list[tuple[float, int]], keep: float
) -> None:
    data = bytearray(encoded(surface(width=16, height=12), form))
    for at, value in edits:
        data[min(len(data) - 1, int(at * len(data)))] = value
    limits = Limits(max_pixels=10_000)
    try:
        image = decode(bytes(data[: int(keep * len(data))]), limits)
    except DecodeError:
        return
    assert image.pixels.shape == (image.height, image.width, 3)
    assert image.width * image.height <= limits.max_pixels


def test_a_damaged_frame_says_nothing_on_stderr(tmp_path):
    picture = Image.new("RGB", (32, 32))
    exif = (
        b"Exif\0\0II*\0\x08\0\0\0\x05\0" + b"\x12\x01\x03\0\xff\xff\0\0\xff\xff\xff\x7f"
    )  # cut off, sizes absurd
    file = tmp_path / "damaged.jpg"
    picture.save(file, exif=exif)
    program = f"from pathlib import Path; from pipeline.decode import decode; decode(Path({str(file)!r}).read_bytes())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
