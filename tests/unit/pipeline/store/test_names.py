"""Keys, metadata and URIs: what is let through, and what never reaches a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store.errors import StoreError
from pipeline.store.names import checked_key, checked_metadata, checked_prefix, parse_s3_uri, s3_uri

SAFE = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.=-]{0,30}(/[A-Za-z0-9_][A-Za-z0-9_.=-]{0,30}){0,5}\Z")


@given(SAFE)
def test_a_safe_key_stays_as_it_is(key: str) -> None:
    assert checked_key(key) == key
    assert parse_s3_uri(s3_uri("inspection", key)) == ("inspection", key)
    for cut in range(len(key)):
        if not key[:cut].endswith("/") or cut == 0:
            assert checked_prefix(key[:cut]) == key[:cut]


@given(st.text(max_size=60))
def test_no_key_climbs_or_breaks_out(key: str) -> None:
    try:
        checked_key(key)
    except StoreError:
        return
    assert key.isascii()
    assert key.isprintable()
    assert not set(key) & set("\\ ?#%&+\"'<>|*:;`$!(){}[]~^,@")
    assert all(part and not part.startswith((".", "-", "=")) for part in key.split("/"))


def test_a_key_is_no_longer_than_servers_take() -> None:
    checked_key("/".join(["a" * 204] * 5))
    with pytest.raises(StoreError, match="at most 1024"):
        checked_key("/".join(["a" * 204] * 5) + "a")
    with pytest.raises(StoreError, match="255"):
        checked_key("a" * 256)


@pytest.mark.parametrize(
    "uri",
    [
        "", "s3://", "s3://bucket", "s3://bucket/", "s3:///key", "http://bucket/key", "s3://bucket/../key", "s3://B/key",
        "s3://user@bucket/key", "s3://bucket:80/key", "s3://bucket/key?versionId=1", "s3://bucket/a%2Fb", "s3://bucket/a\n",
        "s3://bucket\n/a", "S3://bucket/a", " s3://bucket/a",
    ],
)  # fmt: skip
def test_what_is_no_object_is_refused(uri: str) -> None:
    with pytest.raises(StoreError):
        parse_s3_uri(uri)


def test_metadata_is_copied() -> None:
    given = {"a": "1"}
    checked = checked_metadata(given)
    given["a"] = "2"
    assert checked == {"a": "1"}
