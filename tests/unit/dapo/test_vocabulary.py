from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dapo.errors import VocabularyError
from dapo.preprocess import normalise, resize
from dapo.vocabulary import check_slugs, nearest, slugify, synonyms


@given(st.text(max_size=100))
def test_slugs_are_safe_for_topics_and_files_or_refused(word):
    try:
        slug = slugify(word)
    except VocabularyError:
        return
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug)
    assert slugify(slug) == slug


@pytest.mark.parametrize("word", ["", " ", "---", "裂缝", "unknown", "Unknown", "x" * 81])
def test_words_without_a_name_are_refused(word):
    with pytest.raises(VocabularyError, match="defect word"):
        slugify(word)


def test_accents_are_kept_readable():
    assert slugify("Fäulnis à l'œil") == "faulnis-a-l-il"


def test_check_slugs_names_both_words():
    assert check_slugs(["a b", "c"]) == {"a-b": "a b", "c": "c"}
    with pytest.raises(VocabularyError, match="'a b' and 'A-B'"):
        check_slugs(["a b", "A-B"])


def test_the_nearest_word_is_named():
    assert nearest("scrach", synonyms()) == "scratch"
    assert nearest("qqqq", synonyms()) is None


def test_no_word_belongs_to_two_classes():
    words = [word for group in synonyms().values() for word in group]
    assert len(words) == len(set(words))


def test_resize_is_pillows_bicubic():
    image = np.random.default_rng(0).integers(0, 255, (37, 91, 3), dtype=np.uint8)
    wanted = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC))
    assert np.array_equal(resize(image, 64), wanted)
    assert np.array_equal(resize(wanted, 64), wanted)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_resize_refuses_what_is_no_rgb_image(shape):
    with pytest.raises(ValueError, match="expected uint8"):
        resize(np.zeros(shape, np.uint8), 8)


def test_normalise_scales_and_standardises():
    batch = np.full((1, 2, 2, 3), 255, np.uint8)
    assert normalise(batch, (0.5, 0.5, 0.5), (0.25, 0.25, 0.5))[0, :, 0, 0].tolist() == [2.0, 2.0, 1.0]


def test_a_worker_needs_no_torch():
    """Pack, judge, tiles, quality, preprocessing, schemas and the pipeline's stages import where torch is not installed."""
    modules = (
        "dapo.pack, dapo.pack_io, dapo.pack_diff, dapo.judge, dapo.tiles, dapo.quality, dapo.preprocess, dapo.vocabulary,"
        "schemas.codec, pipeline.inspect, pipeline.run, pipeline.record, pipeline.cli, pipeline.cli.run, pipeline.cli.pack"
    )
    program = f"import sys\nsys.modules['torch'] = None\nsys.modules['open_clip'] = None\nimport {modules}\nprint('ok')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "ok", done.stderr
