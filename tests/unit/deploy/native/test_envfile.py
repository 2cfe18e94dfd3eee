"""The environment file: for its owner only, and as a shell reads it."""

from __future__ import annotations

import stat
import subprocess

import pytest

from deploy.native.envfile import EnvironmentFileError, read_environment, write_environment

VALUES = {"DAPO_KAFKA__BOOTSTRAP": "127.0.0.1:15000", "DAPO_STORE__SECRET_KEY": 'it\'s $HOME "and" more'}


def test_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "dapo.env"
    path.write_text("export OLD=1\n")
    path.chmod(0o644)
    write_environment(path, VALUES)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["dapo.env"]


def test_a_shell_and_we_read_the_same(tmp_path):
    path = tmp_path / "dapo.env"
    write_environment(path, VALUES)
    assert read_environment(path) == VALUES
    script = f'. {path} && printf "%s\\n%s" "$DAPO_KAFKA__BOOTSTRAP" "$DAPO_STORE__SECRET_KEY"'
    seen = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, check=True, env={"HOME": "/x"}
    )
    assert seen.stdout.split("\n") == list(VALUES.values())


def test_none_is_empty_and_a_broken_one_says_so(tmp_path):
    assert read_environment(tmp_path / "none") == {}
    (tmp_path / "broken").write_text("export A='open")
    with pytest.raises(EnvironmentFileError, match=r"broken: can't be read.*run 'dapo up' again"):
        read_environment(tmp_path / "broken")
