"""Images of claim checks: what is the frame's fault is told of the frame; what is the store's is never told of a frame."""

from __future__ import annotations

import pytest

from dapo.errors import FrameError
from pipeline.decode import Limits
from pipeline.ports import Frame
from pipeline.store.errors import OF_ONE_OBJECT, StoreError, StoreUnavailable
from pipeline.stream.compose import claims_of, fetch_from
from pipeline.stream.frames import REFERENCE
from pipeline.testing import DAY, MemoryStore

LIMITS = Limits(max_bytes=5)
HERE = "s3://memory/claims/"
REFUSED = "memory: get: 403 InvalidAccessKeyId. Check store.access_key and store.secret_key."


class Refusing(MemoryStore):
    """A store that knows us no longer."""

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """Refused."""
        raise StoreError(REFUSED)


def stored(kind: type[MemoryStore] = MemoryStore) -> MemoryStore:
    store = kind()
    store.put("claims/there", b"image")
    store.put("claims/large", b"images")
    store.put("claims/rotten", b"image")
    store.rot("claims/rotten")
    store.put("manifest/secret", b"image")
    return store


def fetched(store: MemoryStore | None, uri: str) -> bytes:
    return fetch_from(store, "memory", LIMITS)(Frame("f", "memory://test", DAY, headers={REFERENCE: uri}))


def test_an_image_comes_from_where_the_message_says():
    assert fetched(stored(), f"{HERE}there") == b"image"
    assert claims_of(stored(), LIMITS.max_bytes)(f"{HERE}there") == b"image"


FAULTS = {
    f"{HERE}gone": "not-found",
    f"{HERE}large": "unreadable",
    f"{HERE}rotten": "unreadable",
    f"{HERE}../manifest/secret": "unreadable",
    f"{HERE}\u00e4": "unreadable",
    # No policy lets a worker read these: a refusal of them must not look like one of us.
    "s3://memory/manifest/secret": "foreign-reference",
    "s3://elsewhere/claims/there": "foreign-reference",
    "http://memory/claims/there": "foreign-reference",
}


@pytest.mark.parametrize("uri", FAULTS)
def test_what_is_wrong_with_one_frame_is_told_of_that_frame(uri: str):
    with pytest.raises(FrameError) as caught:
        fetched(stored(), uri)
    assert caught.value.code == FAULTS[uri]
    assert claims_of(stored(), LIMITS.max_bytes)(uri) is None


def test_a_worker_without_a_store_says_so_of_the_frame():
    with pytest.raises(FrameError) as caught:
        fetched(None, f"{HERE}there")
    assert caught.value.code == "no-store"


def test_a_store_that_refuses_us_is_no_fault_of_any_frame():
    store = stored(Refusing)
    for read in (lambda: fetched(store, f"{HERE}there"), lambda: claims_of(store, 5)(f"{HERE}there")):
        with pytest.raises(StoreError, match=r"store\.secret_key") as caught:
            read()
        assert not isinstance(caught.value, OF_ONE_OBJECT)


def test_a_store_that_is_away_is_waited_for():
    store = stored()
    store.away = True
    for read in (lambda: fetched(store, f"{HERE}there"), lambda: claims_of(store, 5)(f"{HERE}there")):
        with pytest.raises(StoreUnavailable):
            read()
