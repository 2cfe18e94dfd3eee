"""Labelled frames on disk, and two packs that the command line can load."""

from __future__ import annotations

import cv2
import pytest

from dapo.handwritten import make_handwritten_pack
from dapo.pack_io import write_pack
from dapo.testing import small_encoder
from pipeline.testing import surface


@pytest.fixture
def data(tmp_path):
    """Good, defective and unlabelled frames of one product."""
    root = tmp_path / "lid"
    for folder, count, first in (("good", 11, 0), ("hole", 11, 100), ("unlabelled", 3, 200)):
        for number in range(count):
            path = root / folder / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), surface(first + number, defect=folder == "hole"))
    return root


@pytest.fixture
def packs(monkeypatch, tmp_path):
    """A pack of a tiny random encoder, and the same with other words: champion and challenger."""
    encoder = small_encoder()
    monkeypatch.setattr("dapo.packing.load_encoder", lambda *args, **options: encoder)
    old, new = tmp_path / "old.pack", tmp_path / "new.pack"
    write_pack(make_handwritten_pack(encoder, ["hole"]), old)
    write_pack(make_handwritten_pack(encoder, ["hole"], generic_words=["scratch", "dent"]), new)
    return old, new
