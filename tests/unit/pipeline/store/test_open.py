"""From settings to a store."""

from __future__ import annotations

import pytest

from dapo.errors import SettingsError
from pipeline.settings import load
from pipeline.store.open import open_store

GIVEN = {
    "DAPO_STORE__ENDPOINT": "127.0.0.1:9000",
    "DAPO_STORE__ACCESS_KEY": "access",
    "DAPO_STORE__SECRET_KEY": "secret",
    "DAPO_STORE__BUCKET": "images",
}


def test_a_store_is_opened_as_the_environment_says() -> None:
    settings = load(environment=GIVEN).settings.store
    assert open_store(settings).bucket == "images"
    assert open_store(settings, "models").bucket == "models"


@pytest.mark.parametrize("missing", ["ENDPOINT", "ACCESS_KEY", "SECRET_KEY"])
def test_what_is_missing_is_named(missing: str) -> None:
    environment = {name: value for name, value in GIVEN.items() if name != f"DAPO_STORE__{missing}"}
    with pytest.raises(SettingsError, match=f"store.{missing.lower()} missing"):
        open_store(load(environment=environment).settings.store)
