"""The store that the settings name."""

from __future__ import annotations

from dapo.errors import SettingsError
from pipeline.settings import StoreSettings
from pipeline.store.minio_store import Endpoint, MinioStore


def open_store(settings: StoreSettings, bucket: str | None = None) -> MinioStore:
    """A store as configured; nothing is sent yet.

    Args:
        bucket: another than that of the images, such as the registry's.

    Raises:
        SettingsError: something is missing or can't be.
    """
    missing = [name for name in ("endpoint", "access_key", "secret_key") if not getattr(settings, name)]
    if missing:
        raise SettingsError(
            f"no object store is set: {', '.join(f'store.{name}' for name in missing)} missing. "
            "Example: DAPO_STORE__ENDPOINT=127.0.0.1:9000, DAPO_STORE__ACCESS_KEY=..., DAPO_STORE__SECRET_KEY=..."
        )
    assert settings.access_key is not None
    assert settings.secret_key is not None
    return MinioStore(
        Endpoint(
            address=settings.endpoint,
            bucket=bucket or settings.bucket,
            access_key=settings.access_key.get_secret_value(),
            secret_key=settings.secret_key.get_secret_value(),
            region=settings.region,
            tls=settings.tls,
            ca_file=settings.ssl_cafile,
            timeout_s=settings.timeout_s,
        )
    )
