from __future__ import annotations

import pytest

from dapo.errors import SettingsError
from pipeline.cli import invoke
from pipeline.settings import SECRETS, keys, load, shown


def test_each_layer_wins_over_the_one_before(tmp_path):
    file = tmp_path / "dapo.toml"
    file.write_text("[run]\nbatch = 2\nmax_bytes = 5\n[model]\ndevice = 'cuda'\n")
    loaded = load(
        {"run.batch": 9, "run.out": None}, file, {"DAPO_RUN__BATCH": "4", "DAPO_MODEL__THREADS": "3"}
    )
    assert (loaded.settings.run.batch, loaded.settings.run.max_bytes) == (9, 5)
    assert (loaded.settings.model.device, loaded.settings.model.threads) == ("cuda", 3)
    origins = {key: loaded.origins[key] for key in ("run.batch", "run.max_bytes", "model.threads", "run.out")}
    assert origins == {
        "run.batch": "option",
        "run.max_bytes": str(file),
        "model.threads": "environment DAPO_MODEL__THREADS",
        "run.out": "default",
    }


def test_the_file_may_be_named_by_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "other.toml"
    file.write_text("[run]\nbatch = 3\n")
    assert load(environment={"DAPO_CONFIG": str(file)}).settings.run.batch == 3
    monkeypatch.chdir(tmp_path)
    assert load(environment={}).settings.run.batch == 8
    file.rename(tmp_path / "dapo.toml")
    assert load(environment={}).settings.run.batch == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[run]\nbacth = 2", "unknown setting 'run.bacth'. Did you mean 'run.batch'"),
        ("batch = 2", "unknown setting 'batch'"),
        ("[run]\nbatch = 'many'", "run.batch: input should be a valid integer"),
        ("[run]\nbatch = 0", "greater than or equal to 1"),
        ("[run", "not valid TOML"),
    ],
)
def test_a_wrong_file_says_what_and_where(tmp_path, text, says):
    file = tmp_path / "dapo.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=says.replace("[", r"\[")) as caught:
        load(config=file, environment={})
    assert str(file) in str(caught.value)


def test_a_missing_file_and_a_wrong_variable_are_named(tmp_path):
    with pytest.raises(SettingsError, match="can't be read"):
        load(config=tmp_path / "none.toml", environment={})
    with pytest.raises(SettingsError, match=r"environment DAPO_MODEL__DEVCE: .*Did you mean 'model.device'"):
        load(environment={"DAPO_MODEL__DEVCE": "cpu"})


def test_every_setting_is_shown():
    assert [row[0] for row in shown(load(environment={}))] == keys()


def test_dapo_config_prints_values_with_origins(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAPO_RUN__BATCH", "5")
    assert invoke(["config"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["run.batch", "5", "environment", "DAPO_RUN__BATCH"] in lines


def test_brackets_in_settings_are_text(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAPO_RUN__OUT", "[/tmp]")
    monkeypatch.setenv("DAPO_PACK__PATH", "[red]a.pack")
    assert invoke(["config"]) == 0
    shown = capsys.readouterr().out
    assert "[/tmp]" in shown
    assert "[red]a.pack" in shown


def test_a_secret_is_not_shown_even_where_it_is_wrong(tmp_path):
    file = tmp_path / "dapo.toml"
    for key in SECRETS:
        section, name = key.split(".")
        file.write_text(f"[{section}]\n{name} = 99887766\n")
        with pytest.raises(SettingsError) as caught:
            load(config=file, environment={})
        assert key in str(caught.value)
        assert "99887766" not in str(caught.value)


def test_a_secret_may_lie_in_a_file(tmp_path):
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    loaded = load(environment={"DAPO_STORE__SECRET_KEY_FILE": str(file)})
    assert loaded.settings.store.secret_key.get_secret_value() == "s3cret"
    assert loaded.origins["store.secret_key"] == "environment DAPO_STORE__SECRET_KEY_FILE"
    assert not any("s3cret" in text for row in shown(loaded) for text in row)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "can't be read"), (b"", "one line"), (b"a\nb\n", "one line"), (b"\xff", "UTF-8")],
)
def test_a_secrets_file_that_holds_none_is_named(tmp_path, content, says):
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=f"DAPO_KAFKA__PASSWORD_FILE: {file}: .*{says}"):
        load(environment={"DAPO_KAFKA__PASSWORD_FILE": str(file)})


def test_a_secret_is_given_once_and_only_secrets_lie_in_files(tmp_path):
    file = tmp_path / "secret"
    file.write_text("x")
    both = {"DAPO_KAFKA__PASSWORD": "y", "DAPO_KAFKA__PASSWORD_FILE": str(file)}
    with pytest.raises(SettingsError, match=r"kafka\.password is given twice"):
        load(environment=both)
    with pytest.raises(SettingsError, match=r"unknown setting 'kafka\.username_file'"):
        load(environment={"DAPO_KAFKA__USERNAME_FILE": str(file)})
