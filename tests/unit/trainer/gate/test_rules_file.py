"""A plant's limits in a file: what is wrong is told with file and key."""

from __future__ import annotations

import pytest

from dapo.errors import SettingsError, SourceError
from trainer.gate.rules import Rules
from trainer.gate.rules_file import read_rules


def written(tmp_path, text):
    path = tmp_path / "rules.toml"
    path.write_text(text)
    return path


def test_what_is_named_holds_and_the_rest_is_as_always(tmp_path):
    path = written(
        tmp_path,
        'margin = 0.02\nlevel = 0.1\npower = 0.9\nfalse_alarms = 0\nnot_decidable = 0.2\nmin_parts = 12\n[recall]\n"*" = 0.9\n'
        "scratch = 1\n",
    )
    expected = Rules(
        level=0.1,
        margin=0.02,
        power=0.9,
        recall={"*": 0.9, "scratch": 1.0},
        false_alarms=0,
        not_decidable=0.2,
        min_parts=12,
    )
    assert read_rules(path) == expected
    assert read_rules(written(tmp_path, "")) == Rules()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("false_alarm = 0.1", "unknown key 'false_alarm'. Did you mean 'false_alarms'?"),
        ("zzz = 1", "unknown key 'zzz'. Known: level, margin"),
        ("recall = 0.9", r"expected a table \[recall\]"),
        ("[recall]\nscratch = 'high'", "recall of scratch is 'high'; expected a number"),
        ("[recall]\nscratch = 2", "recall of scratch is 2.0; expected a share"),
        ("margin = true", "margin is True; expected a number"),
        ("margin = nan", "margin is nan; expected a share"),
        ("min_parts = 10.5", "min_parts is 10.5; expected a whole number"),
        ("margin = ", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, text, says):
    with pytest.raises(SettingsError, match=says) as error:
        read_rules(written(tmp_path, text))
    assert "rules.toml" in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SourceError, match=r"none.toml: can't be read"):
        read_rules(tmp_path / "none.toml")
