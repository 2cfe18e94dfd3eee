"""The object store and the model server over TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dapo.errors import ServiceUnavailable
from deploy.native import MinioServer, TritonServer
from pipeline.settings import StoreSettings, TritonSettings
from pipeline.store.errors import StoreError, StoreUnavailable
from pipeline.store.open import open_store
from pipeline.triton.client import NotReady, TritonInfer
from pipeline.triton.open import address_of
from tests.integration.certificates import Authority
from tests.integration.trust.plant import PACK, SECRET
from triton_models.server import ModelServer


def store_settings(server: MinioServer, **other: Any) -> StoreSettings:
    usual = {
        "endpoint": server.endpoint,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
        "tls": True,
    }
    return StoreSettings(**{**usual, **other})


def test_the_store_is_spoken_to_over_tls(store: MinioServer, authority: Authority) -> None:
    opened = open_store(store_settings(store, ssl_cafile=authority.file))
    etag = opened.put_if_absent("a", b"1")  # by a presigned address, which is another path than that of `put`
    opened.put("b", b"2")
    assert (opened.get("a"), opened.get("b")) == (b"1", b"2")
    assert opened.replace("a", b"3", etag)
    opened.close()


STORES: dict[str, tuple[str, Callable[[MinioServer, Authority, Authority], dict[str, Any]]]] = {
    "authority": ("not trusted.*ssl_cafile", lambda server, own, stranger: {"ssl_cafile": stranger.file}),
    "no authority": ("not trusted.*ssl_cafile", lambda server, own, stranger: {}),
    "name": (
        "not trusted.*ostname mismatch",
        lambda server, own, stranger: {
            "ssl_cafile": own.file,
            "endpoint": f"localhost:{server.ports['s3']}",
        },
    ),
    "no tls": ("store.tls", lambda server, own, stranger: {"tls": False}),
    "secret": (
        "store.secret_key",
        lambda server, own, stranger: {"ssl_cafile": own.file, "secret_key": f"{SECRET}wrong"},
    ),
}


@pytest.mark.parametrize("wrong", STORES)
def test_a_store_that_is_not_trusted_or_does_not_trust_is_named(
    store: MinioServer, authority: Authority, stranger: Authority, wrong: str
) -> None:
    words, other = STORES[wrong]
    opened = open_store(store_settings(store, **other(store, authority, stranger)))
    for verb in (lambda: opened.put("x", b"1"), lambda: opened.put_if_absent("y", b"1")):
        # Without TLS the server says so, or just hangs up: whichever comes first.
        with pytest.raises((StoreError, StoreUnavailable), match=words) as told:
            verb()
        assert SECRET not in str(told.value)
    opened.close()


def test_the_model_server_is_spoken_to_over_tls(model_server: TritonServer, authority: Authority) -> None:
    address = address_of(TritonSettings(url=model_server.url, tls=True, ssl_cafile=authority.file))
    with ModelServer(address) as server:
        assert server.client.is_server_ready(client_timeout=10)
        assert server.ensembles() == {}
    infer = TritonInfer(PACK, address)
    try:
        with pytest.raises(NotReady, match="serves no"):
            infer.check()
    finally:
        infer.close()


WORDS = {
    "authority": "CERTIFICATE_VERIFY_FAILED",
    "no authority": "CERTIFICATE_VERIFY_FAILED",
    "name": "Hostname Verification Check failed",
    "no tls": "Socket closed",
}


@pytest.mark.parametrize("wrong", WORDS)
def test_a_model_server_that_is_not_trusted_is_not_asked(
    model_server: TritonServer, authority: Authority, stranger: Authority, wrong: str
) -> None:
    settings = {
        "authority": TritonSettings(url=model_server.url, tls=True, ssl_cafile=stranger.file),
        "no authority": TritonSettings(url=model_server.url, tls=True),
        "name": TritonSettings(
            url=f"localhost:{model_server.ports['grpc']}", tls=True, ssl_cafile=authority.file
        ),
        "no tls": TritonSettings(url=model_server.url),
    }[wrong]
    infer = TritonInfer(PACK, address_of(settings))
    try:
        with pytest.raises(ServiceUnavailable, match=f"model server {settings.url}") as told:
            infer.check()
        assert WORDS[wrong] in str(told.value)
    finally:
        infer.close()
