"""A data set is opened by its name, its words and its groups come from files."""

from __future__ import annotations

import pytest

from dapo.errors import SourceError
from tests.contract import dataset_trees as trees
from trainer.data.open import Options, open_dataset
from trainer.data.words import Words


def test_what_is_no_data_set_is_told_what_was_looked_for(root, tmp_path):
    with pytest.raises(SourceError, match="no such folder or file"):
        open_dataset(str(tmp_path / "none"))
    with pytest.raises(SourceError, match="no labelled images in it"):
        open_dataset(str(root))
    with pytest.raises(SourceError, match=r"'mvtek' is no format .*Did you mean 'mvtec'"):
        open_dataset("mvtek:/data")
    file = root / "x.json"
    file.write_text("{}")
    with pytest.raises(SourceError, match="expected an object with images"):
        open_dataset(str(file))
    file.write_text("{")
    with pytest.raises(SourceError, match="is no JSON"):
        open_dataset(str(file))


def test_groups_of_a_file(root, tmp_path):
    trees.folder(root)
    file = tmp_path / "groups.csv"
    rows = [f"lid/{kind}/{n}.png,part-{n},2026-01-0{n + 1}" for kind in ("good", "scratch") for n in range(3)]
    file.write_text("file,group,day\n" + "\n".join(rows))
    samples = open_dataset(str(root), Options(groups=file)).product("lid").samples
    assert {(s.group, str(s.day)) for s in samples} == {(f"part-{n}", f"2026-01-0{n + 1}") for n in range(3)}
    with pytest.raises(SourceError, match=r"has no row for valve/good/0\.png"):
        open_dataset(str(root), Options(groups=file)).product("valve")
    for text, says in (
        ("file\n", "has no column 'group'. Expected file, group, day"),
        ("file,group\na,\n", r"groups\.csv:2: file and group"),
        ("file,group,day\na,b,soon\n", r"groups\.csv:2: day 'soon'"),
    ):
        file.write_text(text)
        with pytest.raises(SourceError, match=says):
            open_dataset(str(root), Options(groups=file))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[word]\na = 'b'", "unknown table 'word'"),
        ("[words", "not valid TOML"),
        (None, "can't be read"),
        ("words = 3", r"\[words\]: expected lines such as"),
        ("[words]\nscratch = 3", r"\[words\]: expected lines such as"),
        ("[words]\nscratch = ' '", r"\[words\]: expected lines such as"),
        ("product = 3", "'product': Expected"),
        ("[product]\ncup = 3", r"\[product\.cup\]: Expected"),
        ("[product.cup]\nwords = ['a']", r"\[product\.cup\.words\]: expected lines"),
        ("[product.cup]\ntypes = 'a'", r"\[product\.cup\]: types: expected a list"),
        ("[product.cup]\ncolour = 'a'", r"\[product\.cup\]: Expected"),
    ],
)
def test_a_wrong_file_of_words_says_what(tmp_path, text, says):
    file = tmp_path / "words.toml"
    if text:
        file.write_text(text)
    with pytest.raises(SourceError, match=says):
        Words(file=file)


def test_files_that_are_no_utf8_and_tables_that_are_none_are_told(root, tmp_path):
    trees.visa(root)
    table = root / "cashew" / "image_anno.csv"
    table.write_bytes("image,label,mask\nä".encode("latin-1"))
    with pytest.raises(SourceError, match=r"image_anno\.csv: is not UTF-8"):
        open_dataset(str(root)).product("cashew")
    table.write_text('image,label,mask\n"a"b,c,d\n')
    with pytest.raises(SourceError, match=r"image_anno\.csv:2: "):
        open_dataset(str(root)).product("cashew")
    groups = tmp_path / "groups.csv"
    groups.write_text("file,group\na,1\na,2\n")
    with pytest.raises(SourceError, match=r"groups\.csv:3: a is listed twice"):
        open_dataset(str(root), Options(groups=groups))


def test_a_file_of_words_wins(root, tmp_path):
    trees.mvtec(root)
    file = tmp_path / "words.toml"
    file.write_text('[words]\nscratch_head = "mark"\n[product.cable.words]\nscratch_head = "nick"\n')
    data = open_dataset(f"mvtec:{root}", Options(words=file))
    assert (data.product("bottle").words, data.product("cable").words) == (("mark",), ("nick",))
